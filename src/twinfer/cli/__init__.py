"""The command line. Every subcommand lives in a file of its own and is imported only when it is called."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from twinfer import __version__
from twinfer.cli.bench_options import BENCH, add_bench

EXIT_CONFIG = 2
WEIGHTS = ("checkpoint", "bf16", "fp16", "int8", "int4")
"""Of which the simulator knows how wide they are."""

DESCRIPTION = """\
Serve large language models with prefill and decode on separate workers, behind Bedrock's and OpenAI's APIs.

  twinfer serve                           the bundled demo model, one prefill and one decode worker on this machine
  twinfer serve ./Qwen2.5-0.5B            a directory in Hugging Face format, or a Hugging Face id
  twinfer serve --config twinfer.toml     a whole topology from a file
  twinfer keys create --tenant acme       a key for clients; from the first one on, everybody needs one
  twinfer usage --by tenant,model         what everybody used, and what it cost
  twinfer bench run http://127.0.0.1:8000 how fast an endpoint is, ours or not; compare says what changed
  twinfer roll ./Qwen2.5-0.5B-v2          other weights, worker by worker, without losing a request
  twinfer chaos http://127.0.0.1:8000     kill, pause and partition it under load, and check every answer
  twinfer simulate --trace trace.jsonl    the same scheduler, router and handoffs, on devices that are not here
  twinfer devices                         what Trainium, CS-3, GPUs and links can do, and how well that is known
  twinfer doctor                          what this machine can run, and why not the rest
"""

SERVE = """\
Starts a gateway and its workers on this machine and keeps them running until Ctrl-C. With --prefill and --decode both
sides are emulated: the whole path is real, steps take the time that the catalogue computes for these devices, and the
text means nothing (`twinfer devices`). With --kv virtual the KV of the model's shape is counted and timed as over the
link, while a fingerprint of it moves; without it small KV moves, at most as fast as over the --link that is named.

examples:
  twinfer serve
  twinfer serve ./my-model --port 9000
  twinfer serve --set pool.decode.weights=bf16 --set pool.prefill.weights=bf16
  twinfer serve --config twinfer.toml --set gateway.port=9000
  twinfer serve --elastic --set pool.prefill.workers=2 --set pool.decode.workers=2
  twinfer serve --prefill trn3 --decode cs3 --model-shape gpt-oss-120b
  twinfer serve --prefill trn3 --decode cs3 --kv virtual --link efa-trn3
  twinfer serve --prefill h200 --decode b200 --time-scale 10
"""

WORKER = """\
Runs one worker of a configured pool in the foreground, for a gateway that lists its address, or that looks into the
same `registry`, a directory in which the worker then stands. On SIGTERM it drains, and ends.
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

With --endpoint there is one certificate instead, of an authority of its own, for the endpoint that clients call.

examples:
  twinfer certs certificates --host 10.0.0.5 --host 10.0.0.6 --host decode.example.net
  twinfer certs certificates --host 10.0.0.6 --worker decode-0
  twinfer certs endpoint --endpoint --host llm.example.net
"""

ROLL = """\
Changes the weights of a model that 'twinfer serve' serves on this machine, worker by worker, while it goes on serving.
SOURCE is a directory in Hugging Face format or a Hugging Face id, of the same shape and with the same tokenizer and
template. It is checked first, and a checkpoint that cannot be loaded is noticed before any worker goes.

Workers with the new weights start beside the old ones, which then take nothing new, end what they have, and go: that
takes room for one more worker of each phase. Where there is none, as on a GPU that is full, --in-place lets each worker
go before its successor starts; that needs at least two workers that decode. When one does not come up, everything goes
back to the old weights. No request is lost, and each answer is of one of the two weights, from its first token to its
last; KV never passes between them. An answer may take as long as gateway.request_timeout_s; with --drain S one that
takes longer than that ends with an error.

Ctrl-C ends this command and not what it began. Exit code 0: done. 2: not done, for the reason that is shown.

examples:
  twinfer serve ./my-model
  twinfer roll ./my-model-v2
  twinfer roll ./my-model-v2 --port 9000 --model local.my-model --drain 60
  twinfer roll Qwen/Qwen2.5-0.5B-Instruct --in-place
