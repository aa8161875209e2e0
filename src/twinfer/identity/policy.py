"""What a key may do: patterns of action and model; a denial wins over every permission."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from twinfer.core.errors import ConfigError

EVERYTHING_SERVED = ("bedrock:*", "bedrock-mantle:*")
"""What a key may do unless its creation says otherwise: everything that clients of the two APIs do."""
_RULE = re.compile(r"[\w:*?-]+(@\S+)?", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """An action and a model, both as patterns in which ``*`` stands for any text and ``?`` for one character."""

    action: str
    model: str = "*"

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read ``ACTION`` or ``ACTION@MODEL``, such as ``bedrock:InvokeModel*@meta.*``.

        Raises:
            ConfigError: it is neither.
        """
        if not _RULE.fullmatch(text):
            raise ConfigError(f"{text!r} is no rule; write ACTION or ACTION@MODEL, such as 'bedrock:Invoke*@meta.*'")
        action, _, model = text.partition("@")
        return cls(action, model or "*")

    def __str__(self) -> str:
        return self.action if self.model == "*" else f"{self.action}@{self.model}"

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return _compiled(self.action), _compiled(self.model)

    def covers(self, action: str, model: str | None) -> bool:
        """Whether it speaks of this action, and of this model where one is given."""
        actions, models = self._patterns
        return actions.fullmatch(action) is not None and (model is None or models.fullmatch(model) is not None)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed less what is denied; what neither names is denied."""

    allow: tuple[Rule, ...] = tuple(Rule(action) for action in EVERYTHING_SERVED)
    deny: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, allow: Iterable[str], deny: Iterable[str] = ()) -> "Policy":
        """Read rules; without any permission it is :data:`EVERYTHING_SERVED`.

        Raises:
            ConfigError: one of them is no rule.
        """
        return cls(
            tuple(Rule.parse(text) for text in (tuple(allow) or EVERYTHING_SERVED)),
            tuple(Rule.parse(text) for text in deny),
        )

    def allows(self, action: str, model: str | None = None) -> bool:
        """Whether this may be done to a model of this canonical id, or to some model where none is named yet."""
        if model is None:
            forbidden = any(rule.model == "*" and rule.covers(action, None) for rule in self.deny)
        else:
            forbidden = any(rule.covers(action, model) for rule in self.deny)
        return not forbidden and any(rule.covers(action, model) for rule in self.allow)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
