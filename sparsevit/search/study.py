"""The Optuna study that holds a search: opening it, and telling whose it is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sparsevit.errors import UserError
from sparsevit.search.files import MEND, check_study_file, snapshot, study_file
from sparsevit.search.storage import shown_url, storage_url
from sparsevit.search.trial import (
    CONFIGURATION,
    ITERATION,
    LATENCY_MS,
    PREDICTED_MS,
    is_counted,
)

IDENTITY = "identity"
Direction = Literal["maximize", "minimize"]
Storage = str | os.PathLike[str] | BaseStorage

UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError),
)
"""What Optuna and we run into where a study's data are not what they must be."""

# Seconds to wait for another process (a dashboard, say) that holds the SQLite file.
_BUSY_SECONDS = 60
# A journal is locked for an instant; a lock that stays was left by a process that was killed.
_STALE_SECONDS = 5
# What several processes run into when they make the same tables at the same time.
_MAKE_ATTEMPTS = 5


def open_study(
    storage: Storage | None,
    name: str,
    *,
    directions: Sequence[Direction] = ("maximize",),
) -> Study:
    """Opens a study, or makes it where there is none of that name.

    Args:
        storage: a file (SQLite, or a journal where it ends in ``.log``; its folder is made), a URL
            (``sqlite:///``, ``journal:///``, ``postgresql://``, or what SQLAlchemy takes), an
            Optuna storage, or None to keep the study in memory.
        name: of the study in its storage.
        directions: one for each objective.

    Raises:
        UserError: the name has other than printable characters; the storage cannot be opened, or
            holds something else.
    """
    if not name.isprintable():
        raise UserError(
            f"The study's name {name!a} has characters that cannot be shown or stored.",
            "Give another one with --study.",
        )
    try:
        with reached(storage):
            study = _made(storage, name, directions)
            found = [direction.name.lower() for direction in study.directions]
    except (RuntimeError, *UNREADABLE) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"The study's storage {_named(storage)} cannot be opened: {reason}.",
            "Give a writable file, new or made by an earlier search, or the URL of a database that "
            "can be reached.",
        ) from error
    if found != list(directions):
        raise UserError(
            f"The study {name!r} in {_named(storage)} is of something else: its objectives are to "
            f"{', '.join(found)}, and here they are to {', '.join(directions)}.",
            "Give another name with --study, or another --storage.",
        )
    return study


@contextmanager
def reached(storage: Storage | None) -> Iterator[None]:
    """Within it, a storage that cannot be read or written is the user's to mend.

    Raises:
        UserError: in place of what the storage raised.
    """
    try:
        yield
    except ImportError as error:
        # Optuna has words of its own for a driver that is missing
        missing = error.name or getattr(error.__cause__, "name", None) or "a driver"
        raise UserError(
            f"The storage {_named(storage)} needs {missing}, which is not installed.",
            "Install it; for PostgreSQL: pip install 'sparsevit[postgres]'",
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, DBAPIError):
            cause = cause.__cause__
        reason = " ".join(str(getattr(cause, "orig", None) or error).split())
        remedy = (
            "Give a writable file, new or made by an earlier search, or the URL of a database that "
            "can be reached."
        )
        if "full" in reason:
            remedy = "Free some space; the same command goes on with it."
        elif "locked" in reason:
            remedy = "Wait until the program that holds it is done; the same command goes on."
        elif "malformed" in reason or "no such" in reason:
            remedy = MEND
        raise UserError(
            f"The study's storage {_named(storage)} cannot be used: {reason}.", remedy
        ) from error
    except OSError as error:
        raise UserError(
            f"The study's storage {_named(storage)} cannot be used: {error.strerror or error}.",
            "Check its permissions, and that there is free space.",
        ) from error


@contextmanager
def reading(storage: Storage) -> Iterator[BaseStorage]:
    """A storage to read: of a file a copy, as Optuna writes even where it only looks.

    Raises:
        UserError: it is not there, is not a study's, or cannot be read.
    """
    if isinstance(storage, BaseStorage):
        yield storage
        return
    with snapshot(storage) as url, reached(storage), quiet_optuna():
        try:
            opened = _opened(url, skip_table_creation=study_file(storage) is None)
        except (RuntimeError, *UNREADABLE) as error:
            raise UserError(
                f"The study's storage {_named(storage)} cannot be read: {error}.", MEND
            ) from error
        try:
            yield opened
        finally:
            if isinstance(opened, RDBStorage):
                opened.engine.dispose()


