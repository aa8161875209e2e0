"""The served models as the gateway knows them: names, tokenizer, template, limits and defaults."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from twinfer.core.errors import UnknownModel
from twinfer.core.ids import ModelId
from twinfer.gateway.names import WILDCARD, is_foreign_arn, plain_name, without_version
from twinfer.gateway.text.chat import ChatTemplate, Message, join_text
from twinfer.gateway.text.tokenizer import Tokenizer


class SamplingDefaults(msgspec.Struct, frozen=True):
    """What holds where a request says nothing; a checkpoint's ``generation_config.json`` may say otherwise."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


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

    def prompt(self, messages: Sequence[Message], arguments: Mapping[str, object]) -> tuple[int, ...]:
        """Token ids of a conversation, up to where the answer begins. Slow for a long one.

        Raises:
            InvalidRequest: the template refuses it.
        """
        if self.template is None:
            text = join_text(message.content for message in messages)
            return self.tokenizer.encode(text, add_special_tokens=True)
        return self.tokenizer.encode(self.template.render(messages, arguments), add_special_tokens=False)


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
