"""Ratios of a backbone with stages: from what a config may say to one number a block."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from sparsevit.sparsity.configuration import ConfigurationError

Ratios = float | Sequence[float] | Sequence[Sequence[float]]


def nested_ratios(ratios: Ratios, depths: Sequence[int]) -> list[list[float]]:
    """One ratio a block, by stage.

    Args:
        ratios: a number for all blocks, a list by stage, or by stage and block.
        depths: number of blocks of each stage.

    Raises:
        ConfigurationError: a ratio is not a number in [0, 1), or the lists do not fit ``depths``.
    """
    of_stages: Any = [ratios] * len(depths) if _is_number(ratios) else ratios
    if not _is_list(of_stages) or len(of_stages) != len(depths):
        raise ConfigurationError(
            f"pruning_ratios={ratios!r} does not fit a backbone of {len(depths)} stages.",
            f"Give one number, a list of {len(depths)} (by stage), or a list of {len(depths)} lists"
            f" with {list(depths)} ratios (by block).",
        )
    nested = []
    for stage, (of_stage, depth) in enumerate(zip(of_stages, depths, strict=True)):
        of_blocks: Any = [of_stage] * depth if _is_number(of_stage) else of_stage
        if not _is_list(of_blocks) or len(of_blocks) != depth:
            raise ConfigurationError(
                f"pruning_ratios[{stage}]={of_stage!r} does not fit stage {stage}, which has"
                f" {depth} blocks.",
                f"Give one number or a list of {depth}.",
            )
        nested.append([_ratio(r, stage, block) for block, r in enumerate(of_blocks)])
    return nested


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _ratio(value: Any, stage: int, block: int) -> float:
    if not _is_number(value) or not 0 <= value < 1:
        raise ConfigurationError(
            f"pruning_ratios[{stage}][{block}]={value!r} is not a valid share of windows to skip.",
            "Give a number from 0 (skip none) to below 1.",
        )
    return float(value)
