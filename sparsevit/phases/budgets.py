"""The files of what a search found, by the latency interval that it was run for."""

from __future__ import annotations

from pathlib import Path

from sparsevit.errors import UserError
from sparsevit.phases.inputs import PathLike
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search.options import canonical_budget, described, file_name
from sparsevit.workspace import RunRecord, Workspace
from sparsevit.workspace.workspace import BEST_NAME


def best_name(budget: str) -> str:
    """``best_max42_min37.yaml`` of ``37:42``, ``best_speedup1.6_2.yaml`` of ``1.6x:2x``."""
    stem, suffix = BEST_NAME.split(".")
    return f"{stem}_{file_name(budget)}.{suffix}"


def best_of(ws: Workspace, budget: str | None) -> Path | None:
    """The file of the best configuration that the last search found.

    Args:
        budget: for which interval, ``37:42`` or ``1.6x:2x``; the first that was searched where
            None.

    Raises:
        UserError: the last search had no such interval; it says which it had.
    """
    if budget is None:
        return ws.best_configuration()
    run = ws.last("search")
    key = best_key(canonical_budget(budget))
    path = None if run is None else ws.locate(run, key)
    if path is not None and path.is_file():
        return path
    known = _budgets_of(run)
    raise UserError(
        f"No search found a best configuration for {described(budget)}.",
        f"Use one of --budget {', '.join(known)}."
        if known
        else f"Run a search first: `sparsevit search --budget {budget}`.",
    )


def best_key(budget: str) -> str:
    """Under which name a run keeps the best of an interval: ``best 37:42``."""
    return f"best {budget}"


def other_budgets(ws: Workspace) -> list[str]:
    """The intervals of the last search, where it had several."""
    found = _budgets_of(ws.last("search"))
    return found if len(found) > 1 else []


def _budgets_of(run: RunRecord | None) -> list[str]:
    return [] if run is None else [k.removeprefix("best ") for k in run.outputs if " " in k]


def named_best(
    ws: Workspace,
    sparsity: PathLike | None,
    budget: str | None,
    reporter: Reporter = SILENT,
) -> PathLike | None:
    """The file with the ratios that were asked for: the given one, or that of an interval.

    Args:
        ws: of the search.
        sparsity: a file, if one was given.
        budget: an interval, if one was given.
        reporter: is told how to name an interval, where there are several and none was named.

    Raises:
        UserError: both are given, or nothing was found for the interval.
    """
    if budget is not None and sparsity is not None:
        raise UserError(
            "--sparsity and --budget cannot be used together.", "Give only one of them."
        )
    if budget is not None:
        return best_of(ws, budget)
    others = other_budgets(ws)
    if sparsity is None and others:
        reporter.note(f"several intervals were searched: --budget {', '.join(others)}")
    return sparsity
