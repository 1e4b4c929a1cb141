"""Runs cases: one warm process, and a fork of it for each.

torch and mmdet take seconds to import, so they are imported once. Nothing is computed before a fork
and no thread is started, so that each copy is like a command that has just been started. Cases ask
with ``fresh`` for a new interpreter where that matters.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from hostile import examine
from hostile.case import CANARY_NAME, Case, Place
from hostile.kinds import kind_of

GIB = 1024**3
ADDRESS_SPACE = 6 * GIB
CPU_SECONDS = 120
FILE_SIZE = GIB // 2
SHOWN = 4_000
LAUNCHER = "import sys\nfrom sparsevit.cli.main import main\nsys.exit(main())\n"
WARM = (
    *("torch", "mmdet.apis", "mmdet.models", "mmdet.datasets", "mmdet.evaluation", "mmdet.engine"),
    *("mmdet.visualization", "optuna", "sqlalchemy", "matplotlib.figure", "safetensors", "yaml"),
    *("matplotlib.backends.backend_agg", "cv2", "PIL.Image", "pycocotools.mask", "rich.progress"),
    *(f"sparsevit.phases.{name}" for name in (
        *("pretrain", "adapt", "search", "finetune", "evaluate", "latency", "export", "status"),
        *("export_config", "sensitivity", "calibrate", "data", "doctor", "searching.show"),
        "report",
    )),
)  # fmt: skip


def serve(fixture: Path, slot: Path, wall: float, seed: int, answers: int) -> None:
    """Read ``kind index`` lines from stdin; write an outcome each to the descriptor ``answers``."""
    server = Server(fixture, slot, wall, seed)
    with os.fdopen(answers, "w", encoding="utf-8") as out:
        for line in sys.stdin:
            name, index = line.split()
            out.write(json.dumps(server.run(name, int(index))) + "\n")
            out.flush()


class Server:
    """Runs one case after another in ``slot``, a folder of its own."""

    def __init__(self, fixture: Path, slot: Path, wall: float, seed: int) -> None:
        self._wall, self._seed = wall, seed
        self._slot = slot
        self._place = Place(slot / "case", slot / CANARY_NAME, slot / "template")
        for name in ("home", "tmp", "outside"):
            (slot / name).mkdir(parents=True, exist_ok=True)
        (slot / "launcher.py").write_text(LAUNCHER, encoding="utf-8")
        os.environ.update(surroundings(slot))
        _template(fixture, slot / "template", self._place.folder)
        _somebody_elses(slot / "outside")
        self._outside = examine.tree(slot / "outside")
        for module in WARM:
            importlib.import_module(module)
        from sparsevit.cli.main import COMMANDS, load_command

        for name in COMMANDS:
            load_command(name)
        # a collection in a fork would copy the pages of all that was imported
        gc.collect()
        gc.freeze()
        assert len(os.listdir("/proc/self/task")) == 1 if os.path.isdir("/proc/self") else True

    def run(self, kind: str, index: int) -> dict[str, Any]:
        """The outcome of a case, as plain data."""
        case = kind_of(kind).case(index, self._seed)
        words = self._words(case)
        outcome: dict[str, Any] = {"kind": kind, "index": index, "name": case.name, "words": words}
        try:
            outcome.update(self._run(case, words))
        except Exception:
            # a case that cannot be made is a fault of the campaign, and is shown as one
            outcome.update(problems={"broken cases": traceback.format_exc()[-900:]}, seconds=0.0)
        return outcome

    def _run(self, case: Case, words: list[str]) -> dict[str, Any]:
        place = self._place
        self._clear()
        if case.workspace:
            shutil.copytree(place.fixture, place.folder, symlinks=True)
        else:
            place.folder.mkdir()
            shutil.copy(place.fixture / "tiny.py", place.folder)
        _somebody_elses(place.folder)
        before_cwd = os.getcwd()
        os.chdir(place.folder)
        try:
            if case.make is not None:
                case.make(place)
        finally:
            os.chdir(before_cwd)
        before = examine.tree(place.folder)
        runs = examine.finished_runs(place.workspace)
        began = time.monotonic()
        code, number, hung = self._process(case, words)
        seconds = time.monotonic() - began
        out, err = ((self._slot / name).read_bytes() for name in ("stdout", "stderr"))
        now = examine.tree(self._slot / "outside")
        harmed = [
            f"outside/{path}"
            for path in now.keys() | self._outside.keys()
            if now.get(path) != self._outside.get(path)
        ]
        if harmed:
            shutil.rmtree(self._slot / "outside")
            (self._slot / "outside").mkdir()
            _somebody_elses(self._slot / "outside")
        found = examine.problems(
            case,
            place,
            code=code,
            signal=number,
            hung=hung,
            out=out,
            err=err,
            before=before,
            runs_before=runs,
            outside_harmed=harmed,
        )
        return {
            "code": code,
            "problems": found,
            "seconds": round(seconds, 2),
            "said": (err[-SHOWN:] + b"\n" + out[-SHOWN:]).decode("utf-8", "replace"),
        }

    def _words(self, case: Case) -> list[str]:
        folder, canary = str(self._place.folder), str(self._place.canary)
        return [w.replace("{folder}", folder).replace("{canary}", canary) for w in case.words]

    def _clear(self) -> None:
        canary = self._place.canary
        if canary.is_dir() and not canary.is_symlink():
            shutil.rmtree(canary)
        canary.unlink(missing_ok=True)
        for name in ("case", "tmp"):
            folder = self._slot / name
            for top, folders, _ in os.walk(folder):
                for each in folders:
                    with contextlib.suppress(OSError):
                        os.chmod(os.path.join(top, each), 0o700)
            shutil.rmtree(folder, ignore_errors=True)
        (self._slot / "tmp").mkdir(exist_ok=True)

    # --- processes -------------------------------------------------------------------------------

    def _process(self, case: Case, words: list[str]) -> tuple[int | None, int | None, bool]:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self._be_the_command(case, words)
        hung = not _ends_within(child, self._wall)
        below = _below(child) if hung else ()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        for process in (child, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return None, number, hung or number == signal.SIGXCPU
        return os.WEXITSTATUS(status), None, hung

    def _be_the_command(self, case: Case, words: list[str]) -> NoReturn:
        code = 70
        try:
            os.setsid()
            os.chdir(self._place.folder)
            self._redirect()
            os.environ["PWD"] = str(self._place.folder)
            for name, value in case.env.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value.replace("{folder}", str(self._place.folder)).replace(
                        "{canary}", str(self._place.canary)
                    )
            _limits(case)
            if case.setup is not None:
                case.setup()
            if case.fresh:
                launcher = str(self._slot / "launcher.py")
                os.execv(sys.executable, [sys.executable, launcher, *words])
            code = _call_main(words)
        except BaseException:
            with contextlib.suppress(Exception):
                traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _redirect(self) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(self._slot / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, number)
            os.close(file)
        os.close(null)
        # the pipes of the server are not for commands
        os.closerange(3, 64)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, "r", closefd=False), encoding="utf-8")
        sys.stdout = _text(1, "strict")
        sys.stderr = _text(2, "backslashreplace")
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]


def surroundings(slot: Path) -> dict[str, str]:
    """Variables of every command."""
    return {
        "HOME": str(slot / "home"),
        "TMPDIR": str(slot / "tmp"),
        "MPLCONFIGDIR": str(slot / "home" / "matplotlib"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }


def _text(number: int, errors: str) -> io.TextIOWrapper:
    """A descriptor as Python's own streams have it."""
    raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
    return io.TextIOWrapper(raw, "utf-8", errors, line_buffering=number == 2)


