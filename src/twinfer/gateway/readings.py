"""How the answers to one prompt are read: as plain text wherever that is all there can be."""

import secrets
from dataclasses import dataclass

from twinfer.gateway.models import Layout, ServedModel
from twinfer.gateway.text.conversation import Prompt, RawPrompt
from twinfer.gateway.text.reading import PlainReading, Reading
from twinfer.gateway.text.stop import StopSet
from twinfer.gateway.text.structured import CallRules, StructuredReading


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """What the readings of one prompt's answers share.

    Attributes:
        call_prefix: begins the ids of calls.
        whole_calls: calls are shown when they are whole.
    """

    model: ServedModel
    prompt: Prompt
    layout: Layout
    stops: StopSet
    call_prefix: str
    whole_calls: bool

    def open(self) -> Reading:
        """A fresh one for one answer."""
        model, prompt, layout = self.model, self.prompt, self.layout
        detokenizer = model.tokenizer.detokenizer()
        stage = None if isinstance(prompt, RawPrompt) else model.manner.stage(prompt, layout.thinking)
        if stage is None or isinstance(prompt, RawPrompt):
            return PlainReading(detokenizer, self.stops)
        only_one = bool(prompt.tool) or not prompt.parallel
        rules = CallRules(self._draw_id, layout.opening, only_one, self.whole_calls)
        marks = {number: mark for mark, number in model.special_marks().items()}
        return StructuredReading(detokenizer, self.stops, marks, stage, rules)

    def _draw_id(self) -> str:
        """22 letters and digits, as Bedrock's ids have."""
        return self.call_prefix + secrets.token_hex(11)
