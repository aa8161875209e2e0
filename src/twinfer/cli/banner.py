"""What ``twinfer serve`` says on a terminal: the configuration, progress while loading, how to call it, what died."""

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from twinfer.cluster.plan import LocalPlan
from twinfer.core.config import Config
from twinfer.core.process import READY

CALLS = """
  curl {curl}{url}/v1/chat/completions -H 'content-type: application/json' -d '
    {{"model": "{model}", "max_tokens": 64, "temperature": 0,
     "messages": [{{"role": "user", "content": "def gcd(a, b):\\n    "}}]}}'

  import boto3
  client = boto3.client("bedrock-runtime", endpoint_url="{url}", region_name="{region}"{keys})
  answer = client.converse_stream(modelId="{model}", inferenceConfig={{"maxTokens": 64, "temperature": 0}},
      messages=[{{"role": "user", "content": [{{"text": "def gcd(a, b):\\n    "}}]}}])
  for event in answer["stream"]:
      print(event.get("contentBlockDelta", {{}}).get("delta", {{}}).get("text", ""), end="", flush=True)
"""

OPEN = {
    "curl": "",
    "keys": ",\n" + 24 * " " + 'aws_access_key_id="any", aws_secret_access_key="any"',
}
KEYED = {"curl": '-H "authorization: Bearer $AWS_BEARER_TOKEN_BEDROCK" ', "keys": ""}
"""How a call shows who it is from; with keys, boto3 finds them in the environment."""


class Banner:
    """Talks to whoever started the server; on standard error, so that standard output stays the caller's."""

    def __init__(self, config: Config, plan: LocalPlan, host: str, port: int) -> None:
        self._config = config
        self._plan = plan
        self._guarded = config.identity.required
        self._encrypted = bool(config.gateway.tls_cert)
        scheme = "https" if self._encrypted else "http"
        self._url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        self._console = Console(file=sys.stderr, highlight=False)
        self._stages: dict[str, str] = {}
        self._live: Live | None = None

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return self._url

    def configuration(self, text: str) -> None:
        """The effective configuration, so that nobody has to guess what a run used."""
        self._say("effective configuration:", "bold")
        self._say(f"{text.strip()}\n", "dim")

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """Shows the stages of all processes while they load; plain lines where there is no terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, transient=True, refresh_per_second=8) as self._live:
            try:
                yield
            finally:
                self._live = None

    def stage(self, name: str, stage: str) -> None:
        """A process is doing this now."""
        self._stages[name] = stage
        if self._live is not None:
            rows = (f"  {key:<12} {value}" for key, value in sorted(self._stages.items()))
            self._live.update(Text("\n".join(rows)))
        elif stage == READY or not self._console.is_terminal:
            self._say(f"{name}: {stage}")

    def ready(self, seconds: float) -> None:
        """Everything serves."""
        for spec in self._plan.workers:
            pool, cores = spec.pool, ",".join(map(str, spec.cores))
            engine = f"{pool.engine} {pool.emulation.device}" if pool.engine == "emulated" else pool.engine
            self._say(f"  {spec.worker:<12} {pool.role.value:<8} {engine.strip()} on {pool.device}, cores {cores}")
        words = KEYED if self._guarded else OPEN
        region = self._config.gateway.region
        calls = CALLS.format(url=self._url, model=self._config.model[0].id, region=region, **words)
        self._say(f"\nTwinfer serves {self._config.model[0].id} at {self._url} (ready in {seconds:.1f} s)")
        if self._guarded:
            clear = "" if self._encrypted else " Keys travel in the clear: this is plain HTTP."
            self._say(f"Every request needs a key (twinfer keys list).{clear} Ctrl-C stops it.", "dim")
        else:
            self._say(
                "Open on loopback until the first key exists: twinfer keys create --tenant NAME. Ctrl-C stops it.",
                "dim",
            )
        self._say(calls)

    def died(self, name: str, how: str, again_in_s: float) -> None:
        """A process died and will be started again."""
        self._say(f"{name} {how}; starting it again in {again_in_s:.1f} s", "yellow")

    def news(self, text: str) -> None:
        """Something that somebody ordered is being done."""
        self._say(text, "cyan")

    def stopping(self) -> None:
        """A signal came."""
        self._say("stopping: running requests may finish; a second signal ends them at once")

    def _say(self, text: str, style: str = "") -> None:
        """As it is: never wrapped, so that a line can be searched for, and without markup."""
        self._console.print(Text(text, style), soft_wrap=True)
