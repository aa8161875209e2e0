"""The options of ``twinfer bench``; imported for every ``--help``, so it needs argparse only."""

import argparse

BENCH = """\
Measures any endpoint that speaks OpenAI's or Bedrock's API, from the client's side, and compares two measurements
(docs/benchmarking.md). `twinfer bench run --help` and `twinfer bench compare --help` say more.

examples:
  twinfer bench run http://127.0.0.1:8000 --rate 4 --duration 60 --json a.json --html a.html
  twinfer bench compare a.json b.json
"""

RUN = """\
Offers a load to an endpoint and says how fast the answers came: time to the first token (TTFT), between arrivals of
text (ITL), per token after the first (TPOT) and to the end, with intervals of 95 % confidence.

What is asked
  --input 256 --output 64         lengths in tokens; also 64..512, normal:256,64 and lognormal:256,0.7 (median, sigma)
  --trace FILE                    lengths, times and shared prefixes of Mooncake's JSON lines, Azure's or ServeGen's CSV
  --prompts FILE                  a prompt a line, or JSON lines with "prompt", "turns" or "messages"
When
  --rate 4                        on average 4 a second at random (Poisson), whether or not answers have come
  --concurrency 8                 8 users, each of whom waits for the answer
  --trace FILE --time-scale 2     the trace's own times, twice as fast
Keys come from the environment: OPENAI_API_KEY; for Bedrock AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION for signatures (SigV4).

Exit code 0: fine. 1: the endpoint cannot be measured, the client was too slow, too many requests failed, or the run was
ended early; what was measured is kept. 2: the command line or a file cannot be used.

examples:
  twinfer bench run http://127.0.0.1:8000 --rate 4 --duration 60 --ignore-eos --json run.json --html run.html
  twinfer bench run http://127.0.0.1:8000 --concurrency 8 --requests 200 --input 1024 --shared-prefix 512
  twinfer bench run http://127.0.0.1:8000 --trace conversation_trace.jsonl --limit 500 --time-scale 2
  twinfer bench run http://127.0.0.1:8000 --rate 1 --duration 30 --find-rate --slo-ttft 1 --slo-tpot 0.05
  twinfer bench run https://bedrock-runtime.us-east-1.amazonaws.com --api converse --model us.amazon.nova-lite-v1:0
"""

COMPARE = """\
Says what changed from one run to another beyond noise, request by request, with an interval for each change. Runs that
were not the same work are refused: the same questions, at the same moments, with the same options. Exit code 0: they
could be compared, whatever came out. 2: they could not.

examples:
  twinfer bench compare before.json after.json
  twinfer bench compare before.json after.json --margin 0.05 --json changes.json
"""


def add_bench(bench: argparse.ArgumentParser) -> None:
    """Give the command its two actions."""
    actions = bench.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    run = actions.add_parser("run", help="measure an endpoint", description=RUN, formatter_class=raw)
    run.add_argument("url", metavar="URL", help="of the endpoint, such as http://127.0.0.1:8000")
    _target(run)
    _work(run)
    _load(run)
    _judging(run)
    compare = actions.add_parser("compare", help="compare two results", description=COMPARE, formatter_class=raw)
    compare.add_argument("first", metavar="A.json", help="written by 'twinfer bench run --json'")
    compare.add_argument("second", metavar="B.json", help="the other one")
    compare.add_argument("--margin", type=float, default=0.03, help="changes within it do not count (default: 0.03)")
    compare.add_argument("--json", metavar="FILE", help="write the changes there")


def _target(run: argparse.ArgumentParser) -> None:
    add = run.add_argument_group("endpoint").add_argument
    add("--api", choices=("chat", "completions", "converse"), default="chat", help="what it speaks (default: chat)")
    add("--model", help="whom to ask (default: the first one that it lists)")
    add("--key-env", metavar="NAME", help="environment variable that holds the key (default: as above)")
    add("--ignore-eos", action="store_true", help="ask for answers of full length; vLLM, SGLang and Twinfer know it")
    add("--extra", metavar="JSON", help="further fields of each request; null leaves one out")
    add("--timeout", type=float, default=120.0, metavar="S", help="the longest an answer may take (default: 120)")


def _work(run: argparse.ArgumentParser) -> None:
    add = run.add_argument_group("what is asked").add_argument
    add("--input", default="256", metavar="TOKENS", help="length of prompts (default: 256)")
    add("--output", default="64", metavar="TOKENS", help="longest answers (default: 64)")
    add("--shared-prefix", type=int, default=0, metavar="TOKENS", help="all prompts begin with the same so many")
    add("--turns", type=int, default=1, metavar="N", help="questions of each session, with all before (default: 1)")
    add("--pause", type=float, default=0.0, metavar="S", help="from an answer to the next turn (default: 0)")
    files = run.add_mutually_exclusive_group()
    files.add_argument("--trace", metavar="FILE", help="lengths, times and shared prefixes from there")
    files.add_argument("--prompts", metavar="FILE", help="prompts from there, again and again")
    add("--limit", type=int, metavar="N", help="only the first N requests of the trace")
    add("--words-per-token", type=float, metavar="X", help="of the tokenizer (default: as the server counts)")
    add("--seed", type=int, default=0, help="of whatever is drawn (default: 0)")
    add("--nonce", type=int, help="repeat the very texts of a run (default: a new one, so that no cache knows them)")


def _load(run: argparse.ArgumentParser) -> None:
    add = run.add_argument_group("when it is asked").add_argument
    add("--rate", type=float, metavar="R", help="sessions a second at random (default: 1, or the trace's times)")
    add("--concurrency", type=int, metavar="N", help="users who wait for their answers, instead of a rate")
    add("--time-scale", type=float, default=1.0, metavar="X", help="the trace's times X times as fast (default: 1)")
    add("--requests", type=int, metavar="N", help="end after N sessions (default: 200, without --duration)")
    add("--duration", type=float, metavar="S", help="begin no session after S seconds")
    add("--warmup", type=float, default=0.0, metavar="S", help="do not measure what is due before (default: 0)")


def _judging(run: argparse.ArgumentParser) -> None:
    add = run.add_argument_group("what is made of it").add_argument
    add("--slo-ttft", type=float, metavar="S", help="good requests have their first token by then")
    add("--slo-tpot", type=float, metavar="S", help="and take no longer per token")
    add("--slo-e2e", type=float, metavar="S", help="and are over by then")
    add("--find-rate", action="store_true", help="search the highest rate at which enough are good, from --rate on")
    add("--attainment", type=float, default=0.9, metavar="SHARE", help="that is enough (default: 0.9)")
    add("--prices", metavar="FILE", help="TOML with per_hour, per_million_input, per_million_output, power_w")
    add("--max-lag", type=float, default=10.0, metavar="MS", help="the client's own delay at p99 (default: 10)")
    add("--max-errors", type=float, default=0.01, metavar="SHARE", help="of the requests (default: 0.01)")
    add("--name", help="what reports call it (default: the model)")
    add("--json", metavar="FILE", help="write everything there, for compare and to repeat it")
    add("--html", metavar="FILE", help="write a page with plots there")
