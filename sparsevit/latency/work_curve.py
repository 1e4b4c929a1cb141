"""Latency as a function of the work that is left: a line, and where it really leaves the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEAST_VARIANCE = 1e-18


@dataclass(frozen=True)
class Node:
    """One measured point of a curve.

    Attributes:
        work: what is left to do there, in any unit (multiplications, say).
        change: of latency against dense, as a share of dense; negative where it is faster.
        standard_error: of the change.
    """

    work: float
    change: float
    standard_error: float


@dataclass(frozen=True)
class WorkCurve:
    """Change of latency over work: a line, plus corrections between which it is interpolated.

    Attributes:
        slope, intercept: of the line.
        works: of the nodes, ascending.
        corrections: what to add to the line at each node; the outermost hold beyond.
    """

    slope: float
    intercept: float
    works: tuple[float, ...]
    corrections: tuple[float, ...]

    def at(self, work: float) -> float:
        """The change of latency where so much work is left."""
        correction = float(np.interp(work, self.works, self.corrections))
        return self.intercept + self.slope * work + correction


def fit_work_curve(nodes: Sequence[Node]) -> WorkCurve:
    """The curve through measured nodes, as far as their noise lets them be believed.

    Work that is skipped saves time in proportion, after a jump for choosing what to skip, so a line
    is what to expect. How far the nodes scatter around it beyond their standard errors is the
    variance of real deviations (steps of a GPU, say; DerSimonian and Laird, 1986), and each node
    pulls the curve off the line by its share in that (empirical Bayes). Where there is no noise,
    the curve goes through every node.

    Args:
        nodes: at least one; of those with the same work the mean counts.

    Raises:
        ValueError: there is none.
    """
    if not nodes:
        raise ValueError("a curve needs a node")
    merged = _merged(nodes)
    x = np.array([node.work for node in merged])
    y = np.array([node.change for node in merged])
    noise = np.array([max(node.standard_error**2, _LEAST_VARIANCE) for node in merged])
    works = tuple(x.tolist())
    if len(merged) == 1:
        return WorkCurve(0.0, float(y[0]), works, (0.0,))
    slope, intercept = _line(x, y, noise)
    if len(merged) == 2:
        return WorkCurve(slope, intercept, works, (0.0, 0.0))
    weight = 1 / noise
    excess = float((weight * (y - intercept - slope * x) ** 2).sum()) - (len(merged) - 2)
    real = max(0.0, excess / float(weight.sum() - (weight**2).sum() / weight.sum()))
    slope, intercept = _line(x, y, noise + real)
    corrections = (y - intercept - slope * x) * real / (real + noise)
    return WorkCurve(slope, intercept, works, tuple(corrections.tolist()))


def _merged(nodes: Sequence[Node]) -> list[Node]:
    """Nodes by ascending work, one for each."""
    at: dict[float, list[Node]] = {}
    for node in nodes:
        at.setdefault(node.work, []).append(node)
    merged = []
    for work, same in sorted(at.items()):
        change = sum(node.change for node in same) / len(same)
        error = sum(node.standard_error**2 for node in same) ** 0.5 / len(same)
        merged.append(Node(work, change, error))
    return merged


def _line(x: np.ndarray, y: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the weighted least squares line."""
    weight = 1 / variance
    mean_x = float((weight * x).sum() / weight.sum())
    mean_y = float((weight * y).sum() / weight.sum())
    spread = float((weight * (x - mean_x) ** 2).sum())
    slope = float((weight * (x - mean_x) * (y - mean_y)).sum()) / spread
    return slope, mean_y - slope * mean_x
