"""What every worker of a search is told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from sparsevit.atomic import write_atomic
from sparsevit.latency.execution import Execution
from sparsevit.search.options import SearchOptions
from sparsevit.search.storage import shown_url
from sparsevit.sparsity import Configuration

STUDY_NAME = "study.db"
"""The file of a run's studies, where no other storage was given."""


@dataclass(frozen=True)
class SearchPlan:
    """A search as all of its workers know it: plain data.

    Attributes:
        options: what was asked for.
        execution: how latency is timed, as settled; the device is this worker's.
        checkpoint, checkpoint_sha256: the weights, and their digest.
        workspace: of the search.
        config, directory: the model's config, and the directory of this run; empty before it began.
        sensitivity: (ratios, score) pairs that are known beforehand.
        timing_threads, working_threads: CPU threads for either, where workers share the machine.
    """

    options: SearchOptions
    execution: Execution
    checkpoint: str
    checkpoint_sha256: str
    workspace: str
    config: str = ""
    directory: str = ""
    sensitivity: tuple[tuple[dict[str, float], float], ...] = ()
    timing_threads: int | None = None
    working_threads: int | None = None

    @property
    def storage(self) -> str:
        """Where the studies are."""
        assert isinstance(self.options.storage, str), "the run has begun"
        return self.options.storage

    def known_scores(self) -> dict[Configuration, float]:
        """Scores that are known beforehand."""
        return {Configuration(ratios): score for ratios, score in self.sensitivity}

    @property
    def metric(self) -> str:
        """What is maximised, as settled."""
        assert self.options.metric is not None, "the phase settles it"
        return self.options.metric

    def on(self, device: torch.device) -> SearchPlan:
        """The plan of a worker on a device."""
        return replace(self, execution=replace(self.execution, device=device))

    def begun(self, config: Path, directory: Path, storage: str) -> SearchPlan:
        """The plan of a run that has its directory."""
        return replace(
            self,
            config=str(config),
            directory=str(directory),
            options=replace(self.options, storage=storage),
        )

    def write(self, path: Path) -> None:
        """Writes it for another process, without the password that the storage may have."""
        document = {**asdict(self), "execution": self.execution.to_dict()}
        document["options"]["storage"] = shown_url(self.storage)
        write_atomic(path, json.dumps(document))

    @classmethod
    def read(cls, path: Path, storage: str) -> SearchPlan:
        """What :meth:`write` wrote, for studies in ``storage``."""
        found = json.loads(path.read_text(encoding="utf-8"))
        found["options"] = SearchOptions(**{**found["options"], "storage": storage})
        found["execution"] = Execution.from_dict(found["execution"])
        return cls(**found)
