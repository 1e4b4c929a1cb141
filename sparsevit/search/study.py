"""The Optuna study that holds a search: opening it, and telling whose it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from sparsevit.errors import UserError
from sparsevit.search.trial import LATENCY_MS, PREDICTED_MS, is_counted

IDENTITY = "identity"
# Seconds to wait for another process (a dashboard, say) that holds the SQLite file.
_BUSY_SECONDS = 60


def storage_url(storage: str | Path) -> str:
    """An SQLAlchemy URL: as it is where it is one, else SQLite's for that file."""
    text = str(storage)
    return text if "://" in text else f"sqlite:///{Path(text).absolute()}"


def open_study(
    storage: str | Path | BaseStorage | None,
    name: str,
    *,
    sampler: BaseSampler | None = None,
    directions: Sequence[Literal["maximize", "minimize"]] = ("maximize",),
) -> Study:
    """Opens a study, or makes it where there is none of that name.

    Args:
        storage: a file (SQLite; its folder is made), a database URL, an Optuna storage, or None to
            keep the study in memory.
        name: of the study in its storage.
        sampler: what draws its candidates.
        directions: one for each objective.

    Raises:
        UserError: where the storage cannot be opened, or holds something else.
    """
    try:
        return optuna.create_study(
            storage=_open_storage(storage),
            study_name=name,
            sampler=sampler,
            directions=list(directions),
            load_if_exists=True,
        )
    except (SQLAlchemyError, OSError, RuntimeError, ImportError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise UserError(
            f"The study's storage {storage} cannot be opened: {reason}.",
            "Give a file that can be written and that an earlier search made, or none yet.",
        ) from error


def _open_storage(storage: str | Path | BaseStorage | None) -> BaseStorage | None:
    if storage is None or isinstance(storage, BaseStorage):
        return storage
    url = storage_url(storage)
    if not url.startswith("sqlite:///"):
        return optuna.storages.RDBStorage(url)
    Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(
        url, engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}}
    )


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
    found = study.user_attrs.get(IDENTITY)
    if found == wanted:
        return
    if any(_is_measured(trial) for trial in study.get_trials(deepcopy=False)):
        raise UserError(
            f"The study {study.study_name!r} was made with other inputs: "
            f"{_differences(found or {}, wanted)}.",
            "Search with the same inputs to go on with it, or begin another one with --force.",
        )
    for key in study.user_attrs:
        study.set_user_attr(key, None)
    study.set_user_attr(IDENTITY, wanted)


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
