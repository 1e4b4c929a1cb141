"""A configuration in a few characters."""

from __future__ import annotations

from collections.abc import Mapping

from sparsevit.sparsity.configuration import format_ratio


def short_ratios(ratios: Mapping[str, float]) -> str:
    """``0.6 0 0.2/0.4/0.5 0``: by stage, knobs of one stage joined."""
    stages: dict[str, list[str]] = {}
    for name, ratio in ratios.items():
        head, _, tail = name.rpartition("_")
        stages.setdefault(head if tail.isdigit() and head else name, []).append(format_ratio(ratio))
    return " ".join("/".join(parts) for parts in stages.values())
