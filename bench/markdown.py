"""Tables of Markdown."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; columns whose head starts with ``>`` are flush right."""
    names = [head.removeprefix(">") for head in heads]
    rule = ["---:" if head.startswith(">") else "---" for head in heads]
    return [f"| {' | '.join(row)} |" for row in (names, rule, *rows)]
