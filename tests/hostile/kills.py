"""Kill every phase at random instants, and see that nothing is lost.

``python tests/hostile/kills.py --kills 200 --seed 0 --jobs 2`` sends SIGKILL, SIGINT or SIGTERM to
a command at a random instant, again and again, and checks after each:

- the exit code (130 and 143, unless the command had ended), and that there is no traceback;
- that the record can be read, and no run says that it runs;
- that every file of what was finished before is as it was, and still what later phases take;
- that the same command, given again, ends well, and leaves no temporary file and no lock.

A command is run in a fork of this process, which has imported what the phases need, on a copy of a
workspace in which every phase ran on the tiny config of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))

import tiny

from sparsevit.cli import main as cli
from sparsevit.errors import UserError
from sparsevit.workspace import Workspace

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
PATIENCE_SECONDS = 300.0
FIRST_SECONDS = 4.0
COUNTS = (
    "wrong exit codes",
    "tracebacks",
    "hangs",
    "files harmed",
    "results lost",
    "reruns failed",
    "temporary files left",
)
WARM = (
    *("torch", "mmengine.runner", "mmdet.models", "mmdet.datasets", "mmdet.evaluation", "optuna"),
    *("torch.utils.tensorboard", "matplotlib.pyplot", "sqlalchemy", "pycocotools.coco"),
    *("yapf.yapflib.yapf_api", "torch.distributed.run", "cv2", "rich.progress"),
)
QUICK = ("--eval-images", "1")
TIMED = ("--latency", "measured", "--latency-seconds", "0.01", *QUICK)
# what a process of its own gets ready for takes seconds, so these are tried less often
SELDOM = 0.15


@dataclass(frozen=True)
class Case:
    """A command to kill.

    Attributes:
        words: of the command.
        phase: whose run it makes, if it makes one.
        base: the workspace it starts from.
        share: how often it is tried, beside 1.
    """

    words: tuple[str, ...]
    phase: str = ""
    base: str = "finished"
    share: float = 1.0

    @property
    def name(self) -> str:
        return " ".join(self.words)


CASES = (
    Case(("pretrain", "{config}", *QUICK), "pretrain", "empty"),
    Case(("pretrain", "{config}", "--resume"), "pretrain"),
    Case(("adapt", "--validate-at", "", *QUICK), "adapt", "pretrained"),
    Case(("adapt", "--resume"), "adapt"),
    Case(("adapt", "--force", "--validate-at", "", *QUICK), "adapt"),
    Case(("sensitivity", *TIMED), "sensitivity"),
    Case(("search", *tiny.SEARCH, *QUICK), "search", "adapted"),
    Case(("search", *tiny.SEARCH, "--resume", "--trials", "5"), "search"),
    Case(("search", *tiny.SEARCH, "--force"), "search"),
    Case(("search", *tiny.SEARCH, "--pareto", *QUICK), "search"),
    Case(("search", *tiny.SEARCH, "--workers", "2", *QUICK), "search", "adapted", SELDOM),
    Case(("finetune", "--eval-images", "1"), "finetune", "searched"),
    Case(("finetune", "--resume"), "finetune"),
    Case(("evaluate", *QUICK), "evaluate"),
    Case(("evaluate", "--devices", "2", *QUICK), "evaluate", "finished", SELDOM),
    Case(("adapt", "--devices", "2", *QUICK), "adapt", "pretrained", SELDOM),
    Case(("calibrate", "--seconds", "0.2", "--held-out", "2"), "calibrate"),
    Case(("calibrate", "--force", "--seconds", "0.2", "--held-out", "2"), "calibrate"),
    Case(("latency", "--seconds", "0.1", "--img-size", "64")),
    Case(("export-config", "--out", "{folder}/exported.py", "--force"), "", "empty"),
    Case(("data", "make", "{folder}/data", "--train", "8", "--val", "4"), "", "empty"),
)


@dataclass
class Found:
    """What came of the kills."""

    tried: int = 0
    ended_before: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def fault(self, kind: str, note: str) -> None:
        """Counts one fault and says it."""
        self.counts[kind] += 1
        self.notes.append(f"{kind}: {note}")
        print(f"  {kind}: {note}", file=sys.stderr, flush=True)

    @property
    def faults(self) -> int:
        return sum(self.counts[kind] for kind in COUNTS)

    def table(self) -> str:
        """The counts, a line each."""
        signals = ", ".join(f"{name} {number}" for name, number in sorted(self.signals.items()))
        lines = [f"tried: {self.tried} ({signals}; {self.ended_before} had ended before)"]
        return "\n".join([*lines, *(f"{kind}: {self.counts[kind]}" for kind in COUNTS)])


class Process:
    """A command in a fork, in a session of its own; what it says goes to a file."""

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.said = folder / "said.txt"
        self.done = folder / "done"
        self.done.unlink(missing_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            self._be_the_command(words)

    def _be_the_command(self, words: Sequence[str]) -> None:
        code = 99
        try:
            os.setsid()
            for number, handler in (
                (signal.SIGINT, signal.default_int_handler),
                (signal.SIGTERM, signal.SIG_DFL),
            ):
                signal.signal(number, handler)
            said = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.argv = ["sparsevit", *words]
            with contextlib.suppress(SystemExit):
                code = cli.main(list(words))
            self.done.touch()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def wait(self, seconds: float) -> int | None:
        """The exit code, that of a signal negative; None where it goes on after so long."""
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                return None
            time.sleep(0.002)

    def end(self) -> None:
        """Kill it and what it started."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(self.pid, 0)


