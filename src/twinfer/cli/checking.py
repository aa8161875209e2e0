"""Looks at a model's new weights, in a process of its own: a download may take hours, and no thread can be stopped.

``python -m twinfer.cli.checking`` reads a :class:`Question`, one line, from its standard input, and writes a
:class:`Finding`. Standard input stays open for as long as whoever asks lives; its end is this process's end.
"""

import asyncio
import contextlib
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from twinfer.cli.emulation import settle_emulation
from twinfer.cli.succession import check_successor
from twinfer.cluster.child import describe_exit
from twinfer.cluster.lifeline import read_spec
from twinfer.cluster.plan import model_of
from twinfer.core.config import Config, ModelConfig
from twinfer.core.errors import ConfigError, TwinferError
from twinfer.core.ids import ModelId
from twinfer.model.checkpoint import locate


@dataclass(frozen=True, slots=True)
class Served:
    """What a deployment serves.

    Attributes:
        config: settled.
        directories: where each model is, resolved.
    """

    config: Config
    directories: dict[ModelId, str]

    def pinned(self) -> "Served":
        """The same by directories: what a Hugging Face id names may change, while workers are started again."""
        models = tuple(
            msgspec.structs.replace(each, source=self.directories[ModelId(each.id)]) for each in self.config.model
        )
        return Served(msgspec.structs.replace(self.config, model=models), self.directories)


@dataclass(frozen=True, slots=True)
class Question:
    """Whether this may be served.

    Attributes:
        old: what is served.
        config: as it is to be.
        model: of that configuration, the one that changes.
        other: it has another source now, and not only its pools are changed.
    """

    old: Served
    config: Config
    model: ModelConfig
    other: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What would be served, or why it cannot be."""

    served: Served | None = None
    error: str = ""


def checked(question: Question) -> Served:
    """What would be served, pinned, once it is known that it can be. Downloads what has to be downloaded.

    Raises:
        ConfigError: the checkpoint is not one that can take the other's place.
        CheckpointError: what is broken or missing.
    """
    old, config, model = question.old, question.config, question.model
    key = ModelId(model.id)
    new = locate(model.source).resolve()
    if question.other and str(new) == old.directories[key]:
        raise ConfigError(f"{new} is what is served: put other weights into a directory of their own")
    computes = any(pool.engine == "native" for pool in config.pool if model_of(config, pool).id == model.id)
    check_successor(model, Path(old.directories[key]), new, computes=computes)
    directories = old.directories | {key: str(new)}
    return Served(settle_emulation(config, directories), directories).pinned()


async def checked_apart(question: Question) -> Served:
    """The same in a process of its own, which ends at once when this is cancelled, or this process ends.

    Raises:
        ConfigError: what :func:`checked` raises, in its words.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "twinfer.cli.checking",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is the parent's to handle
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(question) + b"\n")
        said, code = await process.stdout.read(), await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if code:
        advice = "the deployment's terminal says why" if code > 0 else "roll again"
        raise ConfigError(f"the process that checks the new weights {describe_exit(code)}; {advice}")
    finding = msgspec.json.decode(said, type=Finding)
    if finding.served is None:
        raise ConfigError(finding.error)
    return finding.served


def main() -> None:
    """Answer one question, and nothing else: what is printed meanwhile goes to the terminal."""
    question = read_spec(Question)
    threading.Thread(target=_end_with_input, daemon=True).start()
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            finding = Finding(checked(question))
        except TwinferError as error:
            finding = Finding(error=str(error))
        answer.write(msgspec.json.encode(finding))


def _end_with_input() -> None:
    """Nobody waits for an answer any more once nobody holds its other end."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
