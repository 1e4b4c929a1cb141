"""Studies: SQLite files and journals that are cut, corrupt, locked, foreign, or not there."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

from hostile import mutate
from hostile.case import FOUND, MAYBE, MISTAKE, SECRET, Case, Place

STUDY = "ws/search/run-001/study.db"
SMALL = (
    *("--min", "0", "--max", "10000", "--trials", "3", "--population", "2", "--parents", "2"),
    *("--latency-seconds", "0.01", "--max-candidates", "20"),
)
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("search", "--show", "--workspace", "ws"),
    ("search", "--resume", "--workspace", "ws", *SMALL),
    (
        "finetune",
        "--workspace",
        "ws",
        "--budget",
        "0:10000",
        "--force",
        "--set",
        "train_cfg.max_iters=1",
    ),
    ("status", "--workspace", "ws"),
    ("search", "--workspace", "ws", *SMALL),
    ("search", "--show", "--workspace", "ws", "--json"),
)
WRITES = ("new.db", "new.log", "new.log.lock")


def catalogue() -> list[Case]:
    cases = []
    for n, (name, spoil) in enumerate(files().items()):
        for step in (0, 1, 2 + n % 4):
            make = functools.partial(_spoiled, spoil, STUDY)
            words = COMMANDS[step % len(COMMANDS)]
            cases.append(Case(f"study.db {name}", words, make, MAYBE))
    for n, (name, spoil) in enumerate(files().items()):
        storage = ("sqlite:///x.db", "x.db", "sqlite:///{folder}/x.db")[n % 3]
        make = functools.partial(_foreign, spoil)
        for show in (True, False):
            options = ("--show",) if show else SMALL
            words = ("search", *options, "--workspace", "ws", "--storage", storage)
            ours = name not in FOREIGN
            writes = ("x.db", "x.db-journal") if ours and not show else ()
            codes = MAYBE if ours and not (show and name in EMPTY) else MISTAKE
            cases.append(Case(f"--storage {name}", words, make, codes, writes=writes))
    for n, (name, content) in enumerate(journals().items()):
        storage = ("journal:///x.log", "x.log", "journal:///{folder}/x.log")[n % 3]
        make = functools.partial(_journal, content)
        for show in (True, False):
            words = (
                "search",
                *(("--show",) if show else SMALL),
                "--workspace",
                "ws",
                "--storage",
                storage,
            )
            legal = name.startswith("?")
            cases.append(Case(f"--storage {name}", words, make, MAYBE if legal else MISTAKE,
                              writes=("x.log", "x.log.lock") if legal and not show else ()))  # fmt: skip
    for n, address in enumerate(ADDRESSES):
        for show in (True, False):
            if n % 2 and show:
                continue
            words = (
                "search",
                *(("--show",) if show else SMALL),
                "--workspace",
                "ws",
                "--storage",
                address,
            )
            # a folder that is missing is made, and of a database what follows ? is an option
            made = not show and ("nowhere/" in address or "x.db?nothing" in address)
            cases.append(Case(f"--storage {address[:50]!a}", words, None,
                              MAYBE if made else MISTAKE,
                              writes=("nowhere", "nowhere/*", "x.db") if made else ()))  # fmt: skip
    for name in (
        "",
        " ",
        "a" * 5000,
        "\x1b[31m",
        "\udcff",
        "a\nb",
        "'; DROP TABLE trials; --",
        "[bold]x",
        "²",
        "../x",
    ):
        words = (
            "search",
            "--workspace",
            "ws",
            *SMALL,
            "--storage",
            "sqlite:///new.db",
            "--study",
            name,
        )
        cases.append(Case(f"--study {name[:30]!a}", words, None, MAYBE, writes=WRITES))
    for name, make in records().items():
        for n in (0, 1, 2):
            cases.append(Case(f"study.db: {name}", COMMANDS[n], make, FOUND))
    for show in (True, False):
        words = (
            "search",
            *(("--show",) if show else SMALL),
            "--workspace",
            "ws",
            "--storage",
            "sqlite:///new.db",
        )
        cases.append(Case(f"a new storage, show: {show}", words, None, MISTAKE if show else MAYBE,
                          writes=() if show else WRITES))  # fmt: skip
    return cases


def mutation(rng: random.Random) -> Case:
    seed = rng.random()
    what = rng.choice(["bytes", "bytes", "table", "journal"])
    if what == "journal":
        words = ("search", "--show", "--workspace", "ws", "--storage", "x.log")
        return Case("a journal mutated", words, functools.partial(_mutated_journal, seed), MAYBE)
    make = functools.partial(_mutated, what, seed)
    return Case(f"study.db, {what} mutated", rng.choice(COMMANDS), make, FOUND)


# nothing in it: a new storage to a search, and nothing to show
EMPTY = ("empty", "missing", "an empty database")
# certainly not a study of ours: refused, and left as it is
FOREIGN = (
    *("text", "binary", "a header alone", "a header and zeros", "another program's database"),
    *("another program's database with a table studies", "another program's alembic", "a pickle"),
    *("noise after the header", "a folder", "a named pipe", "a link to itself", "locked"),
    *("an endless device", "a link to nothing"),
)


def _spoiled(spoil: Callable[[Path], object], name: str, place: Place) -> None:
    spoil(place.folder / name)


def _foreign(spoil: Callable[[Path], object], place: Place) -> None:
    path = place.folder / "x.db"
    path.write_bytes((place.fixture / STUDY).read_bytes())
    spoil(path)


def _journal(content: bytes | Callable[[Path], object], place: Place) -> None:
    path = place.folder / "x.log"
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)


def _sql(*statements: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return change


def _in_study(*statements: str) -> Callable[[Place], object]:
    return lambda place: _sql(*statements)(place.folder / STUDY)


def _fresh(*statements: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        path.unlink()
        _sql(*statements)(path)

    return change


def _locked(path: Path) -> None:
    """Somebody writes it, and goes on writing: the lock lives as long as this server."""
    held = sqlite3.connect(path, check_same_thread=False)
    held.execute("BEGIN EXCLUSIVE")
    _held.append(held)
    del _held[:-1]


_held: list[sqlite3.Connection] = []


def files() -> dict[str, Callable[[Path], object]]:
    """What may be in the place of a study's file, by name."""

    def write(content: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(content)

    def replace(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def change(path: Path) -> None:
            path.unlink()
            make(path)

        return change

    return {
        "empty": write(b""),
        "text": write(b"my notes\n" * 100),
        "binary": write(bytes(range(256)) * 50),
        "a header alone": write(b"SQLite format 3\x00"),
        "a header and zeros": write(b"SQLite format 3\x00" + bytes(5000)),
        "cut at 100": lambda path: path.write_bytes(path.read_bytes()[:100]),
        "cut at 4096": lambda path: path.write_bytes(path.read_bytes()[:4096]),
        "cut in the middle": lambda path: path.write_bytes(path.read_bytes()[:50_000]),
        "zeros in the middle": lambda path: path.write_bytes(
            path.read_bytes()[:40_000] + bytes(8192) + path.read_bytes()[48_192:]
        ),
        "noise in the middle": lambda path: path.write_bytes(
            path.read_bytes()[:20_000]
            + random.Random(0).randbytes(20_000)
            + path.read_bytes()[40_000:]
        ),
        "noise after the header": lambda path: path.write_bytes(
            path.read_bytes()[:100] + random.Random(0).randbytes(110_000)
        ),
        "a page size of 3": lambda path: path.write_bytes(
            path.read_bytes()[:16] + b"\x00\x03" + path.read_bytes()[18:]
        ),
        "an unknown format version": lambda path: path.write_bytes(
            path.read_bytes()[:18] + b"\x09\x09" + path.read_bytes()[20:]
        ),
        "an empty database": _fresh("PRAGMA user_version = 5"),
        "another program's database": _fresh(
            "CREATE TABLE photos (id INTEGER PRIMARY KEY, name TEXT)",
            "INSERT INTO photos VALUES (1, 'holiday')",
        ),
        "another program's database with a table studies": _fresh(
            "CREATE TABLE studies (id INTEGER, title TEXT)", "INSERT INTO studies VALUES (1, 'x')"
        ),
        "another program's alembic": _fresh(
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('abc')",
        ),
        "without trials": _sql("DROP TABLE trials"),
        "without studies": _sql("DROP TABLE studies"),
        "without version_info": _sql("DROP TABLE version_info"),
        "without trial_values": _sql("DROP TABLE trial_values"),
        "without user attributes": _sql("DROP TABLE trial_user_attributes"),
        "without study attributes": _sql("DROP TABLE study_user_attributes"),
        "without alembic": _sql("DROP TABLE alembic_version"),
        "of another alembic version": _sql("UPDATE alembic_version SET version_num = 'v99.0.a'"),
        "of another schema": _sql("UPDATE version_info SET schema_version = 99"),
        "of an old schema": _sql("UPDATE version_info SET schema_version = 1"),
        "without a study in it": _sql("DELETE FROM studies"),
        "of a study of another name": _sql("UPDATE studies SET study_name = 'other'"),
        "of a study named by an escape": _sql(
            "UPDATE studies SET study_name = char(27) || '[31mx'"
        ),
        "with a trigger": _sql(
            "CREATE TRIGGER t AFTER INSERT ON trials BEGIN SELECT RAISE(ABORT, 'no'); END"
        ),
        "with a view in place of trials": _sql(
            "ALTER TABLE trials RENAME TO t", "CREATE VIEW trials AS SELECT * FROM t"
        ),
        "with a column less": _sql("ALTER TABLE studies RENAME COLUMN study_name TO name"),
        "locked": _locked,
        "with a folder as its journal": lambda path: path.with_name(path.name + "-journal").mkdir(),
        "missing": replace(lambda path: None),
        "a folder": replace(lambda path: path.mkdir()),
        "a named pipe": replace(lambda path: os.mkfifo(path)),
        "a link to itself": replace(lambda path: path.symlink_to(path.name)),
        "a link to nothing": replace(lambda path: path.symlink_to("nowhere/x.db")),
        "an endless device": replace(lambda path: path.symlink_to("/dev/zero")),
        "a folder that is missing": lambda path: None if path.name == "x.db" else path.unlink(),
        "a pickle": write(b"\x80\x02cos\nsystem\nX\x0f\x00\x00\x00touch ../CANARY\x85R."),
    }


def records() -> dict[str, Callable[[Place], object]]:
    """Strange rows in a study, by name."""
    deep = "[" * 50_000 + "]" * 50_000
    found: dict[str, Callable[[Place], object]] = {}
    values = (
        *("null", "5", '"x"', "[]", "{}", "NaN", "1e999", "{x", "", '"\\ud800"'),
        *('"\\u001b[31m"', "-5"),
        *(deep, "9" * 5000, '{"a": null}', "true", '["x"]', '[{"a": 1}]'),
    )  # fmt: skip
    for n, value in enumerate(values):
        shown = value[:12]
        found[f"user attributes of trials {shown!a}"] = _bound(
            "UPDATE trial_user_attributes SET value_json = ?", value
        )
        found[f"user attributes of the study {shown!a}"] = _bound(
            "UPDATE study_user_attributes SET value_json = ?", value
        )
        if n % 2:
            found[f"system attributes {shown!a}"] = _bound(
                "UPDATE study_system_attributes SET value_json = ?", value
            )
            found[f"parameters {shown!a}"] = _bound(
                "UPDATE trial_params SET distribution_json = ?", value
            )
    for name, statement in {
        "values that are NULL": "UPDATE trial_values SET value = NULL",
        "values that are infinite": "UPDATE trial_values SET value = 9e999",
        "values that are text": "UPDATE trial_values SET value = 'x'",
        "value types that are unknown": "UPDATE trial_values SET value_type = 'X'",
        "no values": "DELETE FROM trial_values",
        "states that are unknown": "UPDATE trials SET state = 'DANCING'",
        "states that are RUNNING": "UPDATE trials SET state = 'RUNNING'",
        "states that are FAIL": "UPDATE trials SET state = 'FAIL'",
        "states that are WAITING": "UPDATE trials SET state = 'WAITING'",
        "numbers that are equal": "UPDATE trials SET number = 0",
        "numbers that are NULL": "UPDATE trials SET number = NULL",
        "numbers of twenty digits": "UPDATE trials SET number = 9223372036854775807",
        "dates that are text": "UPDATE trials SET datetime_start = 'x', datetime_complete = 'y'",
        "dates that are NULL": "UPDATE trials SET datetime_start = NULL",
        "no trials": "DELETE FROM trials",
        "no attributes of trials": "DELETE FROM trial_user_attributes",
        "no attributes of the study": "DELETE FROM study_user_attributes",
        "no directions": "DELETE FROM study_directions",
        "other directions": "UPDATE study_directions SET direction = 'MINIMIZE'",
        "unknown directions": "UPDATE study_directions SET direction = 'UP'",
        "trials of another study": "UPDATE trials SET study_id = 99",
        "keys that are escapes": "UPDATE trial_user_attributes SET key = char(27) || '[31m' || key",
    }.items():
        found[name] = _in_study(statement)
    return found


def _bound(statement: str, value: str) -> Callable[[Place], object]:
    def change(place: Place) -> None:
        with contextlib.closing(sqlite3.connect(place.folder / STUDY)) as database:
            database.execute(statement, (value,))
            database.commit()

    return change


def journals() -> dict[str, bytes | Callable[[Path], object]]:
    """What may be in the place of a journal, by name; ``?`` marks what may be legal."""
    create = json.dumps(
        {"op_code": 0, "worker_id": "x", "study_name": "other", "directions": [2]}
    ).encode()
    return {
        "?empty log": b"",
        "notes": b"2026-01-01 went for a walk\n" * 20,
        "notes in JSON": b'{"day": 1, "note": "x"}\n' * 20,
        "numbers": b"5\n6\n",
        "lists": b"[]\n[]\n",
        "null": b"null\n",
        "a log without its end": b"my notes",
        "binary": bytes(range(256)),
        "UTF-16": "{}\n".encode("utf-16"),
        "a line of a megabyte": b"x" * 2**20 + b"\n",
        "a deep line": b"[" * 100_000 + b"]" * 100_000 + b"\n",
        "5,000 digits": b'{"op_code": ' + b"9" * 5000 + b"}\n",
        "an unknown operation": b'{"op_code": 99, "worker_id": "x"}\n',
        "an operation of text": b'{"op_code": "x", "worker_id": "x"}\n',
        "?an operation on a missing study": b'{"op_code": 4, "worker_id": "x", "study_id": 7}\n',
        "an operation without its fields": b'{"op_code": 0}\n',
        "?another program's study": create + b"\n",
        "?a study and half a line": create + b"\n" + create[:20],
        "a study and notes": create + b"\nmy notes\n",
        "an escape": mutate.ESCAPE.encode() + b"\n",
        "SQLite": b"SQLite format 3\x00" + bytes(4000),
        "a log that is a folder": lambda path: path.mkdir(),
        "a log that is a named pipe": lambda path: os.mkfifo(path),
        "a log that is a link to itself": lambda path: path.symlink_to(path.name),
        "a log that is an endless device": lambda path: path.symlink_to("/dev/zero"),
        "?a log beside a stale lock": lambda path: (
            path.write_bytes(b""),
            path.with_name("x.log.lock").symlink_to("x.log"),
        ),
    }


ADDRESSES = (
    f"postgresql://me:{SECRET}@127.0.0.1:9/studies",
    f"postgresql://me:{SECRET}/x@127.0.0.1:9/studies",
    f"postgresql://me:a%2F{SECRET}@127.0.0.1:9/studies",
    f"postgresql://127.0.0.1:9/studies?user=me&password={SECRET}",
    f"postgresql://127.0.0.1:9/studies?passwd={SECRET}&x=1",
    f"postgresql+psycopg://me:{SECRET}@127.0.0.1:9/studies",
    f"postgresql+psycopg://me:{SECRET}@[::1]:9/studies",
    f"postgresql+nothing://me:{SECRET}@127.0.0.1:9/studies",
    f"postgresql://me:{SECRET}@nowhere.invalid/studies",
    f"postgresql://me:{SECRET}@@127.0.0.1:9/studies",
    f"postgresql://me:x@{SECRET}@127.0.0.1:9/studies",
    f"postgresql://:{SECRET}@127.0.0.1:9/studies",
    f"postgresql://me:{SECRET}@127.0.0.1:port/studies",
    f"postgresql://me:{SECRET}@127.0.0.1:99999999/studies",
    f"postgresql://me:{SECRET}@[::1/studies",
    f"postgresql://me:{SECRET}@",
    f"postgresql://me:{SECRET}",
    f"postgresql:me:{SECRET}@127.0.0.1/studies",
    f"mysql://me:{SECRET}@127.0.0.1:9/studies",
    f"mysql+pymysql://me:{SECRET}@127.0.0.1:9/studies",
    f"redis://:{SECRET}@127.0.0.1:9/0",
    f"mssql+pyodbc://me:{SECRET}@127.0.0.1/studies?driver=x",
    f"oracle://me:{SECRET}@127.0.0.1:9/x",
    f"nothing://me:{SECRET}@127.0.0.1/x",
    f"https://me:{SECRET}@127.0.0.1:9/x",
    f"sqlite://me:{SECRET}@host/x.db",
    f"sqlite:///nowhere/x.db?password={SECRET}",
    f"journal://me:{SECRET}@host/x.log",
    f"postgresql://me:{SECRET}@127.0.0.1:9/studies?sslmode=nothing",
    f"postgresql://me:{SECRET}@127.0.0.1:9/studies?application_name=\x1b[31m",
    f"postgresql://me:pa ss{SECRET}@127.0.0.1:9/studies",
    f"postgresql://me:{SECRET}#x@127.0.0.1:9/studies",
    f"postgresql://me:{SECRET}?x@127.0.0.1:9/studies",
    f"postgresql://me:[{SECRET}]@127.0.0.1:9/studies",
    *("sqlite:///nowhere/x.db", "sqlite:////", "sqlite://", "sqlite:///", "sqlite:///:memory:", ":memory:"),
    *("sqlite:///tiny.py", "sqlite:///ws", "sqlite:///ws/workspace.json", "notes.log", "notes.txt", "ws"),
    *("journal:///", "journal://", "journal:///nowhere/x.log", "journal:///tiny.py", "journal:///notes.log"),
    *("journal:///ws/workspace.json", "sqlite:///photos.json", "sqlite:///thesis.yaml", "thesis.yaml"),
    *("sqlite:///{folder}/private/key", "private/key", "", " ", "://", "x://", "//", "a" * 300, "\x1b[31m"),
    *("sqlite:///" + "a" * 300, "sqlite:///" + "a/" * 3000 + "x.db", "sqlite:///~nobody-of-this-name/x.db", "~nobody-of-this-name/x.db"),
    *("sqlite:////proc/x.db", "/dev/null", "sqlite:////dev/null", "/dev/full", "/dev/zero", "\udcff.db"),
    *("journal:////dev/null", "journal:////dev/full", "journal:////proc/x.log", "file:///etc/passwd", "-"),
    *("sqlite:///file:x.db?mode=ro&uri=true", "sqlite:///x.db?nothing=1", "sqlite+nothing:///x.db", "[bold]"),
    *("http://127.0.0.1:9/x", "s3://b/x", "memory://", "sqlite:///../outside/notes.txt", "tiny.py/x.db"),
)  # fmt: skip


def _mutated(what: str, seed: float, place: Place) -> None:
    rng = random.Random(seed)
    path = place.folder / STUDY
    if what == "bytes":
        path.write_bytes(mutate.raw(path.read_bytes(), rng)[0])
        return
    with contextlib.closing(sqlite3.connect(path)) as database:
        tables = [
            row[0]
            for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for _ in range(rng.choice([1, 2, 4])):
            table = rng.choice(tables)
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            value = mutate.value(rng)
            if not isinstance(value, (str, float, type(None))):
                value = json.dumps(value) if not isinstance(value, int) else value % 2**62
            with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):
                database.execute(f"UPDATE {table} SET {rng.choice(columns)} = ?", (value,))
        database.commit()


def _mutated_journal(seed: float, place: Place) -> None:
    rng = random.Random(seed)
    operations = [
        {"op_code": 0, "worker_id": "x", "study_name": "max10000_min0", "directions": [2]},
        {"op_code": 2, "worker_id": "x", "study_id": 0, "user_attr": {"a": 1}},
        {"op_code": 4, "worker_id": "x", "study_id": 0, "datetime_start": "2026-01-01T00:00:00"},
        {"op_code": 6, "worker_id": "x", "trial_id": 0, "state": 1, "values": [0.5]},
    ]
    lines = []
    for operation in operations:
        changed = mutate.document(operation, rng)[0] if rng.random() < 0.5 else operation
        with contextlib.suppress(ValueError):
            lines.append(json.dumps(changed))
    (place.folder / "x.log").write_text("\n".join(lines) + "\n")
