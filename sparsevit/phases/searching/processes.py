"""More workers of a search on this machine: processes that share its studies.

As a program, one of them: ``python -m sparsevit.phases.searching.processes PLAN.json``. It ends when the
studies are done, or when the process that started it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from sparsevit.errors import UserError
from sparsevit.latency.predictor import LatencyPredictor
from sparsevit.phases.budgets import Budget
from sparsevit.phases.latencies import DECISION, settled_predictor
from sparsevit.phases.searching.worker import SearchBench, SearchPlan
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search.study import Direction, open_study, quiet_optuna
from sparsevit.workspace.atomic import write_atomic

_PATIENCE_SECONDS = 10.0
_AGREED = "latency_decision"


def check_workers(workers: int, device: torch.device) -> None:
    """Refuses a number of workers for which there is no device each.

    Raises:
        UserError: there is none.
    """
    if workers < 1:
        raise UserError(f"A search with {workers} workers.", "Give --workers 1 or more.")
    if device.type == "cuda" and workers > torch.cuda.device_count():
        raise UserError(
            f"--workers {workers}: there are {torch.cuda.device_count()} CUDA devices here.",
            "Ask for no more than there are; each worker takes one.",
        )


def divided(plan: SearchPlan, workers: int) -> list[SearchPlan]:
    """The plan of each worker: a CUDA device each, or a part of the CPU's threads."""
    kind = torch.device(plan.device).type
    if workers == 1:
        return [plan]
    if kind == "cuda":
        first = torch.device(plan.device).index or 0
        count = torch.cuda.device_count()
        return [replace(plan, device=f"cuda:{(first + n) % count}") for n in range(workers)]
    threads = torch.get_num_threads()
    shared = replace(plan, timing_threads=threads, working_threads=max(1, threads // workers))
    return [shared] * workers


@contextmanager
def helpers(
    plans: list[SearchPlan], budgets: tuple[Budget, ...], reporter: Reporter = SILENT
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that work on the same studies meanwhile, one for each plan.

    One that dies is said at the end; its candidate is taken up by another.
    """
    processes: list[subprocess.Popen[bytes]] = []
    logs: list[Path] = []
    try:
        for number, plan in enumerate(plans, 2):
            directory = Path(plan.directory)
            file = directory / f"worker-{number}.json"
            plan.write(file, budgets)
            logs.append(directory / f"worker-{number}.log")
            with logs[-1].open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "sparsevit.phases.searching.processes", str(file)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            processes.append(process)
        yield processes
        for process, log_file in zip(processes, logs, strict=True):
            if process.poll() not in (None, 0):
                reporter.note(
                    f"a worker ended with {process.returncode}, see {log_file}; the others did "
                    "its work"
                )
    finally:
        _end(processes)


def agree_on_latency(
    plan: SearchPlan, budget: Budget, decide: Callable[[], LatencyPredictor | None]
) -> LatencyPredictor | None:
    """The predictor by which all workers of a search judge candidates; None where they are timed.

    What the first machine decided is kept with the study, for the others to take.

    Args:
        plan: of this machine.
        budget: the first interval that is searched.
        decide: what this machine would do.
    """
    directions: list[Direction] = ["maximize", "minimize"] if plan.pareto else ["maximize"]
    file = Path(plan.directory) / DECISION
    with quiet_optuna():
        study = open_study(plan.storage, plan.study_name(budget), directions=directions)
        agreed = study.user_attrs.get(_AGREED)
        if agreed is None:
            settled_predictor(file.parent, decide)
            study.set_user_attr(_AGREED, json.loads(file.read_text(encoding="utf-8")))
            # another machine's, where that was quicker
            agreed = study.user_attrs[_AGREED]
    write_atomic(file, json.dumps(agreed, indent=1) + "\n")
    return settled_predictor(file.parent, decide)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        # its end of the pipe tells it that nobody waits for it any more
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
    for process in processes:
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _no_decision() -> None:
    raise RuntimeError("the first worker decides how latency is judged before others start")


def main(file: str) -> None:
    """Work on the studies of a plan until they are done."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    plan, budgets = SearchPlan.read(Path(file))
    bench = SearchBench(plan)
    bench.predictor = settled_predictor(Path(plan.directory), _no_decision)
    bench.share_machine()
    for budget in budgets:
        bench.search(budget, confirm_best=False)


if __name__ == "__main__":
    main(sys.argv[1])