"""

CHAOS = """\
Puts a deployment that 'twinfer serve' runs on this machine to the test. Under load it kills (SIGKILL), pauses (SIGSTOP,
for less and for more than the lease) and partitions (worker from worker) its processes, one at a time, and waits after
each until all of them serve again. Every answer is compared with the one to the same prompt without a disturbance.

  right         the same tokens, text, finish reason and usage
  right by R7   parts from it where the two best tokens were closer than 0.001: rounding, not an error
  refused       a clear error instead, which names what failed
  broken        the connection broke, while the gateway was killed or paused
  wrong         anything else: other text, a clean end after a part, an error that fits nothing that happened
  stuck         nothing came for a minute and all leases

After each event every KV block of the surviving workers must be accounted for within the lease and a second, and at the
end nothing may be held. Exit code 0: nothing wrong, nothing stuck, nothing lost. 1: something was. 2: it could not run.

Do not use it on a deployment that serves people. Ctrl-C ends it at any time and leaves no process stopped.

examples:
  twinfer serve --set handoff.allow_isolation=true --set pool.prefill.workers=2 --set pool.decode.workers=2
  twinfer chaos http://127.0.0.1:8000
  twinfer chaos http://127.0.0.1:8000 --events 20 --clients 12 --seed 7 --json chaos.json
  twinfer chaos http://127.0.0.1:8000 --events 100000 --minutes 480
"""

SIMULATE = """\
Replays a trace of requests against devices of the catalogue, under a virtual clock: the product's own scheduler, block
pool, prefix cache, router and handoffs decide, and only the time between their decisions is computed. Traces are
Mooncake's JSON lines, or CSV as Azure's and ServeGen's. See docs/simulator.md for what is not modelled.

With --prefill and --decode, KV blocks have 512 tokens, as the prefixes of Mooncake's traces, and contexts 131,072.

  --fail decode-0@120s+30s        that worker dies 120 s after the trace began, and is back 30 s later
  --fail link:prefill-0@60s+5s    no other worker reaches it for 5 s
  --fail decode-0@120s+30s*10     its steps take ten times as long for 30 s; link:decode-0 in the same way

examples:
  twinfer simulate --trace conversation_trace.jsonl --prefill trn3 --decode cs3 --prefill-workers 4
  twinfer simulate --trace azure_conv.csv --prefill h100 --decode h100 --slo-ttft 2 --slo-tpot 0.05 --html report.html
  twinfer simulate --trace conversation_trace.jsonl --config twinfer.toml --rate-scale 2 --json result.json
"""

KEYS = """\
Keys in the database that gateways read (`[identity]` in the configuration, TWINFER_DATABASE_URL; SQLite by default). An
access key signs requests as AWS's SDKs do (SigV4); the bearer key that comes with it is the same identity in one
string. A tenant's requests share cached prompts with nobody else's.

  create --tenant NAME   make a key; its secrets are shown this once
  list                   all keys, revoked ones included
  revoke KEY             end a key; running gateways refuse it within seconds

What a key may do: --allow and --deny take ACTION or ACTION@MODEL with * and ?; a denial wins. Actions are IAM's:
bedrock:InvokeModel, bedrock:InvokeModelWithResponseStream, bedrock:CountTokens, bedrock:ListFoundationModels, ...,
bedrock-mantle:CreateInference for OpenAI's API, and twinfer:GetMetrics for GET /metrics. The default allows all of
bedrock:* and bedrock-mantle:*.

examples:
  twinfer keys create --tenant acme
  twinfer keys create --tenant acme --allow 'bedrock:Invoke*@meta.*' --expires 90d --json
  twinfer keys create --tenant acme --temporary --expires 1h
  twinfer keys create --tenant monitoring --allow twinfer:GetMetrics
  twinfer keys revoke AKIAEXAMPLEEXAMPLE22
"""

USAGE = """\
Sums over the ledger, in which gateways keep one record for each request: tokens, seconds, KV and cost. It is in the
database that `[identity]` in the configuration or TWINFER_DATABASE_URL names. Costs need a price file (`usage.prices`).

Split by any of: tenant, key, model, profile, operation, status, tier, latency, route, day, hour.

examples:
  twinfer usage --by tenant,model --since 24h
  twinfer usage --by day,tier --since 2026-01-01 --tenant acme --json
  twinfer usage --since 30d --export usage.csv
  twinfer usage --export usage.parquet
"""

DEVICES = """\
Lists the hardware catalogue: devices, links and model shapes. Every number in it has a range, a quality and a source;
the list shows the worst quality of each. Nobody outside the vendors can write KV into a CS-3 today.

  show NAME          every number of a device or link with its source, and what is doubtful; or a model shape's costs
  measure [--write]  this machine's memory, matrix product, shared memory and loopback; --write keeps it as `this`.
                     With --model it is fitted to timed steps of that model, on the cores that this process may use

