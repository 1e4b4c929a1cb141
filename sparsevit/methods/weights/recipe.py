"""What of a model is trained sparse, and how: the options of a conversion, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparsevit.errors import UserError
from sparsevit.sparsity.configuration import DECIMALS
from sparsevit.sparsity.weights import check_density

WEIGHTS, HEADS, NEURONS, TOKENS = "weights", "heads", "neurons", "tokens"
"""Names of the knobs: shares of each that are left out."""


@dataclass(frozen=True)
class Recipe:
    """Which connections, heads, neurons and tokens a training keeps.

    One of ``density``, ``heads`` with ``neurons``, or ``pattern`` may be given; none keeps all.

    Attributes:
        density: share of all connections that is alive (SViTE, unstructured), in (0, 1].
        heads, neurons: share of each layer's heads and MLP neurons that is kept (S2ViTE).
        pattern: ``"n:m"``, such as ``"2:4"``: n of every m neighbours in a row of a weight.
        tokens: share of an image's tokens that is kept beside the class token (SViTE+).
        update_interval: iterations between two updates of the masks; None where they stand still.

    Raises:
        UserError: a share is not within (0, 1], the interval is below 1, the pattern is none, or
            options exclude each other.
    """

    density: float | None = None
    heads: float | None = None
    neurons: float | None = None
    pattern: str | None = None
    tokens: float = 1.0
    update_interval: int | None = None

    def __post_init__(self) -> None:
        if (self.heads is None) != (self.neurons is None):
            raise UserError(
                "svite gives a share for only one of heads and neurons.",
                "Give both; 1.0 keeps all of one.",
            )
        kinds = [n for n in ("density", "heads", "pattern") if getattr(self, n) is not None]
        if len(kinds) > 1:
            raise UserError(
                f"svite has {' and '.join(kinds)}, which exclude each other.",
                "Give density, or heads and neurons, or pattern.",
            )
        for name in ("density", "heads", "neurons", "tokens"):
            share = getattr(self, name)
            if share is not None:
                check_density(share, f"svite.{name}")
        if self.pattern is not None:
            parse_pattern(self.pattern)
        interval = self.update_interval
        whole = isinstance(interval, int) and not isinstance(interval, bool)
        if interval is not None and not (whole and interval > 0):
            raise UserError(
                f"svite.update_interval is {interval!r}, which is no number of iterations.",
                "Give a whole number above 0, such as 15000; None for masks that stand still.",
            )

    @property
    def ratios(self) -> dict[str, float]:
        """The share that is left out, by knob."""
        kept: dict[str, float | None] = {
            WEIGHTS: self.density,
            HEADS: self.heads,
            NEURONS: self.neurons,
            TOKENS: self.tokens if self.tokens < 1 else None,
        }
        if self.pattern is not None:
            n, m = parse_pattern(self.pattern)
            kept[WEIGHTS] = n / m
        found = {name: round(1 - share, DECIMALS) for name, share in kept.items() if share}
        return found or {WEIGHTS: 0.0}


def parse_pattern(pattern: object) -> tuple[int, int]:
    """(n, m) of ``"n:m"``.

    Raises:
        UserError: it is not of that form, or n is not between 1 and m - 1.
    """
    found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", str(pattern))
    n, m = (int(number) for number in found.groups()) if found else (0, 0)
    if not 0 < n < m:
        raise UserError(
            f"svite.pattern is {pattern!r}, which is no n:m.",
            'Write it as "2:4": two of every four neighbours are kept.',
        )
    return n, m
