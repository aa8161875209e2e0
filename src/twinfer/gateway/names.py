"""The spellings of a model's name: ids of Bedrock's two endpoints, profiles of a geography, ARNs."""

import re

GEOGRAPHIC_PREFIXES = ("us.", "eu.", "apac.", "us-gov.", "global.")
"""Before a model's id: the id of an inference profile, which here means the same model."""
WILDCARD = "*"
"""An alias that takes every name which is nobody else's."""

_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:(?:foundation-model|inference-profile)/(.+)", re.DOTALL)
_VERSION = re.compile(r"-v?[0-9]+:[0-9]+")


def is_foreign_arn(name: str) -> bool:
    """Whether it is the ARN of something that is no model and no profile of a geography, or no ARN at all."""
    return name.startswith("arn:") and _ARN.fullmatch(name) is None


def plain_name(name: str) -> str:
    """A model's id, without the ARN and the geographic prefix around it."""
    arn = _ARN.fullmatch(name)
    name = arn[1] if arn else name
    for prefix in GEOGRAPHIC_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def without_version(name: str) -> str:
    """The spelling of the OpenAI-like endpoint: ``qwen.qwen3-32b`` for ``qwen.qwen3-32b-v1:0``."""
    version = _VERSION.search(name)
    return name[: version.start()] if version and version.end() == len(name) else name
