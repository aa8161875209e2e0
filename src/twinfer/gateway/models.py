"""The served models as the gateway knows them: names, tokenizer, template, limits and defaults."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from twinfer.core.errors import InvalidRequest, UnknownModel
from twinfer.core.ids import ModelId
from twinfer.core.request import Pin
from twinfer.gateway.grammars import Grammars
from twinfer.gateway.names import WILDCARD, is_foreign_arn, plain_name, without_version
from twinfer.gateway.text.beginnings import beginnings, shared_length
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.conversation import Conversation, Prompt, RawPrompt
from twinfer.gateway.text.manner import Manner
from twinfer.gateway.text.think import CLOSE
from twinfer.gateway.text.tokenizer import Tokenizer


class SamplingDefaults(msgspec.Struct, frozen=True):
    """What holds where a request says nothing; a checkpoint's ``generation_config.json`` may say otherwise."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class Layout:
    """A prompt as the model reads it.

    Attributes:
        thinking: it ends inside a thought.
        pins: beginnings of the prompt that end at the conversation's cache points.
        opening: what of the answer it ends with, so that the answer must be a call. The prompt's tokens include it,
            and the answer's do not: the model reads it and did not write it.
    """

    ids: tuple[int, ...]
    thinking: bool = False
    opening: str = ""
    pins: tuple[Pin, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model, without its weights.

    Attributes:
        id: canonical id.
        name: for people, at most 20 characters.
        provider: who made it, at most 20 characters.
        aliases: other names; ``*`` takes every name that is nobody else's.
        template: ``None`` for a base model.
        max_context_tokens: prompt and answer together.
        vocab_size: token ids are below it; the tokenizer may know fewer.
        eos_token_ids: ids that end an answer.
        created: Unix time at which it was loaded.
        tool_template: for conversations with tools, where there is one of its own.
        manner: how it writes calls and thoughts.
        grammars: what its answers can be held to; ``None`` where its tokens are not known by their bytes.
    """

    id: ModelId
    name: str
    provider: str
    aliases: tuple[str, ...]
    tokenizer: Tokenizer
    template: ChatTemplate | None
    max_context_tokens: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    created: int
    defaults: SamplingDefaults = field(default=SamplingDefaults())
    tool_template: ChatTemplate | None = None
    manner: Manner = field(default=Manner())
    grammars: Grammars | None = None

    def prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids, up to where the answer begins; see ``lay_out``."""
        return self.lay_out(prompt).ids

    def lay_out(self, prompt: Prompt) -> Layout:
        """Make token ids of a prompt. Slow for a long one.

        A base model has no template: it reads what is said in a conversation, line by line.

        Raises:
            InvalidRequest: the template refuses the conversation, or the model cannot call the tools it offers.
        """
        if isinstance(prompt, RawPrompt):
            return Layout(self._raw(prompt))
        template = self.tool_template if prompt.tools and self.tool_template else self.template
        if template is None:
            self.manner.opening(prompt)
            return Layout(self._raw(RawPrompt("\n".join(message.text for message in prompt.messages))))
        text = template.render(prompt, self.manner.template_id)
        thinking = self.manner.opens(text)
        opening = self.manner.opening(prompt)
        if thinking and opening:
            text, thinking = f"{text.rstrip()}\n{CLOSE}\n\n", False
        ids = self.tokenizer.encode(text + opening, add_special_tokens=False)
        return Layout(ids, thinking, opening, self._pins(prompt, text, ids))

    def _pins(self, prompt: Conversation, text: str, ids: tuple[int, ...]) -> tuple[Pin, ...]:
        """Where the cache points are in the tokens of the text."""
        template = self.tool_template if prompt.tools and self.tool_template else self.template
        pins = []
        for beginning, ttl_s in beginnings(prompt):
            with contextlib.suppress(InvalidRequest):  # a template that refuses a part of it has no such beginning
                assert template is not None
                shared = shared_length(text, template.render(beginning, self.manner.template_id))
                kept = self.tokenizer.encode(text[:shared], add_special_tokens=False)
                pins.append(Pin(shared_length(ids, kept), ttl_s))
        return tuple(pins)

    def special_marks(self) -> dict[str, int]:
        """Ids of those marks of calls and thoughts that the detokenizer would leave out."""
        found = {mark: self.tokenizer.id_of(mark) for mark in self.manner.marks}
        return {
            mark: number for mark, number in found.items() if number is not None and self.tokenizer.is_special(number)
        }

    def _raw(self, prompt: RawPrompt) -> tuple[int, ...]:
        if not isinstance(prompt.content, str):
            return prompt.content
        ids = self.tokenizer.encode(prompt.content, add_special_tokens=prompt.add_special_tokens)
        doubled = len(ids) > 1 and ids[0] == ids[1] and self.tokenizer.is_special(ids[0])
        return ids[1:] if prompt.add_special_tokens and doubled else ids


class Models(Protocol):
    """Served models, by any of their names."""

    def __iter__(self) -> Iterator[ServedModel]: ...

    def find(self, name: str) -> ServedModel:
        """The model meant by a name.

        Raises:
            RequestError: there is none for the caller.
        """
        ...


class ModelRegistry:
    """The served models, the first configured first."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = tuple(models)
        self._by_name: dict[str, ServedModel] = {}
        for model in models:
            for name in (model.id, *model.aliases):
                self._by_name.setdefault(name, model)
        self._by_stem: dict[str, ServedModel] = {}
        for name, model in self._by_name.items():
            self._by_stem.setdefault(without_version(name), model)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models)

    def find(self, name: str) -> ServedModel:
        """The model meant by an id, alias, geographic profile id, or the ARN of a foundation model or profile.

        Raises:
            UnknownModel: none of them; ``where`` holds the name.
        """
        plain = plain_name(name)
        exact, stem = self._by_name, self._by_stem
        if not is_foreign_arn(name) and WILDCARD not in (name, plain):
            for names, spelling in (
                (exact, name),
                (exact, plain),
                (stem, plain),
                (exact, without_version(plain)),
                (exact, WILDCARD),
            ):
                if spelling in names:
                    return names[spelling]
        raise UnknownModel(f"The model '{name}' is not served here; list the models to see which are.", where=name)
