"""What it costs to know who calls and to keep account of it, part by part, and how long refusals take.

    python -m bench.identity
    python -m bench.identity --rounds 40

Medians over rounds that take all cases in turn, in microseconds of one core's CPU time, whoever else wants it. A
Converse request as boto3 signs it, of some hundred bytes; a gateway that knows a thousand keys. Batches are written by
another thread than the event loop's. A refusal must not tell by its time whether a key exists: the last table shows the
difference of refusals to that of the known key with a wrong signature, next to how far halves of the same case are
apart.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench.accounting import at_once, beside, per_item
from bench.gateway_client import HOST
from bench.keys import BEARER, KEY_ID, keyring, signed
from twinfer.core.errors import Unauthenticated
from twinfer.gateway.auth import permit
from twinfer.identity.sigv4 import Head, matches, payload_hash, read_signature
from twinfer.identity.verify import Terms, Verifier, claim_of

PATH = "/model/twinfer.bench-v1%3A0/converse"
BODY = b'{"messages":[{"role":"user","content":[{"text":"Tell me about the sea."}]}],"inferenceConfig":{"maxTokens":8}}'
CALLS = 300
"""Of one case in one round."""
TERMS = Terms()


def head_of(headers: Mapping[str, str]) -> Head:
    """As the gateway reads it."""
    return Head.of("POST", PATH, b"", _raw(headers))


def _raw(headers: Mapping[str, str]) -> Sequence[tuple[bytes, bytes]]:
    common = {"host": HOST, "content-type": "application/json", "content-length": str(len(BODY)), "user-agent": "Boto3"}
    return [(name.lower().encode(), value.encode()) for name, value in (common | dict(headers)).items()]


def measure(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Microseconds of CPU time that a call takes in each round; every round takes the cases in another order."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            call, began = cases[name], time.thread_time()
            for _ in range(CALLS):
                call()
            found[name].append((time.thread_time() - began) / CALLS * 1e6)
    return {name: times[1:] for name, times in found.items()}


def parts() -> dict[str, Callable[[], object]]:
    """What a signed request goes through, and a bearer key as a whole."""
    headers, verifier, now = signed(PATH, BODY), Verifier(keyring(), TERMS), time.time()
    raw, head = _raw(headers), head_of(headers)
    claim = read_signature(head)
    key = verifier.keys.signer(claim.scope)[1]
    body_hash = payload_hash(head, BODY, allow_unsigned=False)
    principal = verifier.principal(claim, head, BODY, now)
    token = head_of({"authorization": f"Bearer {BEARER}"})
    long_body = BODY + b" " * 1_000_000
    return {
        "headers from the wire": lambda: Head.of("POST", PATH, b"", raw),
        "claim: Authorization apart, skew": lambda: claim_of(head, TERMS, now),
        "body's digest": lambda: payload_hash(head, BODY, allow_unsigned=False),
        "signing key": lambda: verifier.keys.signer(claim.scope),
        "canonical text and signature": lambda: matches(claim, head, body_hash, key),
        "policy": lambda: permit(principal, "bedrock:InvokeModel", "twinfer.bench-v1:0"),
        "signed request, all of it": lambda: verifier.principal(claim_of(head, TERMS, now), head, BODY, now),
        "bearer key, all of it": lambda: verifier.principal(claim_of(token, TERMS, now), token, b"", now),
        "digest of a body of 1 MB": lambda: payload_hash(head, long_body, allow_unsigned=False),
    }


def refusals() -> dict[str, Callable[[], object]]:
    """Requests that are refused, and one that is not."""
    headers, verifier, now = signed(PATH, BODY), Verifier(keyring(), TERMS), time.time()
    good = headers["Authorization"]
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    early = good[:-64] + ("0" if good[-64] != "0" else "1") + good[-63:]

    def case(authorization: str) -> Callable[[], object]:
        head = head_of({**headers, "Authorization": authorization})

        def run() -> object:
            try:
                return verifier.principal(claim_of(head, TERMS, now), head, BODY, now)
            except Unauthenticated as error:
                return error

        return run

    return {
        "accepted": case(good),
        "known key, last digit wrong": case(wrong),
        "known key, first digit wrong": case(early),
        "unknown key": case(wrong.replace(KEY_ID, "AKIANOBODYNOBODYNOB1")),
        "accepted bearer key": case(f"Bearer {BEARER}"),
        "bearer key, last letter wrong": case(f"Bearer {BEARER[:-1]}c"),
        "bearer key, all of it wrong": case("Bearer ABSK" + "x" * 100),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.identity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help=f"of {CALLS} calls of each case (default: 20)")
    options = parser.parse_args()
    console = Console()
    costs = Table("part", "µs", title="What knowing the caller costs")
    for name, times in measure(parts(), options.rounds).items():
        costs.add_row(name, f"{statistics.median(times):.2f}")
    console.print(costs)
    accounts = Table("part", "µs", title="What keeping account of a request costs")
    with beside() as batches:
        for name, times in (measure(at_once(BODY), options.rounds) | per_item(batches, options.rounds)).items():
            accounts.add_row(name, f"{statistics.median(times):.2f}")
    console.print(accounts)
    times_of = measure(refusals(), options.rounds)
    table = Table("request", "µs", "to the known key's", "halves apart", title="How long refusals take")
    for name, times in times_of.items():
        base = times_of["bearer key, last letter wrong" if "bearer" in name else "known key, last digit wrong"]
        middle = statistics.median(times)
        apart = statistics.median(times[::2]) - statistics.median(times[1::2])
        table.add_row(name, f"{middle:.2f}", f"{middle - statistics.median(base):+.2f}", f"{abs(apart):.2f}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
