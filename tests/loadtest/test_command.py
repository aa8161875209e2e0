"""``twinfer bench`` from its command line: what it writes, what it says, and how it ends."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.loadtest.servers import HEAD, Answer, Exchange, paced, piece, serving, status
from twinfer.cli import main
from twinfer.loadtest.result import load

SHORT = ["--model", "m", "--rate", "100", "--requests", "12", "--input", "32", "--output", "4", "--max-lag", "10000"]


@contextlib.contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A server in a thread with a loop of its own, because the command has one, too."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with serving(answer) as served:
            urls.append(served.url)
            started.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    task = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,))
    thread.start()
    started.wait()
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the machine's."""
    for name in ("OPENAI_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)


QUICK = paced(lambda number: 0.002, lambda number: 0.001, 4)


def test_run_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A table, JSON with all that was done, a page of well-formed plots; and two such files compare."""
    first, second, page = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "a.html"
    prices = tmp_path / "prices.toml"
    prices.write_text("per_hour = 36.0\npower_w = 100.0\n")
    arguments = [*SHORT, "--requests", "30", "--slo-ttft", "60", "--prices", str(prices)]
    with server(QUICK) as url:
        assert main(["bench", "run", url, *arguments, "--json", str(first), "--html", str(page)]) == 0
        shown = capsys.readouterr().out
        assert main(["bench", "run", url, *arguments, "--json", str(second)]) == 0
    for said in ("TTFT", "TPOT", "30 requests", "as the server counts", "routes: disaggregated 30", "USD", "J per"):
        assert said in shown
    found = load(first).main
    assert [32] * 30 == [one.prompt_tokens for one in found.records]
    assert (120, 120, 1.0) == (found.summary.output_tokens, found.summary.counted_tokens, found.summary.attained.value)
    html = page.read_text()
    plots = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert 6 == len([ElementTree.fromstring(plot) for plot in plots])
    assert "http" not in html.replace(url, "")
    capsys.readouterr()
    assert main(["bench", "compare", str(first), str(second), "--json", str(tmp_path / "c")]) == 0
    assert "30 requests of both runs" in capsys.readouterr().out
    assert 30 == json.loads((tmp_path / "c").read_text())["twins"]


def test_a_search_for_the_highest_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It ends at a rate between one that held and one that did not, and the page shows all of them."""

    busy = {"now": 0}

    async def one_at_a_time(exchange: Exchange) -> None:
        """Whoever comes while another is served waits in vain."""
        busy["now"] += 1
        first_s = 0.002 if busy["now"] == 1 else 0.06
        await paced(lambda number: first_s, lambda number: 0.0, 2)(exchange)
        busy["now"] -= 1

    file, page = tmp_path / "a.json", tmp_path / "a.html"
    arguments = [
        *SHORT,
        "--rate",
        "80",
        "--requests",
        "6",
        "--find-rate",
        "--slo-ttft",
        "0.03",
        "--json",
        str(file),
        "--html",
        str(page),
    ]
    with server(one_at_a_time) as url:
        assert main(["bench", "run", url, *arguments]) == 0
    result = load(file)
    rates = [one.load.rate for one in result.trials]
    assert rates[0] == 80
    assert len(rates) >= 2
    held = [one.load.rate for one in result.trials if one.summary.attained.value >= 0.9]
    assert result.best_rate is None or result.best_rate in held
    assert "by rate" in page.read_text()
    assert "within the objectives" in capsys.readouterr().out


def test_nobody_there(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """One sentence, exit code 1; an earlier result is left as it was."""
    file = tmp_path / "a.json"
    file.write_text("earlier")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    assert main(["bench", "run", f"http://127.0.0.1:{port}", *SHORT, "--json", str(file)]) == 1
    assert re.fullmatch(r"twinfer: .*cannot be measured: unreachable: .*is it started.*\n", capsys.readouterr().err)
    assert main(["bench", "run", f"http://127.0.0.1:{port}"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert file.read_text() == "earlier"


async def _hang(exchange: Exchange) -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(401, b'{"error": {"message": "wrong key"}}'), "refused: HTTP 401.*wrong key.*check .*the key"),
        (status(200, b"<html>hello</html>\n"), "rubbish: .*<html>.*--api chooses another"),
        (_hang, "timeout: no whole answer within 0.3 s"),
    ],
)
def test_endpoints_that_cannot_be_measured(answer: Answer, said: str, capsys: pytest.CaptureFixture[str]):
    """Found out before the load, in one sentence, exit code 1."""
    with server(answer) as url:
        assert main(["bench", "run", url, *SHORT, "--timeout", "0.3" if answer is _hang else "60"]) == 1
    assert re.fullmatch(f"twinfer: .*{said}.*\n", capsys.readouterr().err)


def test_an_endpoint_that_breaks_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """After many failures in a row the run ends; what was measured is written, and the exit code is 1."""

    async def answer(exchange: Exchange) -> None:
        if exchange.number < 12:
            await QUICK(exchange)
        else:
            exchange.writer.write(HEAD)
            exchange.event(piece("x"))
            exchange.writer.close()

    file = tmp_path / "a.json"
    with server(answer) as url:
        assert main(["bench", "run", url, *SHORT, "--requests", "1000", "--json", str(file)]) == 1
    trial = load(file).main
    assert 10 == sum(one.error is None for one in trial.records)
    assert 60 <= len(trial.records) < 200
    assert trial.stopped.startswith("the last 50 requests failed: broken")
    shown = capsys.readouterr().out
    assert "INVALID" in shown
    assert "ended early" in shown


def test_an_interrupted_run_keeps_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Ctrl-C ends the load; the table and the file hold what had come by then, and the exit code is 1."""

    async def answer(exchange: Exchange) -> None:
        if exchange.number < 12:
            await QUICK(exchange)
        else:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(3600)

    file = tmp_path / "a.json"
    with server(answer) as url:
        arguments = [*SHORT, "--concurrency", "1", "--requests", "1000", "--json", str(file)]
        assert main(["bench", "run", url, *(one for one in arguments if one not in ("--rate", "100"))]) == 1
    assert (10, "it was interrupted") == (len(load(file).main.records), load(file).main.stopped)
    assert "what was measured so far is above" in capsys.readouterr().out


def test_a_late_client_is_no_measurement(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Beyond --max-lag the run is invalid, and cannot be compared."""
    file = tmp_path / "a.json"
    with server(QUICK) as url:
        assert main(["bench", "run", url, *SHORT, "--max-lag", "0.000001", "--json", str(file)]) == 1
    assert "INVALID: 1 % of the time" in capsys.readouterr().out
    assert main(["bench", "compare", str(file), str(file)]) == 2
    assert "is invalid and cannot be compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ftp://host"], "is no endpoint"),
        (["http://h", "--rate", "0"], "--rate is 0"),
        (["http://h", "--rate", "1", "--concurrency", "1"], "not both"),
        (["http://h", "--input", "many"], "--input 'many' is no length"),
        (["http://h", "--trace", "/nowhere.csv"], "cannot read /nowhere.csv"),
        (["http://h", "--prompts", "/nowhere.txt"], "cannot read /nowhere.txt"),
        (["http://h", "--find-rate"], "--find-rate needs"),
        (["http://h", "--extra", "[1]"], "--extra '[1]' is no JSON object"),
        (["http://h", "--slo-ttft", "-1"], "--slo-ttft is -1"),
        (["http://h", "--prices", "/nowhere.toml"], "cannot read the prices"),
        (["http://h", "--json", "/nowhere/a.json"], "choose another --json"),
        (["http://h", "--key-env", "NOWHERE"], "NOWHERE: this environment variable is not set"),
        (["http://h", "--warmup", "5", "--duration", "5"], "--warmup has to be shorter"),
        (["http://h", "--turns", "0"], "--turns is 0"),
    ],
)
def test_bad_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    """Exit code 2 and one sentence, before anything is asked."""
    assert main(["bench", "run", *arguments]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert 1 == len(shown.splitlines())


def test_a_trace_with_a_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """File, line and field."""
    trace = tmp_path / "t.csv"
    trace.write_text("timestamp_s,client_id,input_tokens,output_tokens\n0,1,8,4\n1,1,many,4\n")
    assert main(["bench", "run", "http://h", "--trace", str(trace)]) == 2
    assert "t.csv, line 3: input_tokens is 'many'" in capsys.readouterr().err


def test_files_that_are_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Exit code 2 and one sentence."""
    file = tmp_path / "a.json"
    file.write_text("{}")
    assert main(["bench", "compare", str(file), str(file)]) == 2
    assert "is no result of 'twinfer bench run --json'" in capsys.readouterr().err
