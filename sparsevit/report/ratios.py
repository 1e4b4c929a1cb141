"""A configuration in a few characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sparsevit.sparsity.configuration import format_ratio


def short_ratios(ratios: Mapping[str, float]) -> str:
    """``0.6 0 0.2/0.4/0.5 0``: by stage, knobs of one stage joined; ``-`` where there are none."""
    stages: dict[str, list[str]] = {}
    for name, ratio in ratios.items():
        head, _, tail = name.rpartition("_")
        stages.setdefault(head if tail.isdigit() and head else name, []).append(format_ratio(ratio))
    return " ".join("/".join(parts) for parts in stages.values()) or "-"


def signed(values: Iterable[float]) -> list[str]:
    """Changes in five characters each, all with as many decimals as the largest leaves room for."""
    whole = list(values)
    largest = max(map(abs, whole), default=0.0)
    decimals = 2 if largest < 9.995 else 1 if largest < 99.95 else 0
    return [f"{value:+.{decimals}f}" for value in whole]


def short_names(names: Iterable[str]) -> list[str]:
    """Knobs without the module that all of them lie in: ``stages.0`` for ``backbone.stages.0``."""
    whole = list(names)
    roots = {name.partition(".")[0] for name in whole}
    shared = len(roots) == 1 and all("." in name for name in whole)
    return [name.partition(".")[2] for name in whole] if shared else whole
