"""How a command runs its phase: with a reporter on stderr, in one process or in several."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from sparsevit import interruption
from sparsevit.cli import console, environment
from sparsevit.cli.options import Launcher
from sparsevit.processes import module_command, module_environment

if TYPE_CHECKING:
    from sparsevit.report.reporter import Reporter

PATIENCE_SECONDS = 10.0

# Set for the processes that `--devices` starts, so that they do not start more.
STARTED = "SPARSEVIT_STARTED_BY_DEVICES"


def reporter() -> Reporter:
    """One that speaks in the first process, and none in the others."""
    from sparsevit.report.reporter import SILENT, ConsoleReporter

    return ConsoleReporter(console.err) if is_first() else SILENT


def is_first() -> bool:
    """Whether this process is the one that prints the result."""
    return environment.rank() == 0


def is_started() -> bool:
    """Whether ``--devices`` of another process started this one."""
    return STARTED in os.environ


def let_the_first_speak() -> None:
    """Where several processes fail together, the first tells the user, once.

    The others wait to be stopped with it, and return, to speak themselves, where it goes on.
    """
    if not is_first():
        time.sleep(PATIENCE_SECONDS)


def start_processes(devices: int, launcher: Launcher) -> bool:
    """Run this command in ``devices`` processes, with torchrun underneath.

    Returns:
        Whether it did: the caller then has nothing left to do.

    Raises:
        UserError: both ``devices`` and a launcher are given, or there are fewer CUDA devices.
        SystemExit: a process failed; with its exit code.
    """
    if launcher is not Launcher.none:
        environment.check_processes()
    if devices == 1 or os.environ.get(STARTED):
        return False
    import torch

    from sparsevit.errors import UserError

    if launcher is not Launcher.none:
        raise UserError(
            f"--devices {devices} starts processes, and --launcher {launcher.value} says that they "
            "are already running.",
            "Give only one of them.",
        )
    if torch.cuda.is_available() and torch.cuda.device_count() < devices:
        raise UserError(
            f"--devices {devices}: there are {torch.cuda.device_count()} CUDA devices here.",
            "Use at most that many.",
        )
    _torchrun(devices)
    return True


def launched_by(launcher: Launcher) -> str:
    """The launcher to tell a phase: torchrun's, where ``--devices`` started this process."""
    return Launcher.pytorch.value if os.environ.get(STARTED) else launcher.value


def _torchrun(devices: int) -> None:
    import logging

    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # a process has told its user what went wrong; torchrun's own account of it is noise
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    before = dict(os.environ)
    os.environ.update(module_environment())
    os.environ[STARTED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    program, *words = module_command("sparsevit.cli.main")
    arguments = ["--standalone", f"--nproc-per-node={devices}", "--no-python", program]
    try:
        # the first process prints the result, as this one would
        with console.real_stdout():
            options = torchrun.parse_args(arguments)
            # not parsed with them: torchrun would take our --max for an abbreviation of its own
            options.training_script_args = ["-u", *words, *sys.argv[1:]]
            torchrun.run(options)
    except SignalException as error:
        interruption.note(error.sigval)
        interruption.check()
    except ChildFailedError as error:
        # where one process gives up, torchrun stops the others with a signal
        codes = {rank: f.exitcode for rank, f in error.failures.items() if f.exitcode > 0}
        stopped = {code: number for number, code in interruption.CODES.items()}
        failed = {rank: code for rank, code in codes.items() if code not in stopped}
        if codes and not failed:
            interruption.note(stopped[min(codes.values())])
            interruption.check()
        raise SystemExit(failed.get(0, min(failed.values(), default=1))) from None
    finally:
        os.environ.clear()
        os.environ.update(before)
