"""The processes of a search on this machine, which share its studies."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from sparsevit.atomic import write_atomic
from sparsevit.errors import UserError
from sparsevit.latency.predictor import LatencyPredictor
from sparsevit.phases.latency_source import DECISION, settled_predictor
from sparsevit.phases.searching.plan import SearchPlan
from sparsevit.processes import module_command, module_environment
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search.study import Direction, damage_told, open_study, quiet_optuna

_PATIENCE_SECONDS = 10.0
_AGREED = "latency_decision"


def check_workers(workers: int, device: torch.device) -> None:
    """Refuses more workers than there are devices for them.

    Raises:
        UserError: there are too few CUDA devices.
    """
    if device.type == "cuda" and workers > torch.cuda.device_count():
        raise UserError(
            f"--workers {workers}: there are {torch.cuda.device_count()} CUDA devices here.",
            "Use at most one worker per device.",
        )


def divided(plan: SearchPlan) -> list[SearchPlan]:
    """The plan of each worker: a CUDA device each, or a part of the CPU's threads."""
    workers = plan.options.workers
    kind = plan.execution.device.type
    if workers == 1:
        return [plan]
    if kind == "cuda":
        first = plan.execution.device.index or 0
        count = torch.cuda.device_count()
        return [plan.on(torch.device("cuda", (first + n) % count)) for n in range(workers)]
    threads = torch.get_num_threads()
    shared = replace(plan, timing_threads=threads, working_threads=max(1, threads // workers))
    return [shared] * workers


@contextmanager
def helpers(
    plans: list[SearchPlan], reporter: Reporter = SILENT
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
            plan.write(file)
            logs.append(directory / f"worker-{number}.log")
            with logs[-1].open("ab") as log:
                process = subprocess.Popen(
                    module_command("sparsevit.phases.searching.worker", str(file)),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=module_environment(),
                )
            processes.append(process)
            assert process.stdin is not None
            # one that died already is told of at the end
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(plan.storage).encode() + b"\n")
                process.stdin.flush()
        yield processes
        for process, log_file in zip(processes, logs, strict=True):
            if process.poll() not in (None, 0):
                reporter.note(
                    f"a worker ended with exit code {process.returncode} (see {log_file}); the "
                    "other workers did its work"
                )
    except BaseException:
        # what they are at is known to be nobody's once they are gone; nobody waits for its end
        for process in processes:
            process.kill()
        raise
    finally:
        _end(processes)


def agree_on_latency(
    plan: SearchPlan, decide: Callable[[], LatencyPredictor | None]
) -> LatencyPredictor | None:
    """The predictor by which all workers of a search judge candidates; None where they are timed.

    What the first machine decided is kept with the study, for the others to take.

    Args:
        plan: of this machine.
        decide: what this machine would do.
    """
    options = plan.options
    directions: list[Direction] = ["maximize", "minimize"] if options.pareto else ["maximize"]
    name = options.studies[0]
    file = Path(plan.directory) / DECISION
    with quiet_optuna():
        study = open_study(plan.storage, name, directions=directions)
        with damage_told(study):
            agreed = study.user_attrs.get(_AGREED)
        if agreed is None:
            settled_predictor(file.parent, decide, threads=plan.execution.threads)
            study.set_user_attr(_AGREED, json.loads(file.read_text(encoding="utf-8")))
            # another machine's, where that was quicker
            agreed = study.user_attrs[_AGREED]
    write_atomic(file, json.dumps(agreed, indent=1) + "\n")
    return settled_predictor(file.parent, decide, threads=plan.execution.threads)


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
