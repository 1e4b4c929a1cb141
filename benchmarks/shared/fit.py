"""Straight lines through measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """y = intercept + slope * x, by least squares.

    Attributes:
        r2: the share of the variance of y that the line explains.
    """

    intercept: float
    slope: float
    r2: float


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The line through at least two points."""
    slope, intercept = statistics.linear_regression(x, y)
    total = sum((b - statistics.fmean(y)) ** 2 for b in y)
    rest = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return Line(intercept, slope, 1.0 if total == 0 else 1 - rest / total)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The p of y = c * x ** p: 1 where y is proportional to x, 2 where it grows as its square."""
    return line([math.log(a) for a in x], [math.log(b) for b in y]).slope
