"""Fits the parameters to measured runs, and judges them on groups that the fit has not seen.

What is minimised is the mean of ``log(1 + |r| / WIDE)`` over the logarithms ``r`` of computed over measured times, so
that runs which no parameter explains pull little, plus a pull towards the starting values. A group counts with the root
of its size. The method is Levenberg's and Marquardt's on the reweighted squares.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from bench.validation.parameters import Parameters
from bench.validation.runs import Column, Runs
from bench.validation.serving import latencies

NARROW, WIDE = 0.05, 0.3
"""Errors below the first count as squares, above the second hardly more when they grow."""
FIRST_TOKEN_WEIGHT = 0.7
PULL = 0.05
"""Weight of the mean squared distance from the starting values, in logarithms."""
_MOST_STEPS = 60


@dataclass(frozen=True, slots=True)
class Errors:
    """Computed over measured, less one, of every run; those of first tokens with their saturated runs."""

    first_token: Column
    token: Column


def errors(parameters: Parameters, runs: Runs) -> Errors:
    """Of each run."""
    first, token = latencies(parameters, runs)
    return Errors(first / runs.first_token_s - 1.0, token / runs.token_s - 1.0)


def fitted(runs: Runs, groups: Sequence[Hashable], start: Parameters | None = None) -> Parameters:
    """The parameters that explain these runs best."""
    sizes = Counter(groups)
    weights = np.array([sizes[group] ** -0.5 for group in groups])
    problem = _Problem(runs, np.concatenate([weights, FIRST_TOKEN_WEIGHT * weights]), start or Parameters())
    at, damping = problem.start.copy(), 1e-2
    loss = problem.loss(at)
    for _ in range(_MOST_STEPS):
        curvature, slope = problem.model(at)
        for _ in range(8):
            step = -np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), slope)
            tried = at + np.clip(step, -0.5, 0.5)
            if (better := problem.loss(tried)) < loss:
                break
            damping *= 4.0
        else:
            break
        gained, at, loss, damping = loss - better, tried, better, max(damping / 4.0, 1e-6)
        if gained < 1e-6:
            break
    return Parameters(*np.exp(at).tolist())


def left_out(runs: Runs, groups: Sequence[Hashable]) -> tuple[Errors, list[Parameters]]:
    """Errors of each run by a fit on all groups but its own, and the parameters of these fits."""
    first, token = np.zeros(len(groups)), np.zeros(len(groups))
    fits = []
    for group in sorted(set(groups), key=str):
        own = np.array([other == group for other in groups])
        fits.append(fitted(runs.where(~own), [other for other in groups if other != group]))
        found = errors(fits[-1], runs.where(own))
        first[own], token[own] = found.first_token, found.token
    return Errors(first, token), fits


class _Problem:
    """The loss of logarithms of parameters, and its quadratic model at a place."""

    def __init__(self, runs: Runs, weights: Column, start: Parameters) -> None:
        self._runs = runs
        self._weights = weights / weights.sum()
        self.start = np.log(np.array(astuple(start)))

    def loss(self, at: Column) -> float:
        size = np.sqrt(self._residuals(at) ** 2 + NARROW**2) - NARROW
        pull = PULL * float(np.mean((at - self.start) ** 2))
        return float(self._weights @ (WIDE * np.log1p(size / WIDE))) + pull

    def model(self, at: Column) -> tuple[Column, Column]:
        """Curvature and slope."""
        residuals, width = self._residuals(at), 1e-4
        columns = [(self._residuals(at + width * unit) - residuals) / width for unit in np.eye(len(at))]
        jacobian = np.stack(columns, axis=1)
        length = np.sqrt(residuals**2 + NARROW**2)
        share = self._weights / length / (1.0 + (length - NARROW) / WIDE)
        pull = 2.0 * PULL / len(at)
        curvature = (jacobian * share[:, None]).T @ jacobian + pull * np.eye(len(at))
        return curvature, jacobian.T @ (share * residuals) + pull * (at - self.start)

    def _residuals(self, at: Column) -> Column:
        first, token = latencies(Parameters(*np.exp(at).tolist()), self._runs)
        below = np.log(first / self._runs.first_token_s) * self._runs.below_saturation
        return np.concatenate([np.log(token / self._runs.token_s), below])
