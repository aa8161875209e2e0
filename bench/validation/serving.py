"""From the time of steps to what a client measures: first token and time per token with so many requests at a time.

Every request has a prompt and an answer of the same lengths, and another one follows as soon as it is done. While one
is answered, each of the others has its prompt computed once. Some of these lie before the request's own first token,
because requests that came together are computed one after the other; the rest lengthen steps between its tokens:

    first token = request_s + ahead * prompt + mixed step + half a step
    per token   = step + (running - 1 - ahead) * prompt / answer

``prompt`` is what a prompt adds to a step, ``ahead`` how many of the others come first. SGLang computes prompts before
anything else, so that requests of equal lengths stay together: half of the others are ahead. Requests that wait hold
neither KV nor a place in a step, so that steps are shorter by their share.
"""

import numpy as np

from bench.validation.parameters import Parameters
from bench.validation.runs import Column, Runs, step_seconds

MOST_AHEAD = 0.9
"""Of the other requests: not all of them can be ahead of each."""


def latencies(parameters: Parameters, runs: Runs) -> tuple[Column, Column]:
    """Mean seconds to the first token, and per further token."""
    before = np.where(runs.dated > 0, parameters.request_s, parameters.nvidia_request_s)
    others = runs.running - 1.0
    together = np.where(runs.waves > 0, 1.0, parameters.ahead)
    ahead = np.minimum(together / 2.0 * others**parameters.ahead_exponent, MOST_AHEAD * others)
    decoding = np.ones_like(others)
    for _ in range(2):
        step = step_seconds(parameters, runs, runs.decode, decoding)
        mixed = step_seconds(parameters, runs, runs.mixed, decoding)
        prompt = np.maximum(mixed - step, 0.0)
        token = step + (others - ahead) * prompt / runs.answer
        first = before + ahead * prompt + mixed + step / 2.0
        decoding = runs.answer * token / (first + runs.answer * token)
    return first, token