examples:
  twinfer devices
  twinfer devices show cs3
  twinfer devices show gpt-oss-120b
  twinfer devices show ./my-model/config.json --json
  twinfer devices measure --write
  taskset -c 0 twinfer devices measure --model ./Qwen2.5-0.5B --write
"""


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    top = argparse.ArgumentParser(
        prog="twinfer", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"twinfer {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _serve(commands)
    _worker(commands)
    _roll(commands)
    _chaos(commands)
    _certs(commands)
    _keys(commands)
    _usage(commands)
    _simulate(commands)
    add_bench(_command(commands, "bench", "measure an OpenAI or Bedrock endpoint", BENCH))
    _devices(commands)
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


def _serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = _command(commands, "serve", "start a gateway and its workers on this machine", SERVE)
    serve.add_argument("model", nargs="?", help="'demo', a directory or a Hugging Face id (default: the demo model)")
    _configuration(serve)
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (default: 8000)")
    serve.add_argument("--elastic", action="store_true", help="workers change between prefill and decode with the load")
    serve.add_argument("--prefill", metavar="DEVICE", help="emulate this device of the catalogue for prompts")
    serve.add_argument("--decode", metavar="DEVICE", help="emulate this device of the catalogue for tokens")
    serve.add_argument("--model-shape", metavar="NAME", help="the model they are taken to run (default: gpt-oss-120b)")
    serve.add_argument(
        "--kv", choices=("real", "virtual"), help="virtual counts and times the model's KV without moving it"
    )
    serve.add_argument("--link", metavar="NAME", help="KV takes as long as over this link of the catalogue")
    serve.add_argument("--time-scale", type=float, metavar="X", help="devices and link are that much slower")


def _worker(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _roll(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    roll = _command(commands, "roll", "change the weights of a running deployment, worker by worker", ROLL)
    roll.add_argument("source", nargs="?", metavar="SOURCE", help="the new weights: a directory or a Hugging Face id")
    roll.add_argument("--port", type=int, default=8000, help="of the deployment (default: 8000)")
    roll.add_argument("--model", metavar="ID", help="whose weights (default: the first model's)")
    roll.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="change a key of the model's pools; repeatable"
    )
    roll.add_argument(
        "--drain", type=float, metavar="S", help="what a worker has ends within that (default: any request's time)"
    )
    roll.add_argument("--in-place", action="store_true", help="each worker goes before its successor starts")


def _chaos(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    chaos = _command(commands, "chaos", "disturb a running deployment and check every answer", CHAOS)
    chaos.add_argument("url", metavar="URL", help="of a deployment on this machine, such as http://127.0.0.1:8000")
    _configuration(chaos)
    chaos.add_argument("--events", type=int, default=100, help="disturbances (default: 100)")
    chaos.add_argument("--seed", type=int, default=0, help="of prompts, events and moments (default: 0)")
    chaos.add_argument(
        "--only", action="append", default=[], metavar="KIND", help="kill, pause, long-pause, partition; repeatable"
    )
    chaos.add_argument("--strict", action="store_true", help="an error in place of an answer is not clean, either")
    chaos.add_argument("--minutes", type=float, help="begin no event later than that")
    chaos.add_argument("--clients", type=int, default=6, help="requests at a time (default: 6)")
    chaos.add_argument("--prompts", type=int, default=24, help="different prompts (default: 24)")
    chaos.add_argument("--json", metavar="FILE", help="write the result there, with all that bad answers said")


def _certs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    certs = _command(commands, "certs", "make certificates for workers and gateways on several machines", CERTS)
    certs.add_argument("directory", metavar="DIR", help="where they go")
    certs.add_argument(
        "--host", action="append", default=[], metavar="NAME_OR_IP", help="a worker's machine; repeatable"
    )
    certs.add_argument("--days", type=int, default=365, help="how long the certificates are valid (default: 365)")
    certs.add_argument("--force", action="store_true", help="replace certificates that are there")
    certs.add_argument(
        "--worker",
        action="append",
        default=[],
        metavar="NAME",
        help="one for this worker alone; repeatable, for several",
    )
    certs.add_argument(
        "--endpoint", action="store_true", help="a certificate for the endpoint that clients call, instead"
    )


def _simulate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    simulate = _command(commands, "simulate", "replay a trace against devices that are not here", SIMULATE)
    add = simulate.add_argument
    add("--trace", required=True, metavar="FILE", help="requests with their times and lengths")
    _configuration(simulate)
    add("--prefill", metavar="DEVICE", help="this device of the catalogue computes prompts")
    add("--decode", metavar="DEVICE", help="this device of the catalogue computes tokens")
    add("--model-shape", metavar="NAME", help="the model they run (default: gpt-oss-120b)")
    add("--prefill-workers", type=int, metavar="N", help="in place of the configured number")
    add("--decode-workers", type=int, metavar="N", help="in place of the configured number")
    add("--prefill-link", metavar="LINK", help="of the catalogue (default: what is sold with the device)")
    add("--decode-link", metavar="LINK", help="of the catalogue (default: what is sold with the device)")
    add("--rate-scale", type=float, default=1.0, metavar="X", help="requests come X times as often (default: 1)")
    add("--limit", type=int, metavar="N", help="only the first N requests")
    add("--seed", type=int, default=0, help="of whatever is drawn (default: 0)")
    add("--slo-ttft", type=float, metavar="SECONDS", help="the first token has to come within that")
    add("--slo-tpot", type=float, metavar="SECONDS", help="later tokens have to take no longer each, on average")
    add("--elastic", action="store_true", help="workers change between prefill and decode with the load")
    add("--fail", action="append", default=[], metavar="WHAT", help="a failure to happen, see above; repeatable")
    add("--message-us", type=float, default=200.0, metavar="US", help="one message between processes (default: 200)")
    add("--step-us", type=float, default=0.0, metavar="US", help="an engine's own time in each step (default: 0)")
    add("--gateway-us", type=float, default=0.0, metavar="US", help="the gateway's time per request (default: 0)")
    add("--json", metavar="FILE", help="write everything there")
    add("--html", metavar="FILE", help="write a page with plots there")


def _devices(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    devices = _command(commands, "devices", "list what hardware can do, and how well that is known", DEVICES)
    devices.add_argument("--json", action="store_true", help="print JSON")
    actions = devices.add_subparsers(dest="action", metavar="ACTION")
    show = _command(actions, "show", "every number of a device, link or model shape", None)
    show.add_argument("name", metavar="NAME", help="of the catalogue, or a path to a config.json")
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    measure = _command(actions, "measure", "measure this machine", None)
    measure.add_argument("--write", action="store_true", help="keep it as the device `this`")
    measure.add_argument(
        "--model", metavar="MODEL", help="fit the device to steps of this model: demo, a directory, a Hugging Face id"
    )
    measure.add_argument("--weights", default="checkpoint", choices=WEIGHTS, help="of that model (default: checkpoint)")


def _keys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    keys = _command(commands, "keys", "make, list and revoke the keys of clients", KEYS)
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = _command(actions, "create", "make a key", None)
    create.add_argument("--tenant", required=True, metavar="NAME", help="the account that it belongs to")
    create.add_argument("--allow", action="append", default=[], metavar="RULE", help="what it may do; repeatable")
    create.add_argument("--deny", action="append", default=[], metavar="RULE", help="what it may not; repeatable")
    create.add_argument("--expires", metavar="TIME", help="valid for 90d, 12h, 30m (default: until revoked)")
    create.add_argument("--temporary", action="store_true", help="with a session token, for 12h unless --expires says")
    create.add_argument("--note", default="", help="to recognise it by")
    listing = _command(actions, "list", "show all keys, without their secrets", None)
    listing.add_argument("--tenant", metavar="NAME", help="only this one's")
    revoke = _command(actions, "revoke", "end a key", None)
    revoke.add_argument("key", metavar="KEY", help="its access key id")
    for action in (create, listing, revoke):
        action.add_argument("--json", action="store_true", help="print JSON")
        _configuration(action)


def _usage(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    usage = _command(commands, "usage", "what tenants used, and what it cost", USAGE)
    usage.add_argument("--by", default="tenant,model", metavar="A,B", help="split by these (default: tenant,model)")
    usage.add_argument("--since", metavar="TIME", help="24h or 7d ago, or a date such as 2026-01-31, in UTC")
    usage.add_argument("--until", metavar="TIME", help="the same, not included (default: now)")
    usage.add_argument("--tenant", metavar="NAME", help="only this one's")
    usage.add_argument("--model", metavar="ID", help="only this one")
    usage.add_argument("--json", action="store_true", help="print JSON")
    usage.add_argument("--export", metavar="FILE", help="write single records to FILE.csv or FILE.parquet instead")
    _configuration(usage)


def _configuration(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="TOML file with the topology (docs/configuration.md)")
    command.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override one key of the configuration; repeatable"
    )
