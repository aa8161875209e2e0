"""What a client asked, after parsing: token ids and limits. The text stays in the gateway.

A sequence is a pure function of (GenerationRequest, emitted token ids): both workers of a handoff receive the same
frozen request, and recovery, preemption and handoff all rebuild sampler state by replaying ids.
"""

import msgspec

from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.service import Latency, Tier


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is drawn from the logits.

    Args:
        temperature: 0 means greedy (the lowest id wins among equal logits).
        top_p: nucleus mass in (0, 1]; 1 switches it off.
        top_k: candidates kept; 0 switches it off.
        min_p: probability relative to the best below which a token is dropped; 0 switches it off.
        seed: key of the counter-based random numbers, with the choice and the token index.
        repetition_penalty: divides positive and multiplies negative logits of tokens in prompt or output (CTRL, 2019).
        presence_penalty: subtracted once from tokens in the output.
        frequency_penalty: subtracted per occurrence in the output.
        logit_bias: added to the logits of these token ids.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}

    @property
    def needs_history(self) -> bool:
        """Whether drawing depends on the tokens already seen."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


class Stopping(msgspec.Struct, frozen=True, omit_defaults=True):
    """When generation ends. Stop strings are the gateway's: it cancels the rest.

    Args:
        max_tokens: output tokens at most, at least 1.
        min_tokens: stop token ids are not sampled before that many.
        stop_token_ids: ids that end the answer; the model's end-of-sequence ids are among them unless ignored.
    """

    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()


class Grammar(msgspec.Struct, frozen=True):
    """What an answer must be.

    Args:
        source: the grammar, as llguidance reads it. It refers to tokens by their ids, or by their bytes.
        end_ids: the model's own ends: they may be drawn where the answer may end.
    """

    source: str
    end_ids: tuple[int, ...]


class Pin(msgspec.Struct, frozen=True):
    """The prompt's beginning is to be kept.

    Args:
        num_tokens: how much of it.
        ttl_s: from when it is computed, or found.
    """

    num_tokens: int
    ttl_s: float


class GenerationRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer to generate.

    Args:
        request_id: unique over all gateways.
        model: canonical model id.
        tenant: whose request it is; salts every block hash.
        prompt: token ids, at least one.
        stopping: when to end.
        sampling: how to draw.
        choice: index among the n answers to one client request; part of the random numbers' key.
        top_logprobs: alternatives to report for every token; ``None`` reports no log probabilities.
        cache_salt: only requests with the same one share KV; the client's choice, within its tenant.
        deadline_s: seconds the request may take in all, from its arrival at whoever holds it.
        grammar: what the answer must be; ``None`` leaves it free.
        tier: who comes first where there is a queue.
        latency: which pools it may use; decided by its gateway.
        pins: beginnings of the prompt that whoever computes it pins in its prefix cache, the shortest first.
    """

    request_id: RequestId
    model: ModelId
    tenant: TenantId
    prompt: tuple[int, ...]
    stopping: Stopping
    sampling: Sampling = Sampling()
    choice: int = 0
    top_logprobs: int | None = None
    cache_salt: str = ""
    deadline_s: float = 600.0
    grammar: Grammar | None = None
    tier: Tier = Tier.DEFAULT
    latency: Latency = Latency.STANDARD
    pins: tuple[Pin, ...] = ()
