"""What requests are like: means of public traces, and an analyst's agent."""

from dataclasses import dataclass

from bench.closed_form import Load


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one kind.

    Attributes:
        source: where its lengths come from.
    """

    name: str
    load: Load
    source: str


WORKLOADS = (
    Workload("reasoning", Load(1134, 706), "ServeGen, DeepSeek-R1, means"),
    Workload("conversation", Load(1155, 211), "Azure 2023, conversation, means"),
    Workload("code completion", Load(2048, 28), "Azure 2023, code, means"),
    Workload("long conversation", Load(12_035, 343), "Mooncake, means, nothing cached"),
    Workload("long, 37 % cached", Load(12_035, 343, cached=4501), "Mooncake, its prefix hits"),
    Workload("agent", Load(96_300, 213), "an analyst's medians, nothing cached"),
    Workload("agent, 95 % cached", Load(96_300, 213, cached=91_485), "the same; cache reads dominate, it says"),
)
