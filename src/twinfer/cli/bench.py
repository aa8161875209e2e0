"""``twinfer bench``: measures any OpenAI or Bedrock endpoint, and compares two measurements."""

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.console import Console

from twinfer.core.clock import MonotonicClock
from twinfer.core.errors import ConfigError, EndpointError
from twinfer.loadtest import arrivals, work
from twinfer.loadtest.api import Api, Options
from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.ask import Endpoint
from twinfer.loadtest.bedrock import ConverseStream
from twinfer.loadtest.bench import INTERRUPTED, Bench, Plan
from twinfer.loadtest.compare import compare
from twinfer.loadtest.http import Pool, read_origin
from twinfer.loadtest.keys import signer
from twinfer.loadtest.machine import this_machine
from twinfer.loadtest.openai import ChatCompletions, Completions
from twinfer.loadtest.page import page
from twinfer.loadtest.preflight import first_model
from twinfer.loadtest.prices import read_prices
from twinfer.loadtest.result import Result, Target, load, save
from twinfer.loadtest.show import Show, comparison_lines, result_lines
from twinfer.loadtest.slo import Objectives
from twinfer.loadtest.words import Writer
from twinfer.loadtest.work import WorkSpec

EXIT_INVALID = 1
APIS: dict[str, Callable[[Options], Api]] = {
    "chat": ChatCompletions,
    "completions": Completions,
    "converse": ConverseStream,
}
DEFAULT_REQUESTS = 200


