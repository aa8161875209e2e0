"""What the client makes of an event stream."""

from twinfer.chaos.client import absorb
from twinfer.chaos.judge import Ending, Heard, Refusal
from twinfer.chaos.oracle import Drawn

TOP = '[{"token": "a", "bytes": [97], "logprob": -0.1}, {"token": "b", "bytes": [98], "logprob": -0.6}]'
TOKEN = f'{{"token": "a", "bytes": [97], "logprob": -0.1, "top_logprobs": {TOP}}}'
FIRST = f'{{"choices": [{{"delta": {{"content": "a"}}, "logprobs": {{"content": [{TOKEN}]}}, "finish_reason": null}}]}}'
LAST = '{"choices": [{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length"}]}'
USAGE = '{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "twinfer": {"transfer_bytes": 64}}'


def heard(*payloads: str) -> Heard:
    """After these events."""
    answer = Heard()
    for payload in payloads:
        absorb(f"data: {payload}", answer)
        absorb("", answer)
    return answer


def test_a_whole_stream() -> None:
    """Tokens with their margins, text, finish reason, usage, and the end's mark."""
    drawn = [Drawn(b"a", ((b"a", -0.1), (b"b", -0.6)))]
    assert heard(FIRST, LAST, USAGE, "[DONE]") == Heard(drawn, "a", "length", (3, 1), 64, Ending.WHOLE)


def test_without_the_mark_it_is_cut_short() -> None:
    """However complete it looks."""
    assert heard(FIRST, LAST, USAGE).ending is Ending.CUT_SHORT


def test_an_error_event() -> None:
    """Its code and message are kept, and what came before it."""
    error = '{"error": {"message": "worker decode-0 was lost", "type": "server_error", "code": "worker_lost"}}'
    answer = heard(FIRST, error)
    assert (answer.ending, answer.text) == (Ending.REFUSED, "a")
    assert answer.refusal == Refusal(200, "worker_lost", "worker decode-0 was lost")