class Campaign:
    """Kills commands on copies of workspaces.

    Args:
        root: an empty folder of its own.
        cases: to choose from.
        keep: the folders of faults, to be looked at.
    """

    def __init__(self, root: Path, cases: Sequence[Case] = CASES, keep: bool = False) -> None:
        self.root, self.cases, self.keep = root, list(cases), keep
        self.found = Found()
        self.config = root / "tiny.py"
        self.config.write_text(tiny.CONFIG, encoding="utf-8")
        self.seconds: dict[Case, float] = {}
        self._guard = threading.Lock()

    def prepare(self) -> None:
        """Makes the workspaces that cases start from."""
        last = self.root / "base-empty"
        last.mkdir()
        if all(case.base == "empty" for case in self.cases):
            return
        for name, words in (
            ("pretrained", ["pretrain", str(self.config)]),
            ("adapted", ["adapt"]),
            ("searched", ["search", *tiny.SEARCH]),
            ("finished", ["finetune"]),
        ):
            folder = self.root / f"base-{name}"
            shutil.copytree(last, folder)
            self._must(words, folder)
            last = folder
        self._must(["evaluate"], last)

    def plan(self, kills: int, seed: int) -> list[tuple[int, Case, signal.Signals, float]]:
        """What is killed, how and when (as a share of its time)."""
        rng = random.Random(seed)
        weights = [case.share for case in self.cases]
        planned = []
        for number in range(kills):
            # each case in turn first, so that none is left out
            if number < len(self.cases) * 2 and self.cases[number % len(self.cases)].share == 1:
                case = self.cases[number % len(self.cases)]
            else:
                case = rng.choices(self.cases, weights)[0]
            planned.append((number, case, rng.choice(SIGNALS), rng.random()))
        return planned

    def run(self, kills: int, seed: int, jobs: int, seconds: float = float("inf")) -> Found:
        """Kills so often, or until the time is up."""
        until = time.monotonic() + seconds
        planned = self.plan(kills, seed)

        def attempt(entry: tuple[int, Case, signal.Signals, float]) -> None:
            if time.monotonic() < until:
                self.kill(*entry)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(attempt, planned))
        return self.found

    def kill(self, number: int, case: Case, which: signal.Signals, share: float) -> None:
        """One kill, and all that is checked after it."""
        folder = self._copy(case, f"kill-{number}")
        workspace = folder / "ws"
        words = self._words(case, folder)
        before = finished_files(workspace)
        name = f"{which.name} at {share:.3f} of `{case.name}` ({folder.name})"
        faults = self.found.faults
        process = Process(words, folder)
        try:
            time.sleep(share * self.seconds.get(case, FIRST_SECONDS))
            with contextlib.suppress(OSError):
                os.kill(process.pid, which)
            code = process.wait(60.0)
        finally:
            process.end()
        said = process.said.read_text(errors="replace") if process.said.exists() else ""
        shutil.copy(process.said, folder / "killed.txt") if said else None
        had_ended = process.done.exists() and code == 0
        with self._guard:
            self.found.tried += 1
            self.found.signals[which.name] += 1
            self.found.ended_before += had_ended
        if code is None:
            self._fault("hangs", name)
        elif not had_ended and code != expected(which):
            self._fault("wrong exit codes", f"{name}: {code}: {said[-400:]}")
        if "Traceback" in said or "Exception ignored" in said:
            self._fault("tracebacks", f"{name}: {said[-1500:]}")
        self._check_record(case, which, name, workspace, had_ended)
        self._check_files(name, before)
        self._again(case, name, words, folder)
        runs = {p: d for p, d in before.items() if "run-" in p.relative_to(workspace).as_posix()}
        self._check_files(f"{name}, again", runs)
        if self.found.faults == faults or not self.keep:
            shutil.rmtree(folder, ignore_errors=True)

    def _check_record(
        self, case: Case, which: signal.Signals, name: str, workspace: Path, had_ended: bool
    ) -> None:
        base = Workspace(self.root / f"base-{case.base}", readonly=True)
        seen = Workspace(workspace, readonly=True)
        try:
            runs = seen.status_rows()
            for run in base.status_rows():
                now = next((r for r in seen.history(run.phase) if r.id == run.id), None)
                if now is None or now.status != "finished":
                    self._fault("results lost", f"{name}: {run.name} is {now and now.status}")
                if not had_ended and seen.last(run.phase) is None:
                    self._fault("results lost", f"{name}: {run.phase} offers nothing")
        except UserError as error:
            self._fault("files harmed", f"{name}: {error}")
            return
        mine = [run for run in runs if run.phase == case.phase and run.status != "finished"]
        if any(run.status != "interrupted" for run in mine):
            states = [(run.name, run.status, run.error) for run in mine]
            self._fault("wrong exit codes", f"{name}: {states}")

    def _check_files(self, name: str, before: dict[Path, str]) -> None:
        for path, digest in before.items():
            if not path.exists() or sha256(path) != digest:
                self._fault("files harmed", f"{name}: {path}")

    def _again(self, case: Case, name: str, words: Sequence[str], folder: Path) -> None:
        began = time.monotonic()
        process = Process(words, folder)
        try:
            code = process.wait(PATIENCE_SECONDS)
        finally:
            process.end()
        # within how long the next kill of it must fall
        took = time.monotonic() - began
        self.seconds[case] = max(took, self.seconds.get(case, 0.0))
        said = process.said.read_text(errors="replace") if process.said.exists() else ""
        done = code == 0 or (code == 2 and "already done" in " ".join(said.split()))
        if code is None:
            self._fault("hangs", f"{name}, again")
        elif not done:
            self._fault("reruns failed", f"{name}: {code}: {said[-1500:]}")
        workspace = Workspace(folder / "ws", readonly=True)
        if done and case.phase and workspace.last(case.phase) is None:
            self._fault("reruns failed", f"{name}: nothing is finished")
        if workspace.writer() is not None:
            self._fault("hangs", f"{name}: the lock is held")
        for path in left_over(folder):
            self._fault("temporary files left", f"{name}: {path}")

    def _fault(self, kind: str, note: str) -> None:
        with self._guard:
            self.found.fault(kind, note)

    def _copy(self, case: Case, name: str) -> Path:
        folder = self.root / name
        folder.mkdir()
        shutil.copytree(self.root / f"base-{case.base}", folder / "ws")
        return folder

    def _words(self, case: Case, folder: Path) -> list[str]:
        places = {"config": self.config, "folder": folder}
        words = [word.format(**places) for word in case.words]
        return words if words[0] == "data" else [*words, "--workspace", str(folder / "ws")]

    def _must(self, words: Sequence[str], workspace: Path, folder: Path | None = None) -> None:
        if "--workspace" not in words and words[0] != "data":
            words = [*words, "--workspace", str(workspace)]
        process = Process(words, folder or self.root)
        try:
            code = process.wait(PATIENCE_SECONDS)
        finally:
            process.end()
        if code != 0:
            raise SystemExit(f"{' '.join(words)}: exit code {code}\n{process.said.read_text()}")


