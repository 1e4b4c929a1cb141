"""What a search leaves behind: the best of each interval, the log, the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsevit.phases.budgets import best_key, best_name
from sparsevit.phases.inputs import PathLike
from sparsevit.phases.searching.worker import SearchWorker
from sparsevit.report.search_plot import draw_front
from sparsevit.search.front import Reference
from sparsevit.search.log import log_name, write_log
from sparsevit.search.options import FRONT, Budget
from sparsevit.search.read import keep_confirmation, keep_references, read_confirmations, within
from sparsevit.search.results import SearchResult, write_best
from sparsevit.workspace import Workspace
from sparsevit.workspace.workspace import BEST_NAME

PLOT_NAME = "search.png"


def compared_with(worker: SearchWorker, found: Sequence[SearchResult]) -> list[Reference]:
    """The dense model and a uniform configuration for each search; kept in its study."""
    plan = worker.plan
    references: dict[str, Reference] = {}
    for interval, result in zip(plan.options.searched, found, strict=True):
        found_here = worker.references(interval, result.dense_ms)
        keep_references(plan.storage, plan.options.study_name(interval), found_here)
        # of those that stand beside several searches, the first's
        references = {**{each.name: each for each in found_here}, **references}
    return sorted(references.values(), key=lambda each: each.name)


def best_of_front(worker: SearchWorker, front: SearchResult) -> tuple[SearchResult, ...]:
    """The best of each interval among the trials of the front, measured again."""
    found = []
    options = worker.plan.options
    where = worker.plan.storage, options.study_name(FRONT)
    measured = read_confirmations(*where)
    for low, high in options.intervals:
        while True:
            result = within(front, low, high, measured)
            if result.best is None or result.best.number in measured:
                break
            assert result.best.configuration is not None
            latency_ms = worker.time_ms(result.best.configuration)
            measured[result.best.number] = keep_confirmation(*where, result.best, latency_ms)
        found.append(result)
    return tuple(found)


def live_log(ws: Workspace, directory: Path, interval: Budget) -> Path:
    """Where a search that goes on writes its log: that of a finished one is left as it is."""
    name = log_name(*interval)
    finished = [run for run in ws.history("search") if run.status == "finished"]
    owned = any(Path(path).name == name for run in finished for path in run.outputs.values())
    return (directory if owned else ws.path) / name


@dataclass(frozen=True)
class Written:
    """Files of a search.

    Attributes:
        bests: the best of each interval, by interval: ``37:42``.
        log: of the first search, in the form of the paper's script.
        plot: picture of latency against score.
        outputs: all of them by the names under which the run keeps them.
    """

    bests: dict[str, Path]
    log: Path
    plot: Path
    outputs: dict[str, PathLike]


def write_results(
    ws: Workspace,
    worker: SearchWorker,
    found: Sequence[SearchResult],
    references: Sequence[Reference],
    scored: Sequence[SearchResult],
) -> Written:
    """Writes the files of a search, into its directory and for the next phase.

    Args:
        ws: of the search.
        worker: that searched it.
        found: what the search of each came to.
        references: what they are compared with.
        scored: the searches that were run; of the front it is one for all intervals.

    Raises:
        UserError: nothing was found within an interval.
    """
    plan, space = worker.plan, worker.space
    budgets, metric = plan.options.intervals, plan.metric
    directory = Path(plan.directory)
    how = {
        **plan.execution.to_dict(),
        "checkpoint": plan.checkpoint,
        "images": worker.scorer.images,
    }
    bests: dict[str, Path] = {}
    outputs: dict[str, PathLike] = {}
    for budget, result in zip(budgets, found, strict=False):
        asked = plan.options.name_of(budget)
        name = BEST_NAME if len(budgets) == 1 else best_name(asked)
        path = write_best(directory / name, result, space, metric, how)
        if not bests:
            write_best(ws.path / BEST_NAME, result, space, metric, how)
            outputs["best"] = path
        if len(budgets) > 1:
            write_best(ws.path / name, result, space, metric, how)
        outputs[best_key(asked)] = path
        bests[asked] = path
    names = [log_name(*budget) for budget in budgets] or ["search_front.txt"]
    for name, result in zip(names, found, strict=False):
        write_log(directory / name, result.trials)
        write_log(ws.path / name, result.trials)
    log = ws.path / names[0]
    outputs["log"] = directory / names[0]
    plot = draw_front(found, references, metric, directory / PLOT_NAME, scored)
    if Path(plan.storage).is_file():
        outputs["study"] = plan.storage
    return Written(bests, log, plot, {**outputs, "plot": plot})


def summary(result: SearchResult, metric: str, split: str) -> dict[str, Any]:
    """What the record of a run says of its search."""
    best = result.best
    return {
        "metric": metric,
        "score": best.score if best else None,
        "latency_ms": best.latency_ms if best else None,
        "sparsity": best.configuration.to_dict() if best and best.configuration else None,
        "dense_ms": result.dense_ms,
        "fastest_ms": result.fastest_ms,
        "candidates": result.candidates,
        "scored": result.feasible,
        "same_network": result.same_network,
        "split": split,
    }
