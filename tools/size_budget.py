"""Hold the size budget: a file of at most 500 lines, a function of at most 60, a median source file of at most 120.

Small rooms keep the house readable. The way to meet the budget is to find the second idea in a file, not to golf.

    python tools/size_budget.py
"""

import ast
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_LINES = 120
ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "tools", "bench")


def excesses(paths: Sequence[Path]) -> Iterator[str]:
    """One sentence for every file and function above the budget."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        num_lines = len(text.splitlines())
        if num_lines > MAX_FILE_LINES:
            yield f"{path}: {num_lines} lines, {MAX_FILE_LINES} allowed; split it by its ideas"
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                place = f"{path}:{node.lineno}"
                yield f"{place}: {node.name} has {length} lines, {MAX_FUNCTION_LINES} allowed; name its parts"


def median_lines(paths: Sequence[Path]) -> float:
    """Lines of the file in the middle."""
    return statistics.median(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def files(root: Path, folders: Sequence[str]) -> list[Path]:
    """All Python files below these folders."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def main() -> int:
    """Print what is above the budget; the exit code says whether anything is."""
    found = list(excesses(files(ROOT, FOLDERS)))
    median = median_lines(files(ROOT, ("src",)))
    if median > MAX_MEDIAN_LINES:
        found.append(f"the median source file has {median:g} lines, {MAX_MEDIAN_LINES} allowed")
    print("\n".join(found) if found else f"size budget kept; the median source file has {median:g} lines")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
