"""Samplers over a space of configurations, one file each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsevit.errors import UserError
from sparsevit.search.samplers.base import SpaceSampler, distributions
from sparsevit.search.samplers.evolution import EvolutionSampler
from sparsevit.search.samplers.random import RandomSampler
from sparsevit.sparsity import Configuration, Space

__all__ = [
    "SAMPLERS",
    "EvolutionSampler",
    "RandomSampler",
    "SpaceSampler",
    "distributions",
    "make_sampler",
]

SAMPLERS: dict[str, type[SpaceSampler]] = {
    sampler.name: sampler for sampler in (EvolutionSampler, RandomSampler)
}


def make_sampler(
    name: str,
    space: Space,
    seed: int = 0,
    *,
    interval: tuple[float, float] | None = None,
    predict: Callable[[Configuration], float] | None = None,
    sensitivity: Any = None,
    **options: Any,
) -> SpaceSampler:
    """A sampler by name.

    Args:
        name: ``evolution`` or ``random``.
        interval: of the latency in milliseconds, for samplers that aim at it.
        predict: latency of a configuration in milliseconds, for the same.
        sensitivity: of score and latency to each knob, for samplers that start from it.
        options: further arguments of the sampler's class.

    Raises:
        UserError: where there is none of that name, or its options do not fit.
    """
    if name not in SAMPLERS:
        raise UserError(f"There is no sampler {name!r}.", f"Take one of {', '.join(SAMPLERS)}.")
    return SAMPLERS[name](space, seed, interval=interval, predict=predict, **options)