def run(arguments: argparse.Namespace) -> int:
    """Measure or compare; 0: fine, 1: the run does not count or nobody was there."""
    return _compare(arguments) if arguments.action == "compare" else _run(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.margin < 1:
        raise ConfigError(f"--margin is {arguments.margin:g}; it lies between 0 and 1")
    found = compare(load(Path(arguments.first)), load(Path(arguments.second)), arguments.margin)
    console = Console(highlight=False)
    for line in comparison_lines(found):
        console.print(line, soft_wrap=True)
    if arguments.json is not None:
        _write(arguments.json, "--json", msgspec.json.format(msgspec.json.encode(found)))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    plan, offered, objectives_asked = _plan(arguments), _load(arguments), _objectives(arguments)
    if arguments.find_rate and (not objectives_asked.any or offered.mode != "open"):
        raise ConfigError("--find-rate needs --rate to begin with, and --slo-ttft, --slo-tpot or --slo-e2e to hold")
    for option, path in (("--json", arguments.json), ("--html", arguments.html)):
        if path is not None:
            _write(path, option, b"", mode="ab")  # what cannot be written should show now, not in an hour
    console = Console(highlight=False)
    try:
        result = asyncio.run(_measure(arguments, plan, offered, Show(console)))
    except EndpointError as error:
        print(f"twinfer: {error}", file=sys.stderr)
        return EXIT_INVALID
    except KeyboardInterrupt:
        print("twinfer: interrupted before anything was measured", file=sys.stderr)
        return EXIT_INVALID
    for line in result_lines(result):
        console.print(line, soft_wrap=True)
    if arguments.json is not None:
        save(result, Path(arguments.json))
    if arguments.html is not None:
        _write(arguments.html, "--html", page(result).encode())
    return EXIT_INVALID if result.main.invalid or result.main.stopped or result.trials[-1].stopped == INTERRUPTED else 0


async def _measure(arguments: argparse.Namespace, plan: Plan, offered: LoadSpec, show: Show) -> Result:
    pool = Pool(read_origin(arguments.url), MonotonicClock())
    try:
        return await _measured(arguments, plan, offered, show, pool)
    finally:
        pool.close()
        await asyncio.sleep(0)  # connections are closed in the loop's next turn


async def _measured(arguments: argparse.Namespace, plan: Plan, offered: LoadSpec, show: Show, pool: Pool) -> Result:
    clock, began, origin = MonotonicClock(), datetime.now(UTC), pool.origin
    sign, extra = signer(arguments.api, origin.authority, os.environ, arguments.key_env), _extra(arguments.extra)
    model = arguments.model
    if model is None:
        model = await first_model(origin, pool, dict(sign("", {"accept": "application/json"}, b"")))
    api = APIS[arguments.api](Options(model, arguments.ignore_eos, extra))
    writer = Writer(arguments.seed, secrets.randbits(32) if arguments.nonce is None else arguments.nonce)
    bench = Bench(Endpoint(origin, api, pool, sign, arguments.timeout), writer, plan, clock, show)
    await bench.prepare(arguments.words_per_token)
    with show:
        best = await bench.search(offered) if arguments.find_rate else None
        if not arguments.find_rate:
            await bench.once(offered)
    return Result(
        name=arguments.name or model,
        command=["twinfer", *sys.argv[1:]],
        began=began.isoformat(timespec="seconds"),
        target=Target(
            url=arguments.url,
            api=arguments.api,
            model=model,
            ignore_eos=arguments.ignore_eos,
            extra=extra,
            timeout_s=arguments.timeout,
            words_per_token=writer.words_per_token,
            overhead_tokens=writer.overhead_tokens,
        ),
        work=plan.work,
        objectives=plan.objectives,
        prices=plan.prices,
        max_lag_s=plan.max_lag_s,
        seed=plan.seed,
        machine=this_machine(),
        trials=bench.trials,
        searched=arguments.find_rate,
        best_rate=best,
    )


def _plan(arguments: argparse.Namespace) -> Plan:
    file = arguments.trace or arguments.prompts
    path = None if file is None else Path(file)
    spec = WorkSpec(
        source="trace" if arguments.trace else "prompts" if arguments.prompts else "lengths",
        file=path.name if path is not None else "",
        sha256=work.digest(path) if path is not None else "",
        input=arguments.input,
        output=arguments.output,
        shared_tokens=arguments.shared_prefix,
        turns=arguments.turns,
        pause_s=arguments.pause,
        limit=arguments.limit,
        seed=arguments.seed,
    )
    work.check(spec)
    work.sessions(spec, path)  # what cannot be read should show before anything is asked
    if not 0 < arguments.timeout < 1e6 or arguments.max_lag <= 0 or not 0 <= arguments.max_errors <= 1:
        raise ConfigError("--timeout and --max-lag have to be above 0, --max-errors lies between 0 and 1")
    if arguments.words_per_token is not None and not 0.01 <= arguments.words_per_token <= 100:
        raise ConfigError(f"--words-per-token is {arguments.words_per_token:g}; it lies between 0.01 and 100")
    prices = None if arguments.prices is None else read_prices(Path(arguments.prices))
    share, lag_s = arguments.max_errors, arguments.max_lag * 1e-3
    return Plan(spec, path, _objectives(arguments), prices, lag_s, share, arguments.seed)


def _load(arguments: argparse.Namespace) -> LoadSpec:
    if arguments.rate is not None and arguments.concurrency is not None:
        raise ConfigError("give --rate for an open load or --concurrency for a closed one, not both")
    timed = arguments.trace is not None and arguments.rate is None and arguments.concurrency is None
    endless = arguments.requests is None and arguments.duration is None and not timed
    spec = LoadSpec(
        mode="trace" if timed else "closed" if arguments.concurrency is not None else "open",
        rate=1.0 if arguments.rate is None else arguments.rate,
        time_scale=arguments.time_scale,
        concurrency=1 if arguments.concurrency is None else arguments.concurrency,
        max_sessions=DEFAULT_REQUESTS if endless else arguments.requests,
        max_s=arguments.duration,
        warmup_s=arguments.warmup,
        seed=arguments.seed,
    )
    arrivals.check(spec)
    return spec


def _objectives(arguments: argparse.Namespace) -> Objectives:
    for option in ("slo_ttft", "slo_tpot", "slo_e2e"):
        if (value := getattr(arguments, option)) is not None and value <= 0:
            raise ConfigError(f"--{option.replace('_', '-')} is {value:g}; it has to be above 0")
    if not 0 < arguments.attainment <= 1:
        raise ConfigError(f"--attainment is {arguments.attainment:g}; it lies between 0 and 1")
    return Objectives(arguments.slo_ttft, arguments.slo_tpot, arguments.slo_e2e, arguments.attainment)


def _extra(text: str | None) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"--extra {text!r} is no JSON object: {error}") from error


def _write(path: str, option: str, data: bytes, mode: Literal["ab", "wb"] = "wb") -> None:
    try:
        with Path(path).open(mode) as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"cannot write to {path!r}: {error.strerror}; choose another {option}") from error
