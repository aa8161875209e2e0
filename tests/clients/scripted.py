"""A gateway over a model that follows rules (``follower.py``) and answers to every name, and over workers that refuse.

A user who says ``refuse: REASON NUMBER`` is refused that often before there is an answer, which tells how often the
client came, and after how many seconds for the second time. The number stands for one request: clients choose it.

    python -m tests.clients.scripted        says where it listens, and serves until it is told to stop
"""

import asyncio
import re
import signal
import sys
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from tests.clients.follower import answer
from tests.gateway import templates
from twinfer.core.config import Config, ModelConfig
from twinfer.core.errors import CapacityError, ModelNotReady, Throttled, TwinferError, WorkerLost
from twinfer.core.request import GenerationRequest
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.loading import load_model
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.serve import bind, build_app, serve
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.manner import Manner

MODEL = "meta.llama3-1-8b-instruct-v1:0"
RETRY_S = 1.5
_REFUSE = re.compile(r"refuse: (\w+) (\w+)")
REFUSALS = {
    "busy": CapacityError("No room.", RETRY_S),
    "loading": ModelNotReady("Loading.", RETRY_S),
    "throttled": Throttled("Too much.", RETRY_S),
    "lost": WorkerLost("Gone."),
}


class Refusing:
    """Which requests came before, and when."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._came: dict[str, list[float]] = {}

    def script(self, request: GenerationRequest) -> Script:
        """Once what the user asked to be refused with; otherwise what the model says."""
        prompt = self._model.tokenizer.decode(request.prompt)
        found = _REFUSE.search(prompt)
        if found is None:
            return self._says(answer(prompt))
        came = self._came.setdefault(found[2], [])
        came.append(time.monotonic())
        error: TwinferError = REFUSALS[found[1]]
        if len(came) == 1:
            return Script([], failure=error)
        return self._says(f"{len(came)} times, after {came[1] - came[0]:.3f} s")

    def _says(self, text: str) -> Script:
        tokens = self._model.tokenizer.encode(text, add_special_tokens=False)
        return Script([*([token] for token in tokens), [self._model.eos_token_ids[0]]])


def the_model() -> ServedModel:
    """The demo model's tokenizer, and Qwen's template, shortened."""
    config = ModelConfig(id=MODEL, aliases=("*",))
    loaded = load_model(config, Path(str(files("twinfer").joinpath("demo"))))
    template = ChatTemplate(templates.HERMES, {})
    return replace(loaded, template=template, manner=Manner(Hermes()), max_context_tokens=100_000)


async def main() -> None:
    """Serve."""
    model, sock, stop = the_model(), bind("127.0.0.1", 0), asyncio.Event()
    app = build_app(
        Config(model=(ModelConfig(id=MODEL),)), ModelRegistry([model]), FakeDispatcher(Refusing(model).script)
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    print(f"serves {MODEL} at http://127.0.0.1:{sock.getsockname()[1]} (ready)", file=sys.stderr, flush=True)
    await serve(app, sock, stop, drain_s=1)


if __name__ == "__main__":
    asyncio.run(main())
