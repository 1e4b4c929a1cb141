"""What was wrong with how a command ended."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hostile.case import SECRET, Case, Place

TRACEBACK = "tracebacks"
WRONG_CODE = "wrong exit codes"
HANG = "hangs"
HARMED = "files harmed"
CODE_RUN = "code run"
SECRET_SHOWN = "secrets shown"
ESCAPES = "raw escapes"
NO_MESSAGE = "no message"
LEFT_OVER = "left over"
PROBLEMS = (
    *(TRACEBACK, WRONG_CODE, HANG, HARMED, CODE_RUN, SECRET_SHOWN, ESCAPES, NO_MESSAGE, LEFT_OVER),
)

SCREEN_LINES = 60
SCREEN_CHARACTERS = 8_000
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|This is a bug|Exception ignored in")
_RAW = re.compile("[\x00\x07\x08\x1b\x7f\x9b]")
_LOCKS = re.compile(r"(?:.*\.lock|\.dataset\.lock)$")
_TEMPORARY = re.compile(r".*(?:\.tmp|\.tmp\..*|~|-journal|-wal|-shm|\.lock\.json)$")
# what a run adds to its workspace, whatever becomes of it
_GROWING = (
    *(
        "workspace.json",
        "workspace.lock",
        "workspace.lock.json",
        "evaluations/*",
        "data/*",
        "*/run-[0-9]*/*",
    ),
    *("calibrations/*", "best.*", "best_*.yaml", "search_*.txt"),
)

Tree = Mapping[str, str]


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder, with what is there."""
    found: dict[str, str] = {}
    for top, folders, files in os.walk(folder):
        for name in (*files, *(f for f in folders if os.path.islink(os.path.join(top, f)))):
            path = os.path.join(top, name)
            found[os.path.relpath(path, folder)] = _content(path)
        for name in folders:
            found[os.path.relpath(os.path.join(top, name), folder) + "/"] = "folder"
    return found


def _content(path: str) -> str:
    try:
        kind = os.lstat(path).st_mode
        if stat.S_ISLNK(kind):
            return f"link {os.readlink(path)}"
        if not stat.S_ISREG(kind):
            return f"special {stat.S_IFMT(kind)}"
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    except OSError as error:
        return f"unreadable {error.errno}"


def finished_runs(folder: Path) -> dict[str, Any]:
    """The finished runs of a workspace, as its record has them."""
    try:
        path = folder / "workspace.json"
        if not stat.S_ISREG(path.stat().st_mode):
            return {}
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            f"{phase}/{run['id']}": run
            for phase, entry in document["phases"].items()
            for run in entry["runs"]
            if run["status"] == "finished"
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def problems(
    case: Case,
    place: Place,
    *,
    code: int | None,
    signal: int | None,
    hung: bool,
    out: bytes,
    err: bytes,
    before: Tree,
    runs_before: Mapping[str, Any],
    outside_harmed: list[str],
) -> dict[str, str]:
    """Each problem with a few words about it; empty where all is well."""
    found: dict[str, str] = {}
    said = (out + b"\n" + err).decode("utf-8", "replace")
    if hung:
        found[HANG] = "it did not end"
    if _TRACEBACK.search(said):
        found[TRACEBACK] = _last_words(said)
    if not hung and code not in case.codes:
        ended = f"signal {signal}" if signal else f"exit code {code}"
        found[WRONG_CODE] = f"{ended} instead of {'/'.join(map(str, sorted(case.codes)))}"
    if place.canary.exists():
        found[CODE_RUN] = "the payload ran"
    if SECRET in said:
        line = next((one for one in said.splitlines() if SECRET in one), "")
        found[SECRET_SHOWN] = line.strip()[:200]
    if not (case.env.get("FORCE_COLOR") or "").strip(" 0") and (raw := _RAW.search(said)):
        found[ESCAPES] = repr(said[max(0, raw.start() - 30) : raw.end() + 20])
    if code == 2 and not case.silent and (words := _unclear(out, err)):
        found[NO_MESSAGE] = words
    _files(case, place, code, before, runs_before, outside_harmed, found)
    return found


def _unclear(out: bytes, err: bytes) -> str:
    text = err.decode("utf-8", "replace")
    if "─ Error ─" not in text:
        return "exit code 2 and no error message"
    shown = text[text.index("─ Error ─") :]
    if shown.count("\n") > SCREEN_LINES or len(shown) > SCREEN_CHARACTERS:
        return f"a message of {shown.count(chr(10))} lines, {len(shown)} characters"
    return ""


def _files(
    case: Case,
    place: Place,
    code: int | None,
    before: Tree,
    runs_before: Mapping[str, Any],
    outside_harmed: list[str],
    found: dict[str, str],
) -> None:
    after = tree(place.folder)
    harmed = list(outside_harmed)
    left = []
    for path, content in before.items():
        if path in after and after[path] == content:
            continue
        if _may_change(path, case, runs_before):
            continue
        harmed.append(f"{'changed' if path in after else 'lost'} {path}")
    for path in after.keys() - before.keys():
        if _TEMPORARY.match(path):
            left.append(path)
        elif not _may_appear(path, case):
            harmed.append(f"new {path}")
        elif code == 2 and _written_but_refused(path):
            harmed.append(f"new though refused {path}")
    runs = finished_runs(place.workspace)
    for name, run in runs_before.items():
        if name not in runs and not (code == 0 and "--resume" in case.words):
            harmed.append(f"the record of {name} is no longer finished")
        elif name in runs and runs[name].get("outputs") != run.get("outputs") and code != 0:
            harmed.append(f"the record of {name} has other outputs")
    for path in after:
        whole = place.folder / path
        if before.get(path) == after[path] or not whole.is_file() or whole.is_symlink():
            continue
        if SECRET.encode() in whole.read_bytes():
            found[SECRET_SHOWN] = f"in {path}"
    if harmed:
        found[HARMED] = "; ".join(harmed[:4])
    if left:
        found[LEFT_OVER] = "; ".join(left[:4])


def _may_change(path: str, case: Case, runs_before: Mapping[str, Any]) -> bool:
    if any(fnmatch(path, pattern) for pattern in case.writes):
        return True
    inside = path.removeprefix("ws/")
    if inside == path:
        return False
    run = "/".join(inside.split("/")[:2])
    if run in runs_before:
        return "--resume" in case.words
    return any(fnmatch(inside, pattern) for pattern in _GROWING)


def _may_appear(path: str, case: Case) -> bool:
    if any(fnmatch(path, pattern) or path.startswith(pattern + "/") for pattern in case.writes):
        return True
    inside = path.removeprefix("ws/")
    if inside == path:
        return path == "ws/"
    return path.endswith("/") or any(fnmatch(inside, pattern) for pattern in _GROWING)


def _written_but_refused(path: str) -> bool:
    """Whether a result appeared though the command refused; runs in a workspace are recorded."""
    return "/" not in path and not _LOCKS.match(path)


def _last_words(said: str) -> str:
    lines = said.splitlines()
    at = max((n for n, line in enumerate(lines) if line.startswith("Traceback")), default=0)
    where = [line.strip() for line in lines[at:] if "/sparsevit/" in line and "File" in line]
    own = re.sub(r'File ".*/(sparsevit/.*)"', r"\1", where[-1]) if where else ""
    for line in lines[at + 1 :]:
        if line and not line.startswith((" ", "\t")):
            return f"{line.strip()[:160]} [{own}]"
    return lines[at][:160]
