"""How a model writes what is not plain text: which calls and thoughts to look for in its answers."""

from dataclasses import dataclass
from typing import Literal

from twinfer.core.config import ReasoningFormat
from twinfer.core.config import ToolFormat as ToolFormatName
from twinfer.core.errors import InvalidRequest
from twinfer.gateway.text.content import TextDelta
from twinfer.gateway.text.conversation import Calling, Conversation
from twinfer.gateway.text.formats.base import Event, Stage, ToolFormat
from twinfer.gateway.text.formats.harmony import Harmony
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.formats.llama3 import Llama3
from twinfer.gateway.text.formats.mistral import Mistral
from twinfer.gateway.text.think import CLOSE, OPEN, ThinkStage


@dataclass(frozen=True, slots=True)
class Manner:
    """A model's.

    Attributes:
        tools: how it writes calls; ``None`` for a model that cannot.
        reasoning: how it writes thoughts.
    """

    tools: ToolFormat | None = None
    reasoning: Literal["think", "harmony", "none"] = "none"

    @property
    def marks(self) -> tuple[str, ...]:
        """Tokens that must be seen, whether or not the tokenizer leaves them out of text."""
        tools = self.tools or (Harmony() if self.reasoning == "harmony" else None)
        return (*(tools.marks if tools else ()), *((OPEN, CLOSE) if self.reasoning == "think" else ()))

    def template_id(self, call_id: str) -> str:
        """A call's id as its template takes it."""
        return call_id if self.tools is None else self.tools.template_id(call_id)

    def opens(self, rendered: str) -> bool:
        """Whether a rendered prompt ends inside a thought."""
        return self.reasoning == "think" and rendered.rstrip().endswith(OPEN)

    def opening(self, conversation: Conversation) -> str:
        """What the answer is begun with in the prompt, so that it must be a call; empty where it need not.

        Such an answer has no thoughts.

        Raises:
            InvalidRequest: tools are offered, and the model cannot call any.
        """
        if not conversation.tools or conversation.calling is Calling.NONE:
            return ""
        if self.tools is None:
            raise InvalidRequest("This model doesn't support tool use; remove the tools and try again.", where="tools")
        if conversation.calling is Calling.AUTO:
            return ""
        return self.tools.opening(conversation.tool)

    def stage(self, conversation: Conversation, thinking: bool) -> Stage | None:
        """For one answer; ``None`` if all of it is text. ``thinking`` says whether it begins inside a thought."""
        if self.reasoning == "harmony":
            return Harmony().stage(frozenset())
        calls = conversation.tools and conversation.calling is not Calling.NONE
        tools = frozenset(tool.name for tool in conversation.tools)
        inner = self.tools.stage(tools) if self.tools is not None and calls else None
        if self.reasoning == "think":
            return ThinkStage(inner or TextStage(), thinking)
        return inner


class TextStage:
    """Everything is text."""

    thinking = False

    def feed(self, text: str) -> list[Event]:
        """It."""
        return [TextDelta(text)]

    def finish(self) -> list[Event]:
        """Nothing is ever held back."""
        return []


def detect(tools: ToolFormatName, reasoning: ReasoningFormat, template: str, names_think: bool) -> Manner:
    """The manner that a configuration names, or else that a chat template gives away.

    Args:
        template: its source; empty for a base model, which nobody can show tools to.
        names_think: whether the tokenizer has a token for the mark of thoughts.
    """
    if tools == "auto":
        tools = _tools_of(template)
    if reasoning == "auto":
        thinks = OPEN in template or CLOSE in template or names_think
        reasoning = "harmony" if tools == "harmony" else "think" if thinks else "none"
    formats: dict[str, ToolFormat] = {
        "hermes": Hermes(),
        "llama3": Llama3(),
        "mistral": Mistral(newer="[ARGS]" in template),
        "harmony": Harmony(),
    }
    return Manner(formats.get(tools) if template else None, reasoning)


def _tools_of(template: str) -> ToolFormatName:
    """By the marks that it shows to the model. Qwen3-Coder's and GLM's calls have Hermes' marks but are no JSON."""
    if "<|channel|>" in template and "<|message|>" in template:
        return "harmony"
    if "[TOOL_CALLS]" in template:
        return "mistral"
    if "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template:
        return "hermes"
    if "<|python_tag|>" in template:
        return "llama3"
    return "none"
