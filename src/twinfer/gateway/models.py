"""The served models as the gateway knows them: names, tokenizer, template, limits and defaults."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from twinfer.core.errors import UnknownModel
from twinfer.core.ids import ModelId
from twinfer.gateway.names import WILDCARD, is_foreign_arn, plain_name, without_version
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.conversation import Prompt, RawPrompt
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

    def prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids, up to where the answer begins. Slow for a long prompt.

        A base model has no template: it reads what is said in a conversation, line by line.

        Raises:
            InvalidRequest: the template refuses the conversation.
        """
        if isinstance(prompt, RawPrompt):
            return self._raw(prompt)
        if self.template is None:
            return self._raw(RawPrompt("\n".join(message.text for message in prompt.messages)))
        return self.tokenizer.encode(self.template.render(prompt), add_special_tokens=False)

    def _raw(self, prompt: RawPrompt) -> tuple[int, ...]:
        if not isinstance(prompt.content, str):
            return prompt.content
        ids = self.tokenizer.encode(prompt.content, add_special_tokens=prompt.add_special_tokens)
        doubled = len(ids) > 1 and ids[0] == ids[1] and self.tokenizer.is_special(ids[0])
        return ids[1:] if prompt.add_special_tokens and doubled else ids


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
