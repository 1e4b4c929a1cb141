"""The table of ``search_table.py``: every network of the demo's adapted model, scored and timed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.demo_space import SPACE, Kept, kept
from sparsevit.sparsity import Configuration


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        bbox_ap, segm_ap: points, 0 to 100.
        latency_ms: of the backbone.
    """

    bbox_ap: float
    segm_ap: float
    latency_ms: float


class Table:
    """Score and latency of each configuration, looked up.

    Args:
        path: CSV that ``search_table.py`` wrote.
    """

    def __init__(self, path: Path) -> None:
        with path.open() as file:
            self.entries = {
                tuple(int(row[f"kept_{stage}"]) for stage in range(len(SPACE))): Entry(
                    100 * float(row["bbox_ap"]),
                    100 * float(row["segm_ap"]),
                    float(row["latency_ms"]),
                )
                for row in csv.DictReader(file)
            }

    @cached_property
    def kept(self) -> dict[Configuration, Kept]:
        """Windows kept by each configuration of the table."""
        windows = ((configuration, kept(configuration)) for configuration in SPACE.every())
        return {configuration: k for configuration, k in windows if k in self.entries}

    def latency(self, configuration: Configuration) -> float | None:
        """Milliseconds; None where the table does not know."""
        entry = self.entries.get(self.kept.get(configuration, ()))
        return None if entry is None else entry.latency_ms

    def score(self, configuration: Configuration) -> float:
        """Bbox AP in points, as a search is told it."""
        return round(self.entries[self.kept[configuration]].bbox_ap, 6)

    def interval(self, low: float, high: float) -> tuple[float, float]:
        """Milliseconds of two shares of the way from the sparsest (0) to the dense model (1)."""
        sparsest = self.entries[kept(SPACE.max())].latency_ms
        dense = self.entries[kept(SPACE.dense())].latency_ms
        return tuple(round(sparsest + share * (dense - sparsest), 2) for share in (low, high))

    def within(self, interval: tuple[float, float]) -> list[Configuration]:
        """The configurations of an interval."""
        low, high = interval
        return [c for c, k in self.kept.items() if low <= self.entries[k].latency_ms <= high]
