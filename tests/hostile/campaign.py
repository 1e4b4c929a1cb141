"""Shares cases among processes, counts what was wrong, and prints a table."""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hostile.examine import PROBLEMS
from hostile.kinds import KINDS, kind_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# mmdet takes seconds to import transformers where it finds it
NOT_INSTALLED = ROOT / "tests" / "shared" / "not_installed"
STOPPED = "broken cases"
# a search that ends in a second, as in tests/shared/tiny.py
MAKE_FIXTURE = """
import sys, tiny
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "tiny.py").write_text(tiny.CONFIG, encoding="utf-8")
phases = (["pretrain", folder / "tiny.py"], ["adapt"], ["search", *tiny.SEARCH], ["finetune"],
          ["evaluate"])
for words in phases:
    done = tiny.run(*words, "--workspace", folder / "ws", "--json")
    assert done.code == 0, done.err
"""


def main() -> int:
    """Run the campaign; 1 where anything was wrong."""
    asked = _arguments()
    if asked.serve is not None:
        from hostile.server import serve

        serve(asked.fixture, asked.serve, asked.wall, asked.seed, asked.answers)
        return 0
    if asked.list:
        for name, _ in asked.kind:
            for index, case in enumerate(kind_of(name).catalogue):
                print(f"{name} {index}: {case.name}: {shlex.join(case.words)[:150]}")
        return 0
    chosen = _chosen(asked)
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as scratch:
        fixture = asked.fixture or make_fixture(Path(scratch))
        began = time.monotonic()
        outcomes = run_all(chosen, fixture, Path(scratch), asked)
        seconds = time.monotonic() - began
    for one in sorted(outcomes, key=lambda each: (each["kind"], each["index"])):
        if one["problems"] or len(chosen) == 1:
            show(one, asked)
    bad = table(outcomes, seconds)
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/hostile", description=__doc__)
    parser.add_argument(
        "--kind", action="append", type=_kind, metavar="KIND[=COUNT]", help="repeatable"
    )
    parser.add_argument("--case", type=int, action="append", help="these alone; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=0, help="cases a kind; 0: the whole catalogue")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--wall", type=float, default=20.0, help="seconds of waiting: it hangs")
    parser.add_argument("--fixture", type=Path, help="folder with tiny.py and a finished ws")
    parser.add_argument("--out", type=Path, help="add every outcome to this file, a line each")
    parser.add_argument("--list", action="store_true", help="list the catalogues")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.kind = asked.kind or [(name, 0) for name in KINDS]
    return asked


def _kind(words: str) -> tuple[str, int]:
    name, _, count = words.partition("=")
    if name not in KINDS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(KINDS)}")
    return name, int(count or 0)


def _chosen(asked: argparse.Namespace) -> list[tuple[str, int]]:
    """Which cases: those named, or of each kind a sample of its catalogue, then mutations."""
    chosen = []
    for name, wanted in asked.kind:
        if asked.case:
            chosen += [(name, index) for index in asked.case]
            continue
        known = len(kind_of(name).catalogue)
        count = wanted or asked.count or known
        rng = random.Random(f"{asked.seed}:{name}")
        # three quarters of a small sample are known attacks
        whole = count == known or count >= 2 * known
        few = min(known, count if whole else count * 3 // 4)
        chosen += [(name, index) for index in sorted(rng.sample(range(known), few))]
        chosen += [(name, known + index) for index in range(count - few)]
    return chosen


def make_fixture(scratch: Path) -> Path:
    """A workspace in which every phase ran once."""
    folder = scratch / "fixture"
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-c", MAKE_FIXTURE, str(folder)],
        check=True,
        env=_environment() | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'shared'}"},
        stdout=subprocess.DEVNULL,
    )
    return folder


