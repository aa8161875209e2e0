"""Brings generated pages up to date, or says which are not."""

from collections.abc import Mapping
from pathlib import Path


def bring(files: Mapping[Path, str], check: bool) -> int:
    """Write each file's text, or with ``check`` only name those that differ; the exit code says whether any did."""
    differ = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in differ:
        if check:
            print(f"{path} is not what is computed now; run the command without --check")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
        print(f"wrote {path}")
    return 1 if check and differ else 0