def _call_main(words: list[str]) -> int:
    from sparsevit.cli import environment
    from sparsevit.cli.main import main

    # a new process does so as it starts
    environment.settle()
    sys.argv = ["sparsevit", *words]
    try:
        return main()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()


def _limits(case: Case) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))


def _ends_within(child: int, seconds: float) -> bool:
    """Whether a process ends before it has waited ``seconds`` without computing; it is not reaped.

    On a busy machine everything takes long, so time in which it or what it started computes
    does not count: that has a limit of its own.
    """
    idle, computed, until = 0.0, -1.0, time.monotonic() + 20 * seconds
    try:
        handle = os.pidfd_open(child)
    except (OSError, AttributeError):
        handle = None
    try:
        while idle < seconds and time.monotonic() < until:
            if _has_ended(child, handle, 1.0):
                return True
            now = _computed(child)
            if now is None or abs(now - computed) < 0.01:
                idle += 1.0
            computed = computed if now is None else now
        return False
    finally:
        if handle is not None:
            os.close(handle)


def _has_ended(child: int, handle: int | None, seconds: float) -> bool:
    if handle is not None:
        return bool(select.select([handle], [], [], seconds)[0])
    for _ in range(20):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(seconds / 20)
    return False


def _computed(child: int) -> float | None:
    """Seconds that a process and those below it have computed; None where the system does not say.

    Those that have ended do not count: it may go down.
    """
    if not os.path.isdir("/proc/self"):
        return None
    known = _processes()
    ticks = sum(known[each][1] for each in (child, *_below(child, known)) if each in known)
    return ticks / os.sysconf("SC_CLK_TCK")


def _below(child: int, known: dict[int, tuple[int, int]] | None = None) -> list[int]:
    """The processes that one has started, and those that they have."""
    known = _processes() if known is None else known
    found = [child]
    for one in found:
        found += [each for each, (parent, _) in known.items() if parent == one]
    return found[1:]


def _processes() -> dict[int, tuple[int, int]]:
    """All processes: parent, and ticks computed."""
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # after the name, which may hold anything: state, parent, ...
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            found[int(name)] = (int(fields[1]), sum(int(field) for field in fields[11:15]))
    return found


# --- files ---------------------------------------------------------------------------------------


def _template(fixture: Path, template: Path, folder: Path) -> None:
    """A copy of the finished workspace whose files name the folder in which cases find it.

    What no case needs, logs and checkpoints before the last, is left out.
    """
    shutil.rmtree(template, ignore_errors=True)
    shutil.copytree(fixture / "ws", template / "ws")
    shutil.copy(fixture / "tiny.py", template)
    for run in (template / "ws").glob("*/run-*"):
        last = sorted(run.glob("iter_*.pth"))[-1:]
        for path in set(run.glob("iter_*.pth")) - set(last):
            path.unlink()
        for path in (p for p in run.glob("20*") if p.is_dir()):
            shutil.rmtree(path)
    moved = {(fixture / "ws").resolve(): folder / "ws", fixture: folder}
    for path in (p for p in template.rglob("*") if p.is_file()):
        if path.suffix in (".pth", ".db"):
            continue
        data = path.read_bytes()
        for old, new in moved.items():
            data = data.replace(str(old).encode(), str(new).encode())
        path.write_bytes(data)


def _somebody_elses(folder: Path) -> None:
    """Files that are nobody's business here."""
    for name in ("notes.txt", "notes.log", "thesis.yaml", "photos.json", "x.yaml.tmp", "core"):
        (folder / name).write_text(f"mine: {name}\n" * 20, encoding="utf-8")
    (folder / "private").mkdir(exist_ok=True)
    (folder / "private" / "key").write_text("do not touch\n", encoding="utf-8")
