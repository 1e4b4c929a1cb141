"""Samplers over a space of configurations, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsevit.errors import UserError
from sparsevit.search.samplers.base import SpaceSampler, distributions
from sparsevit.search.samplers.evolution import EvolutionSampler
from sparsevit.search.samplers.feasible import Predict
from sparsevit.search.samplers.guided import GuidedSampler
from sparsevit.search.samplers.nsga2 import NSGA2Sampler
from sparsevit.search.samplers.random import RandomSampler
from sparsevit.search.samplers.tpe import TPESampler
from sparsevit.sparsity import Configuration, Space

__all__ = [
    "SAMPLERS",
    "EvolutionSampler",
    "GuidedSampler",
    "NSGA2Sampler",
    "Predict",
    "RandomSampler",
    "SpaceSampler",
    "TPESampler",
    "distributions",
    "make_sampler",
]

SAMPLERS: dict[str, type[SpaceSampler]] = {
    sampler.name: sampler
    for sampler in (EvolutionSampler, RandomSampler, TPESampler, NSGA2Sampler, GuidedSampler)
}


def make_sampler(
    name: str,
    space: Space,
    seed: int = 0,
    *,
    interval: tuple[float, float] | None = None,
    predict: Predict | None = None,
    sensitivity: Mapping[Configuration, float] | None = None,
    lag: int = 0,
    **options: Any,
) -> SpaceSampler:
    """A sampler by name.

    Args:
        name: ``evolution`` (the paper's), ``random``, ``tpe``, ``nsga2`` or ``guided``.
        interval: lowest and highest latency in milliseconds to draw within.
        predict: latency of a configuration in milliseconds; with it what lies outside the interval
            is not even drawn.
        sensitivity: scores known beforehand, by configuration, for samplers that start from them
            (``guided``).
        lag: workers less one, for samplers that would else wait for the result of every candidate
            before (``tpe``, ``guided``); it changes what they draw.
        options: further arguments of the sampler's class.

    Raises:
        UserError: where there is none of that name, or its options do not fit.
    """
    if name not in SAMPLERS:
        raise UserError(f"There is no sampler {name!r}.", f"Take one of {', '.join(SAMPLERS)}.")
    if name == GuidedSampler.name:
        options["sensitivity"] = sensitivity
    if name in (TPESampler.name, GuidedSampler.name):
        options["lag"] = lag
    return SAMPLERS[name](space, seed, interval=interval, predict=predict, **options)
