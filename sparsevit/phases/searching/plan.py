"""What every worker of a search is told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sparsevit.search.options import SearchOptions
from sparsevit.sparsity import Configuration

STUDY_NAME = "study.db"
"""The file of a run's studies, where no other storage was given."""


@dataclass(frozen=True)
class SearchPlan:
    """A search as all of its workers know it: plain data.

    Attributes:
        options: what was asked for.
        scope, backend, img_size, batch_size, precision, device: how latency is timed, as settled;
            the device is this worker's.
        checkpoint, checkpoint_sha256: the weights, and their digest.
        workspace: of the search.
        config, directory: the model's config, and the directory of this run; empty before it began.
        sensitivity: (ratios, score) pairs that are known beforehand.
        timing_threads, working_threads: CPU threads for either, where workers share the machine.
    """

    options: SearchOptions
    scope: str
    backend: str
    img_size: tuple[int, int]
    batch_size: int
    precision: str
    device: str
    checkpoint: str
    checkpoint_sha256: str
    workspace: str
    config: str = ""
    directory: str = ""
    sensitivity: tuple[tuple[dict[str, float], float], ...] = ()
    timing_threads: int | None = None
    working_threads: int | None = None

    @property
    def timing(self) -> dict[str, Any]:
        """How latency is timed, for the record."""
        return {
            "scope": self.scope,
            "backend": self.backend,
            "img_size": list(self.img_size),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "device": self.device,
        }

    @property
    def storage(self) -> str:
        """Where the studies are."""
        assert isinstance(self.options.storage, str), "the run has begun"
        return self.options.storage

    def known_scores(self) -> dict[Configuration, float]:
        """Scores that are known beforehand."""
        return {Configuration(ratios): score for ratios, score in self.sensitivity}

    def begun(self, config: Path, directory: Path, storage: str) -> SearchPlan:
        """The plan of a run that has its directory."""
        return replace(
            self,
            config=str(config),
            directory=str(directory),
            options=replace(self.options, storage=storage),
        )

    def write(self, path: Path) -> None:
        """Writes it for another process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> SearchPlan:
        """What :meth:`write` wrote."""
        found = json.loads(path.read_text(encoding="utf-8"))
        plan = cls(**{**found, "options": SearchOptions(**found["options"])})
        return replace(plan, img_size=(plan.img_size[0], plan.img_size[1]))
