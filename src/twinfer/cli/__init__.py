"""The command line. Every subcommand lives in a file of its own and is imported only when it is called."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from twinfer import __version__

EXIT_CONFIG = 2

DESCRIPTION = """\
Serve large language models with prefill and decode on separate workers, behind Bedrock's and OpenAI's APIs.

  twinfer serve                           the bundled demo model, one prefill and one decode worker on this machine
  twinfer serve ./Qwen2.5-0.5B            a directory in Hugging Face format, or a Hugging Face id
  twinfer serve --config twinfer.toml     a whole topology from a file
  twinfer doctor                          what this machine can run, and why not the rest
"""

SERVE = """\
Starts a gateway and its workers on this machine and keeps them running until Ctrl-C.

examples:
  twinfer serve
  twinfer serve ./my-model --port 9000
  twinfer serve --set pool.decode.weights=bf16 --set pool.prefill.weights=bf16
  twinfer serve --config twinfer.toml --set gateway.port=9000
"""

WORKER = """\
Runs one worker of a configured pool in the foreground, for a gateway that lists its address.
The cluster key comes from TWINFER_CLUSTER_KEY (64 hexadecimal digits), the same for gateway and workers.
On another machine than the gateway's it needs certificates: see `twinfer certs --help`.

examples:
  export TWINFER_CLUSTER_KEY=$(openssl rand -hex 32)
  twinfer worker --config twinfer.toml --pool prefill --listen 127.0.0.1:7001
  twinfer serve --config twinfer.toml --set 'pool.prefill.addresses=["127.0.0.1:7001"]'
  twinfer worker --config twinfer.toml --pool decode --listen 0.0.0.0:7001 --advertise 10.0.0.5 --kv-port 7002
"""

CERTS = """\
Makes a private certificate authority in DIR, and certificates for workers and gateways with which they trust each
other across machines. Existing files are not overwritten. With --force there are new certificates, signed by the same
authority: for renewal, or for other hosts.

example:
  twinfer certs certificates --host 10.0.0.5 --host 10.0.0.6 --host decode.example.net
"""


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    top = argparse.ArgumentParser(
        prog="twinfer", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"twinfer {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = _command(commands, "serve", "start a gateway and its workers on this machine", SERVE)
    serve.add_argument("model", nargs="?", help="'demo', a directory or a Hugging Face id (default: the demo model)")
    _configuration(serve)
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (default: 8000)")
    worker = _command(commands, "worker", "run one worker in the foreground", WORKER)
    _configuration(worker)
    worker.add_argument("--pool", required=True, help="name of the [[pool]] it belongs to")
    worker.add_argument("--index", type=int, default=0, help="its number within the pool (default: 0)")
    worker.add_argument("--listen", required=True, metavar="HOST:PORT", help="address of its control plane")
    worker.add_argument(
        "--advertise", default="", metavar="HOST", help="where others reach it, if not on --listen's host"
    )
    worker.add_argument(
        "--kv-port", type=int, default=0, metavar="PORT", help="port for KV over TCP (default: a free one)"
    )
    certs = _command(commands, "certs", "make certificates for workers and gateways on several machines", CERTS)
    certs.add_argument("directory", metavar="DIR", help="where they go")
    certs.add_argument(
        "--host", action="append", default=[], metavar="NAME_OR_IP", help="a worker's machine; repeatable"
    )
    certs.add_argument("--days", type=int, default=365, help="how long the certificates are valid (default: 365)")
    certs.add_argument("--force", action="store_true", help="replace certificates that are there")
    _command(commands, "doctor", "say what this machine can and cannot run, and why", None)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    arguments = parser().parse_args(argv)
    command = importlib.import_module(f"twinfer.cli.{arguments.command}")
    from twinfer.core.errors import TwinferError

    try:
        return int(command.run(arguments))
    except TwinferError as error:
        print(f"twinfer: {error}", file=sys.stderr)
        return EXIT_CONFIG


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, text: str | None
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=text or f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _configuration(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="TOML file with the topology (docs/configuration.md)")
    command.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override one key of the configuration; repeatable"
    )
