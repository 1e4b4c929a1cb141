"""The search log in the form of the paper's repository: ``search_max42_min37.txt``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sparsevit.search.options import budget_name
from sparsevit.search.trial import Trial
from sparsevit.sparsity.configuration import format_ratio
from sparsevit.sparsity.files import write_text


def log_name(min_ms: float, max_ms: float) -> str:
    """The log's file name for a latency interval in milliseconds."""
    return f"search_{budget_name((min_ms, max_ms))}.txt"


def log_text(trials: Iterable[Trial]) -> str:
    """Two lines for each candidate that was better than all before it.

    ``iteration score {'latency': milliseconds}``, then ``knob ratio knob ratio ...``. The paper's
    script also writes candidates that equal the best (a best one drawn again among them), and its
    first one where that is infeasible; only real improvements are written here.
    """
    lines = []
    best = -float("inf")
    for trial in trials:
        if trial.score is None or trial.configuration is None or trial.score <= best:
            continue
        best = trial.score
        lines.append(f"{trial.iteration} {trial.score} {{'latency': {trial.latency_ms}}}\n")
        ratios = trial.configuration.items()
        lines.append("".join(f"{name} {format_ratio(ratio)} " for name, ratio in ratios) + "\n")
    return "".join(lines)


def write_log(path: Path, trials: Iterable[Trial]) -> None:
    """Writes the whole log in one step, so that it never holds a line twice or a part of one.

    Raises:
        UserError: where it cannot be written.
    """
    write_text(path, log_text(trials))
