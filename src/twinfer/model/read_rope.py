"""The rotary embedding as configurations spell it: ``rope_parameters`` (transformers 5), or ``rope_scaling`` with
``rope_theta`` beside it (before)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from twinfer.core.errors import CheckpointError
from twinfer.model.families import Traits
from twinfer.model.fields import Fields
from twinfer.model.spec import RopeSpec

_SUPPORTED = "'default', 'linear', 'llama3', 'yarn', 'dynamic' and 'longrope'"


class Ropes(NamedTuple):
    """Of a model: see ``ModelSpec``."""

    rope: RopeSpec
    local: RopeSpec | None
    short: RopeSpec | None


@dataclass(frozen=True, slots=True)
class RopePlace:
    """What the configuration says beside the rope's parameters.

    Attributes:
        config: the whole configuration.
        traits: of its family.
        head_dim: elements of a head.
        max_positions: the model's context.
    """

    config: Fields
    traits: Traits
    head_dim: int
    max_positions: int

    def original(self, rope: Fields) -> int:
        """Context before stretching; a field of the configuration itself comes first, as in transformers."""
        name = "original_max_position_embeddings"
        return self.config.integer(name, rope.integer(name, self.max_positions))


def read_ropes(place: RopePlace) -> Ropes:
    """Read all ropes of a configuration.

    Raises:
        CheckpointError: a parameter is missing or of the wrong kind, or its type is not supported.
    """
    config, traits = place.config, place.traits
    given = config.table("rope_scaling") or config.table("rope_parameters")
    rope, local = given or Fields(traits.default_rope or {}, given.where), Fields({}, given.where)
    if traits.local_theta and given.tables():
        rope, local = given.table("full_attention"), given.table("sliding_attention")
    elif given.tables():
        raise CheckpointError(f"{given.where}.{given.tables()[0]} is not supported, only one rope for all layers")
    theta = rope.number("rope_theta", config.number("rope_theta", traits.theta))
    main, short = _read(place, rope, theta)
    if not traits.local_theta:
        return Ropes(main, None, short)
    local_theta = local.number("rope_theta", config.number("rope_local_base_freq", traits.local_theta))
    return Ropes(main, _read(place, local, local_theta)[0], short)


def _read(place: RopePlace, rope: Fields, theta: float) -> tuple[RopeSpec, RopeSpec | None]:
    """One rope, and what takes its place in short contexts."""
    fraction = rope.number("partial_rotary_factor", place.config.number("partial_rotary_factor", 1.0))
    partial = place.traits.architecture == "Phi3ForCausalLM"
    if fraction != 1.0 and not (partial and fraction < 1.0):
        raise CheckpointError(
            f"config.json: partial_rotary_factor is not supported, only {'up to 1' if partial else '1'}"
        )
    turned = RopeSpec(theta, fraction=fraction).num_turned(place.head_dim)
    if turned % 2 or not turned:
        raise CheckpointError(
            f"config.json: partial_rotary_factor {fraction:g} turns {turned} of {place.head_dim} elements of a head, "
            f"but the rotary embedding needs two halves"
        )
    scaling = rope.get("rope_type") or rope.get("type") or "default"
    if partial and scaling in ("su", "yarn"):  # the first spellings in Phi-3's configurations
        scaling = "longrope"
    if scaling == "longrope":
        return _longrope(place, rope, RopeSpec(theta, "longrope", fraction=fraction))
    if scaling in ("default", "dynamic"):
        # Dynamic NTK changes nothing up to max_position_embeddings, and no sequence is served beyond.
        return RopeSpec(theta, fraction=fraction), None
    if scaling == "linear":
        return RopeSpec(theta, "linear", factor=rope.number("factor")), None
    if scaling == "llama3":
        return _llama3(place, rope, theta), None
    if scaling == "yarn":
        return _yarn(place, rope, theta), None
    where = rope.where.replace("config.json: ", "")
    raise CheckpointError(f"config.json: {where}.rope_type {scaling!r} is not supported, only {_SUPPORTED}")


def _llama3(place: RopePlace, rope: Fields, theta: float) -> RopeSpec:
    return RopeSpec(
        theta,
        "llama3",
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_max_positions=place.original(rope),
    )


def _yarn(place: RopePlace, rope: Fields, theta: float) -> RopeSpec:
    original = place.original(rope)
    factor = rope.number("factor", place.max_positions / original)

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1.0 else 1.0

    attention_factor = magnitude(1.0)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        attention_factor = magnitude(rope.number("mscale")) / magnitude(rope.number("mscale_all_dim"))
    return RopeSpec(
        theta,
        "yarn",
        factor=factor,
        original_max_positions=original,
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        truncate=rope.flag("truncate", True),
        attention_factor=rope.number("attention_factor", attention_factor),
    )


def _longrope(place: RopePlace, rope: Fields, plain: RopeSpec) -> tuple[RopeSpec, RopeSpec]:
    original = place.original(rope)
    factor = rope.number("factor", place.max_positions / original)
    stretch = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1.0 else 1.0
    num_planes = plain.num_turned(place.head_dim) // 2

    def with_divisors(name: str) -> RopeSpec:
        return RopeSpec(
            plain.theta,
            "longrope",
            factor=factor,
            original_max_positions=original,
            attention_factor=rope.number("attention_factor", stretch),
            divisors=rope.numbers(name, num_planes),
            fraction=plain.fraction,
        )

    return with_divisors("long_factor"), with_divisors("short_factor")
