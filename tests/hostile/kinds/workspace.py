"""Workspaces: records that are damaged, files in them that are gone, changed or not files."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import mutate
from hostile.case import FOUND, MAYBE, MISTAKE, Case, Place

ITER = ("--set", "train_cfg.max_iters=1")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status", "--workspace", "ws"),
    ("status", "--workspace", "ws", "--json"),
    ("evaluate", "--workspace", "ws", "--eval-images", "1"),
    ("search", "--show", "--workspace", "ws"),
    ("export-config", "--workspace", "ws"),
    ("latency", "--workspace", "ws", "--img-size", "64", "--seconds", "0.01"),
    ("adapt", "--workspace", "ws", "--resume"),
    ("finetune", "--workspace", "ws", "--force", *ITER),
    ("adapt", "--workspace", "ws", *ITER),
    ("doctor", "--workspace", "ws"),
    ("data", "show", "--workspace", "ws", "-o", "out.png", "--images", "1"),
    ("finetune", "--workspace", "ws", "--budget", "0:10000", "--force", *ITER),
    (
        *("search", "--workspace", "ws", "--resume", "--min", "0", "--max", "10000"),
        *("--trials", "3"),
        *("--population", "2", "--parents", "2", "--latency-seconds", "0.01"),
    ),
    ("report", "--workspace", "ws", "--out", "out.html"),
)  # fmt: skip
RECORD = "ws/workspace.json"


def catalogue() -> list[Case]:
    cases = []
    for n, (name, change) in enumerate(records().items()):
        for step in (0, 5):
            make = functools.partial(_record, change)
            cases.append(_case(f"{name}", n + step, make))
    for n, (name, content) in enumerate(contents().items()):
        for step in (0, 6):
            make = functools.partial(_content, RECORD, content)
            cases.append(_case(f"workspace.json {name}", n + step, make))
    n = 0
    for path in FILES:
        for name, content in contents().items():
            n += 1
            if n % 3 and path not in FILES[:3]:
                continue
            make = functools.partial(_content, path, content)
            cases.append(_case(f"{path} {name}", n, make))
    for n, (name, make) in enumerate(layouts().items()):
        for step in (0, 4, 8):
            cases.append(_case(name, n + step, make))
    for n, folder in enumerate(
        (
            *("nowhere", "tiny.py", "tiny.py/x", "/dev/null", "/proc/x"),
            *("~nobody-of-this-name/x", "a" * 300),
            *("a/" * 3000, "x\x1b[31m", "\udcff", "private", "/proc", "link", "", " ", "-"),
            *("[bold]x",),
        )
    ):  # fmt: skip
        for command in (COMMANDS[0], COMMANDS[2], COMMANDS[7]):
            words = tuple(folder if word == "ws" else word for word in command)
            legal = command is COMMANDS[0] and folder in (
                "nowhere",
                "private",
                "/proc",
                "",
                " ",
                "-",
                "[bold]x",
            )
            codes = MAYBE if legal or folder == "" else MISTAKE
            cases.append(Case(f"--workspace {folder[:30]!a} {n}", words, _loop, codes))
    return cases


def _loop(place: Place) -> None:
    (place.folder / "link").symlink_to("link")


def mutation(rng: random.Random) -> Case:
    what = rng.choice(["record", "record", "record", "bytes", "file"])
    make = functools.partial(_mutated, what, rng.random())
    return _case(f"{what} mutated", rng.randrange(len(COMMANDS)), make, FOUND)


def _case(
    name: str, n: int, make: Callable[[Place], object], codes: frozenset[int] = MAYBE
) -> Case:
    words = COMMANDS[n % len(COMMANDS)]
    if words[0] == "doctor":
        codes = FOUND
    # a folder of data may be a link: what is missing is made where it leads
    writes = (
        "out.png",
        "out.html",
        *(("private/shapes-*",) if name.startswith("ws/data is a link") else ()),
    )
    return Case(f"{name}", words, make, codes, writes=writes)


def _document(place: Place) -> dict[str, Any]:
    return json.loads((place.fixture / RECORD).read_text())


def _record(change: Callable[[dict[str, Any]], Any], place: Place) -> None:
    document = _document(place)
    changed = change(document)
    (place.folder / RECORD).write_text(json.dumps(document if changed is None else changed))


def _content(path: str, content: bytes | Callable[[Path], object], place: Place) -> None:
    target = place.folder / path
    if isinstance(content, bytes):
        target.write_bytes(content)
        return
    target.unlink(missing_ok=True)
    content(target)


def _mutated(what: str, seed: float, place: Place) -> None:
    rng = random.Random(seed)
    path = place.folder / RECORD
    if what == "bytes":
        path.write_bytes(mutate.raw(path.read_bytes(), rng)[0])
    elif what == "file":
        name = rng.choice([f for f in FILES if (place.folder / f).is_file()])
        target = place.folder / name
        target.write_bytes(mutate.raw(target.read_bytes(), rng)[0])
    else:
        try:
            path.write_text(json.dumps(mutate.document(_document(place), rng)[0]))
        except ValueError:
            path.write_text("{")


FILES = (
    *("ws/pretrain/run-001/iter_4.pth", "ws/adapt/run-001/iter_4.pth", "ws/finetune/run-001/iter_2.pth"),
    *("ws/finetune/run-001/config.py", "ws/adapt/run-001/config.py", "ws/pretrain/run-001/config.py"),
    *("ws/adapt/run-001/training.py", "ws/adapt/run-001/last_checkpoint", "ws/best.yaml"),
    *("ws/search/run-001/best.yaml", "ws/search/run-001/latency.json", "ws/search/run-001/study.db"),
    *("ws/search/run-001/searched.py", "ws/search/run-001/search_max10000_min0.txt"),
    *("ws/search_max10000_min0.txt", "ws/workspace.lock", "ws/workspace.lock.json"),
    *("ws/search/run-001/config.py",),
)  # fmt: skip


def contents() -> dict[str, bytes | Callable[[Path], object]]:
    """What may be in the place of a file, by name."""
    return {
        "empty": b"",
        "text": b"hello\n",
        "binary": bytes(range(256)) * 20,
        "null": b"null",
        "a list": b"[]",
        "a number": b"5",
        "an empty object": b"{}",
        "cut": b'{"version": 1, "phases": {"pre',
        "UTF-16": "{}".encode("utf-16"),
        "100,000 deep": b"[" * 100_000 + b"]" * 100_000,
        "5,000 digits": b'{"version": ' + b"9" * 5000 + b"}",
        "an escape": mutate.ESCAPE.encode(),
        "a pickle": b"\x80\x02cos\nsystem\nX\x0f\x00\x00\x00touch ../CANARY\x85R.",
        "missing": lambda path: None,
        "a folder": lambda path: path.mkdir(),
        "a named pipe": lambda path: os.mkfifo(path),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to somebody's notes": lambda path: path.symlink_to(
            os.path.relpath(_case_folder(path) / "notes.txt", path.parent)
        ),
        "an endless device": lambda path: path.symlink_to("/dev/zero"),
    }


def _case_folder(path: Path) -> Path:
    return path.parents[len(path.parts) - 1 - path.parts.index("ws")]


def _run(phase: str, field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["phases"][phase]["runs"][-1][field] = value

    return change


def _all(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for entry in document["phases"].values():
            for run in entry["runs"]:
                run[field] = value

    return change


def _dropped(field: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for entry in document["phases"].values():
            for run in entry["runs"]:
                run.pop(field)

    return change


def records() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Changes of the record, by name."""
    changes: dict[str, Callable[[dict[str, Any]], Any]] = {}
    values: dict[str, tuple[Any, ...]] = {
        "seconds": (math.inf, -math.inf, math.nan, -1, 1e308, 10**400, "x", None, [], True, 10**20),
        "attempts": (math.inf, -1, 10**20, "x", None, 1.5, math.nan),
        "metrics": (
            *(None, [], "x", 5, mutate.deep_dict(500), mutate.deep_list(500), {"a": math.nan}),
            *({"after": 5}, {"after": {"dense": "x"}}, {"after": {"dense": {"bbox_mAP": "x"}}}),
            *({"after": {"dense": {"bbox_mAP": math.nan}}}, {"\x1b[31m": 1}, {"a": "\ud800"}),
            *({"loss": 10**400}, {"after": {"dense": {"bbox_mAP": 10**400}}}, {"a" * 10_000: 1}),
            *({"best": {}}, {"best": 5}, {"best": {"score": None}}, {"scored": math.inf}),
        ),
        "outputs": (
            *(None, [], "x", 5, {"checkpoint": None}, {"checkpoint": 5}, {"config": []}),
            *({"checkpoint": "../../../etc/passwd"}, {"checkpoint": "/etc/passwd"}, {}),
            *({"checkpoint": "a\x00b", "config": "a\x00b"}, {"checkpoint": "x" * 5000}),
            *({"checkpoint": "\ud800", "config": "\ud800"}, {"checkpoint": "."}),
            *({"checkpoint": mutate.ESCAPE, "config": mutate.ESCAPE}, {"best": "/dev/zero"}),
            *({"config": "notes.txt"}, {"best": 5}, {"study": "x"}),
        ),
        "inputs": (None, [], "x", 5, {}, {"config": 5}, {"checkpoint": []}, mutate.deep_dict(500)),
        "status": ("x", None, 5, [], "running", "interrupted", "failed", mutate.ESCAPE, ""),
        "error": (5, [], "x" * 100_000, mutate.ESCAPE, "\ud800", "a\n" * 500, {"a": 1}, "[/red]"),
        "started": (None, 5, "x", "9999-99-99", "", [], mutate.ESCAPE, "2026-01-01", math.nan),
        "ended": (5, "x", "0000-00-00T00:00:00", [], math.inf),
        "directory": (
            None,
            5,
            "",
            "/proc",
            "..",
            "../outside",
            "../private",
            "a\x00b",
            "x" * 5000,
            "notes.txt",
        ),
        "id": (None, 5, "", "../..", "run-²", "run-" + "9" * 5000, mutate.ESCAPE, "run-001\n", []),
        "phase": (None, 5, "x", "search", "../x", mutate.ESCAPE),
        "command": (None, 5, [], mutate.ESCAPE, "x" * 100_000),
        "versions": (None, 5, [], "x", {"torch": 5}, {mutate.ESCAPE: mutate.ESCAPE}),
        "git": (None, 5, [], "x", {"commit": 5}, {}),
        "pid": (None, "x", -1, 0, 1, 10**20, math.nan, []),
        "host": (None, 5, mutate.ESCAPE, []),
        "inputs_digest": (None, 5, "x", []),
    }
    phases = ("pretrain", "adapt", "search", "finetune")
    for field, options in values.items():
        changes[f"no {field}"] = _dropped(field)
        for n, value in enumerate(options):
            name = f"{field} {str(value)[:30]!a} {n}"
            changes[name] = _run(phases[n % 4], field, value) if n % 3 else _all(field, value)
    for value in (0, 2, 999, -1, "1", None, 1.5, [], math.nan, 10**20):
        changes[f"version {value!r}"] = functools.partial(_top, "version", value)
    for value in (None, [], {}, "x", 5, {"pretrain": None}, {"pretrain": []}, {"pretrain": {}}):
        changes[f"phases {value!r}"] = functools.partial(_top, "phases", value)
    for value in (
        {"pretrain": {"runs": None}},
        {"pretrain": {"runs": [None]}},
        {"x": {"runs": [{}]}},
    ):
        changes[f"phases {value!r}"] = functools.partial(_top, "phases", value)
    for value in (None, [], "x", 5, {"x": None}, {"x": {"sha256": 5}}, {"/etc/passwd": {}}):
        changes[f"digests {value!r}"] = functools.partial(_top, "digests", value)
    changes |= {
        "an unknown key": functools.partial(_top, "new", {"a": 1}),
        "a phase with an escape": lambda d: d["phases"].update(
            {mutate.ESCAPE: d["phases"]["adapt"]}
        ),
        "a phase upwards": lambda d: d["phases"].update({"../x": d["phases"]["adapt"]}),
        "an unknown phase": lambda d: d["phases"].update({"distil": d["phases"]["adapt"]}),
        "a run twice": lambda d: d["phases"]["adapt"]["runs"].append(
            d["phases"]["adapt"]["runs"][0]
        ),
        "an unknown field": _run("adapt", "new", 5),
        "5,000 runs": lambda d: d["phases"]["adapt"].update(
            runs=d["phases"]["adapt"]["runs"] * 5000
        ),
        "no runs": lambda d: d["phases"]["adapt"].update(runs=[]),
        "runs without adapt": lambda d: d["phases"].pop("adapt"),
        "runs without search": lambda d: d["phases"].pop("search"),
    }
    return changes


