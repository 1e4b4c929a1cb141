"""The last search of a workspace again, as its studies have it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsevit.errors import UserError
from sparsevit.phases.inputs import PathLike
from sparsevit.phases.searching.plan import STUDY_NAME
from sparsevit.search.front import Reference
from sparsevit.search.options import SearchOptions
from sparsevit.search.read import read_confirmations, read_references, read_search, within
from sparsevit.search.results import SearchResult
from sparsevit.search.storage import shown_url
from sparsevit.search.study import reading
from sparsevit.workspace import RECORD_NAME, Workspace


@dataclass(frozen=True)
class ShownSearch:
    """A search that ran, and what it has come to.

    Attributes:
        run: its name in the workspace.
        status: ``finished``, or how else it ended; of one that did not finish, what it has so far.
        bests: file with the best of each interval, by interval: ``37:42``.
        plot: picture of latency against score, None where there is none yet.
        storage: of the Optuna studies.
        metric: what the score is, in points, 0 to 100.
        timing: how latency was measured.
        searches: of each interval, or of the whole front.
        references: what they are compared with.
    """

    run: str
    status: str
    bests: dict[str, Path]
    plot: Path | None
    storage: str
    metric: str
    timing: dict[str, Any]
    searches: tuple[SearchResult, ...]
    references: tuple[Reference, ...]


def show_search(workspace: PathLike | None = None, storage: PathLike | None = None) -> ShownSearch:
    """The last search of a workspace, without computing anything.

    Args:
        workspace: directory of the record; ``work_dirs`` where None.
        storage: where its studies are, for a search whose storage was given with a password, which
            the record does not have.

    Raises:
        UserError: nothing was searched.
    """
    ws = Workspace.open(workspace, create=False, readonly=True)
    run = ws.last("search") or ws.last("search", finished=False)
    if run is None:
        raise UserError(
            f"The workspace {ws.path} has no search to show.",
            "Run a search first: `sparsevit search --max 42 --min 37`.",
        )
    given = run.inputs
    try:
        where = os.fspath(storage or given.get("storage") or ws.directory_of(run) / STUDY_NAME)
        os.fsencode(where)
        options = SearchOptions(
            budgets=tuple((float(low), float(high)) for low, high in given.get("budgets") or ()),
            pareto=bool(given.get("pareto")),
            speedups=tuple(given.get("speedups") or ()),
            study=given.get("study"),
        )
        metric = str(given["metric"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The record of {run.name} in {ws.path / RECORD_NAME} does not say what was searched: "
            f"{type(error).__name__} {error}.",
            "Repair it, or search anew: `sparsevit search --force`.",
        ) from error
    names = options.studies
    with reading(where) as study:
        searches = [read_search(study, name) for name in names]
        # of those that stand beside several searches, the first's
        references = {
            each.name: each for name in reversed(names) for each in read_references(study, name)
        }
        known = read_confirmations(study, names[0])
    if options.speedups:
        options = replace(options, dense_ms=searches[0].dense_ms)
    if options.pareto and options.intervals:
        searches = [within(searches[0], low, high, known) for low, high in options.intervals]
    bests = {
        key.removeprefix("best "): ws.path / path
        for key, path in run.outputs.items()
        if key.startswith("best ")
    }
    return ShownSearch(
        run=run.name,
        status=run.status,
        bests=bests,
        plot=ws.locate(run, "plot"),
        storage=shown_url(where) if "://" in where else where,
        metric=metric,
        timing=_timing(given),
        searches=tuple(searches),
        references=tuple(sorted(references.values(), key=lambda each: each.name)),
    )


def _timing(given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("scope", "backend", "img_size", "batch_size", "precision", "device")
    return {name: given.get(name) for name in names}
