"""Not a test: a phase that counts to ``STEPS`` in a workspace and says on stdout what it did.

``python killed_writer.py once DIR`` runs it in this process, to be killed from outside.
``python killed_writer.py everywhere DIR`` runs it in forks, the n-th of which kills itself at the
n-th line that it executes in those modules of ``sparsevit.workspace`` that touch the disk, and
checks what is left after each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import sparsevit.atomic
import sparsevit.workspace
from sparsevit.errors import UserError
from sparsevit.workspace import Workspace, provenance

STEPS = 2
INPUTS = {"config": "a.py", "seed": 0}
ROOM = Path(sparsevit.workspace.__file__).parent
# the others only compute: a kill there leaves what a kill at the line that called them leaves
WATCHED = {str(ROOM / name) for name in ("lock.py", "run.py", "workspace.py")}
WATCHED.add(sparsevit.atomic.__file__)


def count_steps(directory: Path, report: int, steps: int = STEPS) -> None:
    """The phase. Each line on the descriptor ``report`` is a promise."""
    with Workspace.open(directory).run("adapt", INPUTS) as run:
        os.write(report, f"begun {run.record.attempts}\n".encode())
        for step in range(run.record.metrics.get("step", 0) + 1, steps + 1):
            (run.directory / f"{step}.pth").write_text(str(step))
            run.update(metrics={"step": step}, outputs={f"weights_{step}": f"{step}.pth"})
            os.write(report, f"step {step}\n".encode())
    os.write(report, b"finished\n")


def kill_at(line: int) -> None:
    """SIGKILL this process when it comes to the ``line``-th watched line."""
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def fork_and_count(directory: Path, line: int | None) -> tuple[bool, list[str]]:
    """Whether a forked phase reached its end, and what it reported."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        if line is not None:
            kill_at(line)
        try:
            count_steps(directory, send)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    os.close(send)
    with open(receive) as stream:
        said = stream.read().splitlines()
    status = os.waitpid(pid, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or os.WEXITSTATUS(status) == 0, f"line {line}: status {status}"
    return not killed, said


def check_what_is_left(directory: Path, said: list[str]) -> None:
    """The record is readable, and holds all that was reported."""
    workspace = Workspace.open(directory, readonly=True)
    assert [run.status for run in workspace.history("pretrain")] == ["finished"]
    assert workspace.writer() is None
    runs = workspace.history("adapt")
    assert len(runs) <= 1
    steps = [int(line.split()[1]) for line in said if line.startswith("step")]
    if not runs:
        assert not said
        return
    assert runs[0].status in ("interrupted", "finished")
    assert runs[0].metrics.get("step", 0) >= max(steps, default=0)
    for step in steps:
        assert (directory / runs[0].outputs[f"weights_{step}"]).read_text() == str(step)
    if "finished" in said:
        assert runs[0].status == "finished"


def check_it_goes_on(directory: Path) -> None:
    """A second start ends what is left, in the same directory, and repeats no step."""
    before = Workspace(directory, readonly=True).history("adapt")
    done = before[0].metrics.get("step", 0) if before else 0
    if before and before[0].status == "finished":
        with pytest.raises(UserError, match="already done"):
            count_steps(directory, os.open(os.devnull, os.O_WRONLY))
        return
    ended, said = fork_and_count(directory, None)
    assert ended
    assert [line for line in said if line.startswith("step")] == [
        f"step {step}" for step in range(done + 1, STEPS + 1)
    ]
    run = Workspace(directory, readonly=True).last("adapt")
    assert run is not None
    assert (run.id, run.metrics["step"]) == ("run-001", STEPS)
    assert not list(directory.glob(".*.tmp"))


def everywhere(root: Path) -> int:
    """Kill at every line in turn; how many lines there were."""
    line = 0
    while True:
        line += 1
        directory = root / f"at-{line}"
        with Workspace.open(directory).run("pretrain", {"seed": 0}) as run:
            run.update(metrics={"loss": 1.0})
        ended, said = fork_and_count(directory, line)
        try:
            check_what_is_left(directory, said)
            if ended:
                return line
            check_it_goes_on(directory)
        except BaseException:
            print(f"after a kill at line {line}, having said {said}:", file=sys.stderr)
            raise


if __name__ == "__main__":
    task, folder = sys.argv[1], Path(sys.argv[2])
    if task == "once":
        count_steps(folder, sys.stdout.fileno(), steps=int(sys.argv[3]))
    else:
        # what a kill leaves does not depend on them, and they take most of the time
        os.fsync = lambda descriptor: None
        provenance.git_state = lambda folder=None: None
        print(json.dumps({"lines": everywhere(folder)}))
