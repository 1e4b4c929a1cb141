"""A model split into its parts: how long each takes of a call."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from shared.stopwatch import Part, Stopwatch

REST = "the rest"


def parts_of(model: Any, named: Sequence[tuple[str, str, str]]) -> tuple[Part, ...]:
    """The watched functions of a model: what each is called, its module, the function's name.

    A module whose name ends in ``.*`` stands for each of its children.
    """
    found: list[Part] = []
    for name, module, attribute in named:
        owner = model.get_submodule(module.removesuffix(".*"))
        owners = owner.children() if module.endswith(".*") else (owner,)
        found += [(name, one, attribute) for one in owners]
    return tuple(found)


def at_ratios(
    backbone: Any, ratios: list[list[float]], call: Callable[[], Any]
) -> Callable[[], Any]:
    """A call with the backbone set to these ratios before it."""

    def with_ratios() -> Any:
        backbone.pruning_ratios = ratios
        return call()

    return with_ratios


def split_in_turn(
    calls: Mapping[str, Callable[[], Any]], parts: Mapping[str, tuple[Part, ...]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds by call and part, and under ``""`` of the whole call; one of each in turn."""
    samples: dict[str, dict[str, list[float]]] = {name: {"": []} for name in calls}
    with torch.no_grad():
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                # untimed, so that none is timed with the caches of another
                call()
                stopwatch = Stopwatch()
                with stopwatch.watching(parts[name]):
                    whole, spent = stopwatch.split(call)
                samples[name][""].append(whole)
                for part, ms in {**spent, REST: whole - sum(spent.values())}.items():
                    samples[name].setdefault(part, []).append(ms)
    return samples


def shares(taken: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median milliseconds of each part, and its share of the whole, call by call."""
    found = {}
    for part, times in taken.items():
        if not part:
            continue
        portions = [ms / whole for ms, whole in zip(times, taken[""], strict=True)]
        found[part] = {
            "median_ms": round(statistics.median(times), 4),
            "share": round(statistics.median(portions), 5),
            "samples_ms": [round(ms, 4) for ms in times],
        }
    return found