def expected(which: signal.Signals) -> int:
    """The exit code of a command that a signal ended."""
    return -which if which == signal.SIGKILL else 128 + which


def finished_files(workspace: Path) -> dict[Path, str]:
    """Every file of the finished runs of a workspace, and its digest."""
    seen = Workspace(workspace, readonly=True)
    found: set[Path] = set()
    for run in seen.status_rows():
        if run.status == "finished":
            found |= {p for p in seen.directory_of(run).rglob("*") if p.is_file()}
            outputs = [seen.locate(run, key) for key in run.outputs]
            found |= {path for path in outputs if path is not None and path.is_file()}
    return {path: sha256(path) for path in sorted(found) if path.suffix != ".lock"}


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_over(folder: Path) -> Iterator[Path]:
    """Temporary files below a folder."""
    for path in folder.rglob("*"):
        if path.name.endswith(".tmp") or path.name == "workspace.lock.json":
            yield path


def warm_up() -> None:
    """Import what the phases need, in this process, so that a fork has it."""
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for entry in cli.COMMANDS.values():
        importlib.import_module(entry.module)
    for path in sorted(Path(cli.__file__).parents[1].glob("phases/*.py")):
        importlib.import_module(f"sparsevit.phases.{path.stem}")
    assert threading.active_count() == 1, "a fork of a process with threads cannot be trusted"


def main(arguments: Sequence[str] | None = None) -> int:
    """The campaign; 1 where anything was not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="append", help="cases whose words contain this; repeat it")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--keep", action="store_true", help="keep the folders of faults")
    asked = parser.parse_args(arguments)
    os.environ.update({"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"})
    cases = [case for case in CASES if any(word in case.name for word in asked.only or [""])]
    warm_up()
    root = Path(tempfile.mkdtemp(prefix="sparsevit-kills-"))
    try:
        campaign = Campaign(root, cases, asked.keep)
        began = time.monotonic()
        campaign.prepare()
        found = campaign.run(asked.kills, asked.seed, asked.jobs, asked.seconds)
    finally:
        if not asked.keep:
            shutil.rmtree(root, ignore_errors=True)
    print(found.table())
    print(json.dumps({"seconds": round(time.monotonic() - began), "seed": asked.seed}))
    return int(found.faults > 0)


if __name__ == "__main__":
    sys.exit(main())
