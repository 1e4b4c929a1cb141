"""Making the process safe to run in, whatever streams and variables it was started with."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from sparsevit.errors import UserError, shortened

NARROWEST, WIDEST = 40, 1000
"""Columns of a terminal that can be written for."""

# What says who a process is among several, and the least that each can be.
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
"""Where torchrun, Slurm and Open MPI say which process this is."""

_COUNTS = {
    **dict.fromkeys((*RANK_VARIABLES, "LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"), 0),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"), 1),
    **dict.fromkeys(("SLURM_NTASKS", "MASTER_PORT"), 1),
}
_MOST = {"MASTER_PORT": 65535}
_MOST_PROCESSES = 1_000_000
_taken_out: dict[str, str] = {}


def settle() -> None:
    """Before anything is printed: streams that are open, a width that can be written for, and no
    variable that a library stumbles over."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        _settle_width(name)
    _settle_shell()
    said = os.environ.get("LOCAL_RANK")
    if said is not None and not _is_count(said):
        # mmengine reads it, whether there are several processes or not
        _taken_out["LOCAL_RANK"] = os.environ.pop("LOCAL_RANK")
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # a file name need not be text that the terminal can show
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def rank() -> int:
    """Which of several processes this is; 0 where nothing, or nothing that can be, says so."""
    found = (os.environ.get(name) for name in RANK_VARIABLES)
    said = next((text for text in found if text), "0")
    return int(said) if _is_count(said) else 0


def check_processes() -> None:
    """Refuse variables that a launcher sets, where they say what cannot be.

    Raises:
        UserError: one is no whole number in its range, or a process is beyond the number of them.
    """
    for name, least in _COUNTS.items():
        said = os.environ.get(name, _taken_out.get(name))
        most = _MOST.get(name, _MOST_PROCESSES)
        if said is None or (_is_count(said) and least <= int(said) <= most):
            continue
        raise UserError(
            f"The environment has {name}={shortened(said)}, which is not a whole number from "
            f"{least} to {most}.",
            "Start the command with torchrun, srun or mpirun, which set it, or give --devices N "
            "alone.",
        )
    size = os.environ.get("WORLD_SIZE")
    if size and int(os.environ.get("RANK") or 0) >= int(size):
        raise UserError(
            f"The environment has RANK={os.environ['RANK']} and WORLD_SIZE={size}.",
            "Ranks are numbered from 0: start the command with torchrun, which sets both.",
        )


def require_working_directory() -> None:
    """Refuse to run in a directory that was removed.

    Raises:
        UserError: it was, or it cannot be reached.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"The working directory cannot be found: {error.strerror or error}.",
            "It may have been removed: change to another with `cd`.",
        ) from error


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def _settle_shell() -> None:
    """What asks for words to complete or for colours, where it is not meant so."""
    variables = os.environ
    asked = variables.get("_SPARSEVIT_COMPLETE", "")
    by_bash = "COMP_WORDS" in variables and _is_count(variables.get("COMP_CWORD", ""))
    what, _, shell = asked.partition("_")
    answered = what == "source" or by_bash or "_TYPER_COMPLETE_ARGS" in variables
    if asked and not (what in ("source", "complete") and shell in _SHELLS and answered):
        del variables["_SPARSEVIT_COMPLETE"]
    if variables.get("FORCE_COLOR", "1").strip() in ("", "0"):
        del variables["FORCE_COLOR"]


def _settle_width(name: str) -> None:
    said = os.environ.get(name)
    if said is None:
        return
    if not _is_count(said) or not 0 < int(said) <= WIDEST:
        del os.environ[name]
    elif name != "LINES" and int(said) < NARROWEST:
        os.environ[name] = str(NARROWEST)


def _open_closed_streams() -> None:
    """A descriptor that is closed is the next file's: a library's words would end up in it.

    What is written to a closed stdout fails, as it does on a full disk, so that a result does not
    get lost without a word.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
            continue
        except OSError:
            pass
        flags = os.O_WRONLY if name == "stderr" else os.O_RDONLY
        opened = os.open(os.devnull, flags)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        stream: Any = open(  # noqa: SIM115
            descriptor, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
