import pytest

from twinfer.core.errors import ConfigError
from twinfer.identity.policy import Policy, Rule

INVOKE, STREAM = "bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"


@pytest.mark.parametrize(
    ("allow", "deny", "action", "model", "allowed"),
    [
        ((), (), INVOKE, "meta.x", True),
        ((), (), "bedrock-mantle:CreateInference", "meta.x", True),
        ((), (), "twinfer:GetMetrics", None, False),
        ([INVOKE], (), STREAM, "meta.x", False),
        ([f"{INVOKE}*"], (), STREAM, "meta.x", True),
        (["bedrock:*@meta.*"], (), INVOKE, "meta.x", True),
        (["bedrock:*@meta.*"], (), INVOKE, "qwen.x", False),
        (["bedrock:*@meta.*"], (), INVOKE, None, True),
        (["*"], [STREAM], STREAM, "meta.x", False),
        (["*"], [STREAM], STREAM, None, False),
        (["*"], ["*@meta.*"], INVOKE, "meta.x", False),
        (["*"], ["*@meta.*"], INVOKE, "qwen.x", True),
        (["*"], ["*@meta.*"], INVOKE, None, True),
        (["*@a.?-v1:0"], (), INVOKE, "a.b-v1:0", True),
        (["*@a.?-v1:0"], (), INVOKE, "a.bc-v1:0", False),
        (["*@a.b"], (), INVOKE, "a.b\n", False),
        (["*@a.b"], (), INVOKE, "axb", False),
    ],
)
def test_what_is_allowed(allow: list[str], deny: list[str], action: str, model: str | None, allowed: bool) -> None:
    """What some permission covers and no denial; without a model, what could be allowed for some."""
    assert Policy.parse(allow, deny).allows(action, model) is allowed


@pytest.mark.parametrize("text", ["", "@", "bedrock:*@", "a b", "a@b c", "bedrock:[a-z]"])
def test_what_is_no_rule(text: str) -> None:
    """One sentence with an example."""
    with pytest.raises(ConfigError, match="write ACTION or ACTION@MODEL"):
        Rule.parse(text)


@pytest.mark.parametrize("text", ["bedrock:*", "bedrock:Invoke*@meta.*", "*@arn:x"])
def test_rules_there_and_back(text: str) -> None:
    """As they are stored and shown."""
    assert str(Rule.parse(text)) == text