def run_all(
    chosen: list[tuple[str, int]], fixture: Path, scratch: Path, asked: argparse.Namespace
) -> list[dict[str, Any]]:
    """The outcome of every case."""
    todo: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    # in another order, so that slow ones do not end up together
    for case in random.Random(0).sample(chosen, len(chosen)):
        todo.put(case)
    outcomes: list[dict[str, Any]] = []
    jobs = min(asked.jobs, len(chosen))
    workers = [
        threading.Thread(target=_work, args=(todo, outcomes, fixture, scratch / f"slot{n}", asked))
        for n in range(jobs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return outcomes


def _work(
    todo: queue.SimpleQueue[tuple[str, int]],
    outcomes: list[dict[str, Any]],
    fixture: Path,
    slot: Path,
    asked: argparse.Namespace,
) -> None:
    server = None
    while True:
        try:
            name, index = todo.get_nowait()
        except queue.Empty:
            break
        server = server or _Connection(fixture, slot, asked)
        outcome = server.ask(name, index)
        if outcome is None:
            problem = {STOPPED: f"the process that makes cases ended: {server.last_words()}"}
            case = {"name": "?", "words": [], "seconds": 0.0, "said": ""}
            outcome = {"kind": name, "index": index, "problems": problem, **case}
            server = None
        outcomes.append(outcome)
        if asked.out:
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(outcome) + "\n")
        if sys.stderr.isatty():
            print(f"\r{len(outcomes)} tried", end="", file=sys.stderr)
        elif len(outcomes) % 100 == 0:
            print(f"{len(outcomes)} tried", file=sys.stderr, flush=True)
    if server is not None:
        server.close()


class _Connection:
    def __init__(self, fixture: Path, slot: Path, asked: argparse.Namespace) -> None:
        slot.mkdir(exist_ok=True)
        self._log = slot / "server.log"
        reading, writing = os.pipe()
        words = [sys.executable, str(HERE), "--serve", str(slot), "--answers", str(writing)]
        words += ["--fixture", str(fixture), "--seed", str(asked.seed), "--wall", str(asked.wall)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                text=True,
                env=_environment(),
                cwd=slot,
            )
        os.close(writing)
        self._answers = os.fdopen(reading, encoding="utf-8")

    def ask(self, name: str, index: int) -> dict[str, Any] | None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{name} {index}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._answers.readline()
        return json.loads(line) if line else None

    def last_words(self) -> str:
        self._process.wait()
        return f"{self._process.returncode} {self._log.read_text(errors='replace')[-1000:]}"

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._answers.close()


def _environment() -> dict[str, str]:
    """That of a user who set nothing and has no transformers, with this checkout in reach."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPARSEVIT_", "COLUMNS"))}
    path = os.pathsep.join(map(str, (NOT_INSTALLED, ROOT)))
    return kept | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "10000", "PYTHONPATH": path}


# --- what is shown -------------------------------------------------------------------------------


def repeat(outcome: dict[str, Any], seed: int) -> str:
    """The command that runs this case alone."""
    kind, index = outcome["kind"], outcome["index"]
    return f"python tests/hostile --kind {kind} --case {index} --seed {seed}"


def show(outcome: dict[str, Any], asked: argparse.Namespace) -> None:
    print(f"{outcome['kind']} {outcome['index']}: {outcome['name']}")
    words = [word if len(word) < 200 else word[:100] + "..." for word in outcome["words"]]
    print(f"  sparsevit {shlex.join(words)}".replace("\x1b", "\\x1b"))
    for problem, what in outcome["problems"].items():
        print(f"  {problem}: {what}".replace("\x1b", "\\x1b"))
    print(f"  again: {repeat(outcome, asked.seed)}")
    if asked.case:
        print(f"  exit code {outcome.get('code')}, {outcome['seconds']} s; it said:")
        print(outcome.get("said", "").replace("\x1b", "\\x1b"))


def table(outcomes: list[dict[str, Any]], seconds: float) -> int:
    """Print counts by kind; the number of cases with anything wrong."""
    columns = ("tried", *PROBLEMS, STOPPED)
    rows: dict[str, Counter[str]] = {}
    for one in outcomes:
        row = rows.setdefault(one["kind"], Counter())
        row["tried"] += 1
        row.update(one["problems"].keys())
    rows = {name: rows[name] for name in KINDS if name in rows}
    rows["all"] = sum(rows.values(), Counter())
    print(f"{'':<14}" + "".join(f"{c.replace(' ', '-'):>{len(c) + 2}}" for c in columns))
    for name, row in rows.items():
        print(f"{name:<14}" + "".join(f"{row[c]:>{len(c) + 2}}" for c in columns))
    bad = sum(bool(one["problems"]) for one in outcomes)
    print(f"{len(outcomes)} cases in {seconds:.0f} s, {bad} with something wrong")
    return bad