def _named(storage: Any) -> str:
    return shown_url(storage) if isinstance(storage, (str, os.PathLike)) else type(storage).__name__


def _made(
    storage: Storage | None,
    name: str,
    directions: Sequence[Direction],
) -> Study:
    for attempt in range(1, _MAKE_ATTEMPTS + 1):
        try:
            return optuna.create_study(
                storage=open_storage(storage),
                study_name=name,
                directions=list(directions),
                load_if_exists=True,
            )
        except (DBAPIError, StorageInternalError) as error:
            if attempt == _MAKE_ATTEMPTS or not _was_made_meanwhile(error):
                raise
            time.sleep(0.2 * attempt)
    raise AssertionError("the last attempt returns or raises")


def _was_made_meanwhile(error: BaseException) -> bool:
    text = str(error).lower()
    return "already exists" in text or "unique" in text or "duplicate key" in text


def open_storage(storage: Storage | None) -> BaseStorage | None:
    """An Optuna storage; see :func:`open_study`."""
    if storage is None or isinstance(storage, BaseStorage):
        return storage
    check_study_file(storage)
    return _opened(storage_url(storage))


def _opened(url: str, **how: Any) -> BaseStorage:
    kind, _, rest = url.partition("://")
    if kind == "postgresql":
        return RDBStorage(
            f"postgresql+psycopg://{rest}", engine_kwargs={"pool_pre_ping": True}, **how
        )
    if kind not in ("sqlite", "journal"):
        return RDBStorage(url, **how)
    path = Path(rest.removeprefix("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "journal":
        lock = JournalFileSymlinkLock(str(path), grace_period=_STALE_SECONDS)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}}, **how)


def claim_study(study: Study, identity: Mapping[str, Any]) -> None:
    """Makes sure that a study is of these inputs, so that no other search is gone on with.

    A study in which no candidate was measured yet takes the new inputs (so an interval that could
    not be met can be mended), and forgets what it measured to tell so.

    Args:
        identity: plain data (kept in the study's user attributes).

    Raises:
        UserError: naming the inputs that differ.
    """
    wanted = json.loads(json.dumps(dict(identity)))
    with damage_told(study):
        found = study.user_attrs.get(IDENTITY)
        trials = study.get_trials(deepcopy=False)
        if not isinstance(found or {}, dict) or not all(map(_is_of_a_search, trials)):
            raise ValueError
    if found == wanted:
        return
    if any(map(_is_measured, trials)):
        raise UserError(
            f"The study {study.study_name!r} was made with other inputs: "
            f"{_differences(found or {}, wanted)}.",
            "Use the same inputs to continue it, or begin another search with --force.",
        )
    for key in study.user_attrs if found is not None else ():
        if key.endswith("_ms"):
            study.set_user_attr(key, None)
    study.set_user_attr(IDENTITY, wanted)


@contextmanager
def damage_told(study: Study) -> Iterator[None]:
    """Within it, what is not as it must be in a study is the user's to mend.

    Raises:
        UserError: in place of what Optuna or we run into.
    """
    try:
        yield
    except UNREADABLE as error:
        raise UserError(
            f"The study {study.study_name!r} holds trials that are not a search's, or are damaged.",
            "Give another name with --study, or another --storage.",
        ) from error


def _is_of_a_search(trial: FrozenTrial) -> bool:
    # a search puts no trial in a queue: nobody would ever take it
    if not isinstance(trial.number, int) or trial.state == TrialState.WAITING:
        return False
    if not is_counted(trial):
        return True
    if trial.state == TrialState.COMPLETE and not trial.values:
        return False
    attrs = trial.user_attrs
    figures = [*(trial.values or ()), *(attrs.get(key, 0) for key in (LATENCY_MS, PREDICTED_MS))]
    return (
        isinstance(attrs.get(CONFIGURATION), dict)
        and isinstance(attrs.get(ITERATION), int)
        and all(isinstance(figure, (int, float)) for figure in figures)
    )


def _is_measured(trial: FrozenTrial) -> bool:
    return is_counted(trial) or bool({LATENCY_MS, PREDICTED_MS} & set(trial.user_attrs))


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> str:
    differences = []
    for key in {**found, **wanted}:
        was, now = found.get(key), wanted.get(key)
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            differences.append(_differences(was, now, f"{prefix}{key}."))
        else:
            differences.append(f"{prefix}{key} was {_short(was)}, now {_short(now)}")
    return "; ".join(differences)


def _short(value: Any, limit: int = 80) -> str:
    text = "not given" if value is None else json.dumps(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna's own log lines are kept off the terminal meanwhile: the search has its own."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
