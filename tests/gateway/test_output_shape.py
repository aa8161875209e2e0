"""The checker itself: what botocore would stumble over, or silently drop, does not pass."""

from typing import Any

import pytest

from tests.gateway.output_shape import MODELS, check_error, check_event, check_response, check_shape

RUNTIME = MODELS["bedrock-runtime"]
CONVERSE = RUNTIME.operation_model("Converse")
STREAM = RUNTIME.operation_model("ConverseStream")
GOOD: dict[str, Any] = {
    "output": {"message": {"role": "assistant", "content": [{"text": "a"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3},
    "metrics": {"latencyMs": 4},
    "additionalModelResponseFields": {"anything": [1]},
    "twinfer": {},
}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, None),
        ({"usage": {"inputTokens": 1, "outputTokens": 2}}, "lacks {'totalTokens'}"),
        ({"usage": {"inputTokens": -1, "outputTokens": 2, "totalTokens": 1}}, "inputTokens has size -1"),
        ({"usage": {"inputTokens": "1", "outputTokens": 2, "totalTokens": 1}}, "inputTokens is '1'"),
        ({"metrics": {"latencyMs": 4.5}}, "latencyMs is 4.5"),
        ({"stopReason": "tired"}, "stopReason is 'tired'"),
        ({"output": {"message": {"role": "assistant", "content": [{}]}}}, "union of"),
        ({"output": {"message": {"role": "assistant", "content": [{"text": "a", "toolUse": {}}]}}}, "union of"),
        ({"output": {"message": {"role": "assistant", "content": [{"thought": "a"}]}}}, "has {'thought'}"),
        ({"extra": 1}, "has {'extra'}"),
        (
            {
                "output": {
                    "message": {
                        "role": "assistant",
                        "content": [{"toolUse": {"toolUseId": "a b", "name": "n", "input": {}}}],
                    }
                }
            },
            "toolUseId is 'a b'",
        ),
    ],
)
def test_what_breaks_the_shape_is_found(fields: dict[str, Any], complaint: str | None) -> None:
    """Missing, empty, doubled, unknown, of another type or out of bounds."""
    if complaint is None:
        check_shape(CONVERSE.output_shape, GOOD | fields)
        return
    with pytest.raises(AssertionError, match=complaint):
        check_shape(CONVERSE.output_shape, GOOD | fields)


def test_events_and_errors_are_checked_too() -> None:
    """An event or exception that the operation does not know is none; statuses are the model's."""
    check_event(STREAM, "messageStart", {"p": "ab", "role": "assistant"})
    with pytest.raises(AssertionError, match="knows no event"):
        check_event(STREAM, "modelTimeoutException", {"message": "a"})
    with pytest.raises(AssertionError, match="union of"):
        check_event(STREAM, "contentBlockStart", {"contentBlockIndex": 0, "start": {}})
    headers = {"x-amzn-errortype": "ThrottlingException", "x-amzn-requestid": "1"}
    check_error(CONVERSE, 429, headers, {"message": "a", "__type": "ThrottlingException"})
    with pytest.raises(AssertionError):
        check_error(CONVERSE, 400, headers, {"message": "a", "__type": "ThrottlingException"})
    with pytest.raises(AssertionError, match="knows no"):
        check_error(CONVERSE, 400, {"x-amzn-errortype": "ServiceQuotaExceededException"}, {"message": "a"})
    with pytest.raises(AssertionError, match="lacks"):
        check_response("POST", "/model/a%2Fb/converse", 200, headers, b"{}")
    check_response("POST", "/v1/chat/completions", 200, {}, b"{}")
