"""The size budget is kept, and its checker finds what exceeds it."""

from pathlib import Path

from tools import size_budget


def test_budget_is_kept():
    """No file, no function and no median above the budget."""
    assert list(size_budget.excesses(size_budget.files(size_budget.ROOT, size_budget.FOLDERS))) == []
    assert size_budget.median_lines(size_budget.files(size_budget.ROOT, ("src",))) <= size_budget.MAX_MEDIAN_LINES


def test_excesses(tmp_path: Path):
    """One line more than allowed is found, in files and in functions, methods and nested ones included."""
    allowed = size_budget.MAX_FUNCTION_LINES
    body = "        pass\n" * (allowed - 1)
    (tmp_path / "just.py").write_text(f"class A:\n    def fits(self):\n{body}" + "\n" * (500 - allowed - 1))
    (tmp_path / "long.py").write_text("\n" * 501)
    (tmp_path / "deep.py").write_text(f"class A:\n    async def grows(self):\n{body}        pass\n")
    found = list(size_budget.excesses(size_budget.files(tmp_path, (".",))))
    assert [sentence.removeprefix(str(tmp_path)).split(";")[0] for sentence in found] == [
        "/deep.py:2: grows has 61 lines, 60 allowed",
        "/long.py: 501 lines, 500 allowed",
    ]


def test_median(tmp_path: Path):
    """The file in the middle counts, not the mean."""
    for name, num_lines in (("a", 1), ("b", 5), ("c", 400)):
        (tmp_path / f"{name}.py").write_text("\n" * num_lines)
    assert size_budget.median_lines(size_budget.files(tmp_path, (".",))) == 5
