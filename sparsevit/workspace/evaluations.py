"""Evaluations that were made: a file each, for every search of the workspace."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsevit.atomic import write_atomic
from sparsevit.plain_files import read_record
from sparsevit.workspace.digest import PREFIX, inputs_digest, to_json
from sparsevit.workspace.record import unwritable

FOLDER = "evaluations"


class Evaluations:
    """Metrics by what they are of: weights, configuration, images and so on.

    Any number of processes may read and write at the same time. A file is there as a whole or not
    at all; one that cannot be read counts as missing.

    Args:
        workspace: its directory.
    """

    def __init__(self, workspace: Path) -> None:
        self.folder = workspace / FOLDER

    def read(self, key: Mapping[str, Any]) -> dict[str, float] | None:
        """The metrics that were found for a key, None where there are none."""
        try:
            entry = read_record(self._path(key))
            if entry["key"] != to_json(key):
                return None
            return {str(name): float(value) for name, value in entry["metrics"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, key: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Keeps the metrics of a key.

        Raises:
            UserError: the workspace cannot be written.
        """
        path = self._path(key)
        entry = {"key": to_json(key), "metrics": to_json(metrics)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(entry) + "\n")
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def remove_leftovers(self) -> None:
        """Removes what killed writers left. Only while nobody writes."""
        for leftover in self.folder.glob("*/.*.tmp"):
            with contextlib.suppress(OSError):
                leftover.unlink()

    def _path(self, key: Mapping[str, Any]) -> Path:
        digest = inputs_digest(key).removeprefix(PREFIX)
        return self.folder / digest[:2] / f"{digest}.json"
