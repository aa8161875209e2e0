"""How a model lies on devices, and what one step has to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from twinfer.core.errors import ConfigError
from twinfer.devices.shape import Precision


@dataclass(frozen=True, slots=True)
class Placement:
    """One replica of a model.

    Attributes:
        devices: all that it lies on: stages of layers, each of ``tensor_parallel`` devices.
        tensor_parallel: devices over which every layer is cut. Wafers cut none.
        precision: of the weights.
        kv_element_bytes: 2 for 16-bit KV, 1 for FP8.

    Raises:
        ConfigError: the devices cannot be dealt out so.
    """

    devices: int = 1
    tensor_parallel: int = 1
    precision: Precision = "bf16"
    kv_element_bytes: float = 2.0

    def __post_init__(self) -> None:
        if self.devices < 1 or self.tensor_parallel < 1 or self.devices % self.tensor_parallel:
            raise ConfigError(
                f"{self.devices} devices cannot be dealt out in groups of {self.tensor_parallel}; "
                "give a multiple of the degree of tensor parallelism"
            )

    @property
    def stages(self) -> int:
        """Groups of layers, one after the other."""
        return self.devices // self.tensor_parallel


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does for one sequence: a chunk of its prompt, or one token.

    Attributes:
        new_tokens: positions that are computed, at least 1.
        context_tokens: positions before them, whose KV is there.
    """

    new_tokens: int
    context_tokens: int

    @property
    def end(self) -> int:
        """Positions whose KV is there afterwards."""
        return self.new_tokens + self.context_tokens


Plan = Sequence[Work]
"""All sequences of one step; prompts' chunks and single tokens may be mixed."""
