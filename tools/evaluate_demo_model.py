"""Measure the demo model: held-out bits per byte, and how often a completed function parses.

Both use only files that training has not seen (`is_held_out`), and torch alone.

Bits per byte: every held-out file is a document between its start and end token. A window of 2,048 tokens moves over
it by 1,024, and each token is scored once, in the first window that holds it. The sum of the nats over ln 2 and over
the bytes of the files is the figure.

Function completion: 100 functions of 8 to 60 lines, the first ones by a hash of their place and at most ten of a file.
The prompt is the start token, the file's text before the function (at most 1,000 tokens, from a line start) and the
first half of the function's lines. The most likely token is taken each time, 200 times at most. The function ends
before the first line that is not indented deeper than its `def`, or after the last complete line when the budget ends
first. It counts when that text parses. Because half a function often parses too, that number stands beside it.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import sys
import sysconfig
import textwrap
import time
import warnings
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from demo_model import (
    BOS_ID,
    EOS_ID,
    Cache,
    Decoder,
    ModelConfig,
    SourceFile,
    encode_files,
    held_out_bits,
    read_corpus,
    split_corpus,
)

CONTEXT_TOKENS = 1000
NEW_TOKENS = 200
FUNCTIONS = 100
PER_FILE = 10
WINDOW, STRIDE = 2048, 1024


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a held-out file: the text before it and its own lines, line ends kept."""

    path: str
    line: int
    before: str
    lines: tuple[str, ...]

    @property
    def head(self) -> str:
        """The first half of its lines."""
        return "".join(self.lines[: len(self.lines) // 2])

    @property
    def indent(self) -> int:
        """Column of its `def`."""
        return len(self.lines[0]) - len(self.lines[0].lstrip())


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model made of a function."""

    function: Function
    added: str
    ended: bool

    @property
    def text(self) -> str:
        """The function from its `def` to the cut."""
        return self.function.head + self.added

    @property
    def first_line_matches(self) -> bool:
        """Whether the first line that is not blank is the one in the file."""
        rest = "".join(self.function.lines[len(self.function.lines) // 2 :])
        return first_line(self.added) == first_line(rest)


def lines_of(text: str) -> list[str]:
    """Lines with their ends; unlike `splitlines`, only a newline ends one, as in `ast`."""
    return io.StringIO(text).readlines()


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return next((line.rstrip() for line in text.splitlines() if line.strip()), "")


def parses(text: str) -> bool:
    """Whether a piece of a file parses on its own, once it is moved to column 0."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return False
    return True


def load_model(folder: Path) -> tuple[Decoder, Tokenizer]:
    """The model in fp32 and its tokenizer."""
    values = json.loads((folder / "config.json").read_text())
    model = Decoder(ModelConfig(**{f.name: values[f.name] for f in fields(ModelConfig)}))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.float().eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def functions_of(file: SourceFile) -> list[Function]:
    """The functions and methods of 8 to 60 lines that parse on their own."""
    lines = lines_of(file.text)
    found = []
    for node in ast.walk(ast.parse(file.text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.end_lineno is None:
            continue
        start, own = node.lineno - 1, tuple(lines[node.lineno - 1 : node.end_lineno])
        if 8 <= len(own) <= 60 and own[0].lstrip().startswith(("def ", "async def ")) and parses("".join(own)):
            found.append(Function(file.path, node.lineno, "".join(lines[:start]), own))
    return found


def choose_functions(files: list[SourceFile]) -> list[Function]:
    """The functions of the test, the same for the same files."""
    candidates = [function for file in files for function in functions_of(file)]
    candidates.sort(key=lambda f: hashlib.sha256(f"{f.path}:{f.line}".encode()).digest())
    taken: Counter[str] = Counter()
    chosen = []
    for function in candidates:
        taken[function.path] += 1
        if taken[function.path] <= PER_FILE:
            chosen.append(function)
    return chosen[:FUNCTIONS]


def prompt_ids(tokenizer: Tokenizer, function: Function) -> list[int]:
    """Start token, the end of the text before the function, and its first half."""
    kept: list[str] = []
    room = CONTEXT_TOKENS
    for line in reversed(lines_of(function.before)):
        room -= len(tokenizer.encode(line, add_special_tokens=False).ids)
        if room < 0:
            break
        kept.append(line)
    text = "".join(reversed(kept)) + function.head
    return [BOS_ID, *tokenizer.encode(text, add_special_tokens=False).ids]


def cut(text: str, indent: int) -> tuple[str, bool]:
    """The complete lines of `text` that belong to a function at column `indent`, and whether it ends in there."""
    lines = lines_of(text)
    for index, line in enumerate(lines):
        bare = line.lstrip()
        if bare and len(line) - len(bare) <= indent:
            return "".join(lines[:index]), True
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return "".join(lines), False


@torch.no_grad()
def complete(model: Decoder, tokenizer: Tokenizer, function: Function) -> Completion:
    """Continue the first half of a function with the most likely tokens."""
    ids, new = prompt_ids(tokenizer, function), list[int]()
    cache: Cache | None = None
    for _ in range(NEW_TOKENS):
        logits, cache = model(torch.tensor([ids if cache is None else new[-1:]]), cache)
        new.append(int(logits[0, -1].argmax()))
        if new[-1] == EOS_ID:
            return Completion(function, cut(tokenizer.decode(new) + "\n", function.indent)[0], True)
        added, ended = cut(tokenizer.decode(new), function.indent)
        if ended:
            return Completion(function, added, True)
    return Completion(function, added, False)


def measure_functions(model: Decoder, tokenizer: Tokenizer, files: list[SourceFile]) -> dict[str, object]:
    """Complete the functions; print the first good one and return the counts."""
    completions = [complete(model, tokenizer, function) for function in choose_functions(files)]
    good = [c for c in completions if parses(c.text)]
    sample = next((c for c in good if c.ended and c.added.count("\n") >= 4), None)
    if sample:
        print(f"{sample.function.path}:{sample.function.line}\n{sample.function.head}# --- the model goes on ---")
        print(sample.added)
    return {
        "functions": len(completions),
        "parsed": len(good),
        "first_half_parsed": sum(parses(c.function.head) for c in completions),
        "ended": sum(c.ended for c in completions),
        "nothing_added": sum(not c.added.strip() for c in completions),
        "first_line_as_in_file": sum(c.first_line_matches for c in completions),
        "parsed_where_first_half_does_not": sum(not parses(c.function.head) for c in good),
    }


def measure_bits(model: Decoder, tokenizer: Tokenizer, files: list[SourceFile]) -> dict[str, object]:
    """Bits per byte over all files, and of each file that is not tiny."""
    sizes = [len(file.text.encode()) for file in files]
    bits = []
    for document, size in zip(encode_files(tokenizer, files), sizes, strict=True):
        bits.append(held_out_bits(model, [document], 1, WINDOW, STRIDE) if size else 0.0)
    each = zip(files, bits, sizes, strict=True)
    return {
        "held_out_files": len(files),
        "held_out_bytes": sum(sizes),
        "bits_per_byte": round(sum(bits) / sum(sizes), 4),
        "bits_per_byte_of": {file.path: round(b / size, 4) for file, b, size in each if size >= 2000},
    }


def main(arguments: list[str]) -> None:
    """Measure, print, and write the figures when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=Path("src/twinfer/demo"), help="folder of the model")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model, tokenizer = load_model(options.model)
    _, files = split_corpus(read_corpus(Path(sysconfig.get_path("stdlib"))))
    start = time.monotonic()
    figures = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "parameters": sum(p.numel() for p in model.parameters()),
        **measure_functions(model, tokenizer, files),
        **measure_bits(model, tokenizer, files),
    }
    print(json.dumps(figures, indent=2))
    print(f"measured in {time.monotonic() - start:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