def _top(field: str, value: Any, document: dict[str, Any]) -> None:
    document[field] = value


def layouts() -> dict[str, Callable[[Place], object]]:
    """Folders that are gone, links, and in each other's place, by name."""

    def gone(name: str) -> Callable[[Place], object]:
        return lambda place: shutil.rmtree(place.folder / name)

    def filed(name: str) -> Callable[[Place], object]:
        def change(place: Place) -> None:
            shutil.rmtree(place.folder / name, ignore_errors=True)
            (place.folder / name).write_text("a file")

        return change

    def linked(name: str, target: str) -> Callable[[Place], object]:
        def change(place: Place) -> None:
            path = place.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            path.symlink_to(target)

        return change

    found: dict[str, Callable[[Place], object]] = {}
    for name in ("ws/pretrain", "ws/adapt", "ws/search", "ws/finetune", "ws/data", "ws/evaluations",
                 "ws/search/run-001", "ws/adapt/run-001", "ws/finetune/run-001"):  # fmt: skip
        found[f"{name} is gone"] = gone(name)
        found[f"{name} is a file"] = filed(name)
        found[f"{name} is a link to itself"] = linked(name, Path(name).name)
        found[f"{name} is a link elsewhere"] = linked(
            name, os.path.relpath("private", Path(name).parent)
        )
    found |= {
        "the workspace is a file": filed("ws"),
        "the workspace is a link to itself": linked("ws", "ws"),
        "the workspace is a link to a user's folder": linked("ws", "private"),
        "the workspace is empty": lambda p: (shutil.rmtree(p.workspace), p.workspace.mkdir()),
        "the record's temporary name is a link": lambda p: (
            p.workspace / ".workspace.json.tmp"
        ).symlink_to("../notes.txt"),
        "workspace.json.tmp is a folder": lambda p: (p.workspace / "workspace.json.tmp").mkdir(),
        "workspace.lock is a folder": lambda p: (
            (p.workspace / "workspace.lock").unlink(missing_ok=True),
            (p.workspace / "workspace.lock").mkdir(),
        ),
        "workspace.lock is a link to notes": linked("ws/workspace.lock", "../notes.txt"),
        "the lock's holder is strange": lambda p: (p.workspace / "workspace.lock.json").write_text(
            json.dumps({"pid": 10**20, "host": mutate.ESCAPE, "phase": mutate.ESCAPE, "command": 5})
        ),
        "the next run's folder is a file": lambda p: (p.workspace / "adapt/run-002").write_text(
            "x"
        ),
        "the next run's folder is a link": lambda p: (p.workspace / "adapt/run-002").symlink_to(
            "../../private"
        ),
        "a run of a huge number": lambda p: (p.workspace / "adapt" / ("run-" + "9" * 200)).mkdir(),
        "evaluations that are damaged": lambda p: [
            f.write_bytes(b"{") for f in (p.workspace / "evaluations").rglob("*.json")
        ],
        "evaluations of other types": lambda p: [
            f.write_text('{"metrics": 5}') for f in (p.workspace / "evaluations").rglob("*.json")
        ],
        "evaluations that are deep": lambda p: [
            f.write_text("[" * 100_000) for f in (p.workspace / "evaluations").rglob("*.json")
        ],
        "evaluations that are NaN": lambda p: [
            f.write_text('{"metrics": {"bbox_mAP": NaN}}')
            for f in (p.workspace / "evaluations").rglob("*.json")
        ],
        "the dataset's images are gone": lambda p: [
            f.unlink() for f in (p.workspace / "data").rglob("*.png")
        ],
        "the dataset's annotations are empty": lambda p: [
            f.write_text("") for f in (p.workspace / "data").rglob("instances_*.json")
        ],
        "the dataset's record is damaged": lambda p: [
            f.write_text("{") for f in (p.workspace / "data").rglob("dataset.json")
        ],
        "the dataset's record is gone": lambda p: [
            f.unlink() for f in (p.workspace / "data").rglob("dataset.json")
        ],
        "best.yaml of another model": lambda p: (p.workspace / "best.yaml").write_text(
            "sparsity: {encoder.layers.0: 0.5}\n"
        ),
        "the finetuned weights are those of pretrain": lambda p: shutil.copy(
            p.workspace / "pretrain/run-001/iter_4.pth", p.workspace / "finetune/run-001/iter_2.pth"
        ),
        "checkpoints swapped for pickles": lambda p: [
            f.write_bytes(b"\x80\x02cos\nsystem\nX\x0f\x00\x00\x00touch ../CANARY\x85R.")
            for f in p.workspace.rglob("*.pth")
        ],
    }
    return found
