"""A search as its study has it, without computing anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna
from optuna.storages import BaseStorage

from sparsevit.errors import UserError
from sparsevit.search.files import MEND
from sparsevit.search.front import Reference
from sparsevit.search.history import DENSE, FASTEST, confirm, confirmations, rank
from sparsevit.search.results import SearchResult
from sparsevit.search.storage import shown_url
from sparsevit.search.study import (
    IDENTITY,
    UNREADABLE,
    Storage,
    open_storage,
    quiet_optuna,
    reached,
    reading,
)
from sparsevit.search.trial import ITERATION, Trial, is_counted, read_trial
from sparsevit.sparsity import Configuration

_REFERENCES = "references"


def read_search(storage: Storage, study_name: str) -> SearchResult:
    """What a study holds of a search, finished or not.

    Raises:
        UserError: there is no such study.
    """
    with _study(storage, study_name) as study:
        return _read(study)


def _read(study: optuna.Study) -> SearchResult:
    attrs = study.user_attrs
    if IDENTITY not in attrs:
        raise UserError(
            f"Nothing was searched yet in the study {study.study_name!r}.",
            "Run the search first: `sparsevit search`.",
        )
    low, high = (float(end) for end in attrs[IDENTITY]["interval_ms"])
    found: dict[int, Trial] = {}
    known = confirmations(study)
    for frozen in study.get_trials(deepcopy=False):
        if is_counted(frozen) and ITERATION in frozen.user_attrs:
            found.setdefault(frozen.user_attrs[ITERATION], read_trial(frozen))
    trials = [found[iteration] for iteration in sorted(found)]
    return SearchResult(
        **_summed_up(trials, low, high, known),
        dense_ms=attrs.get(f"{DENSE}_ms") or float("nan"),
        fastest_ms=attrs.get(f"{FASTEST}_ms") or float("nan"),
        stopped="trials",
        seconds=0.0,
        resumed_from=len(trials),
    )


def keep_references(storage: Storage, study_name: str, references: list[Reference]) -> None:
    """Keeps with a study what it is compared with."""
    document = [
        {
            "name": each.name,
            "configuration": each.configuration.to_dict(),
            "latency_ms": each.latency_ms,
            "score": each.score,
        }
        for each in references
    ]
    _load(storage, study_name).set_user_attr(_REFERENCES, document)


def keep_confirmation(storage: Storage, study_name: str, trial: Trial, latency_ms: float) -> float:
    """Keeps the latency of a trial that was measured again; gives the one that is kept."""
    return confirm(_load(storage, study_name), trial.number, latency_ms)


def read_confirmations(storage: Storage, study_name: str) -> dict[int, float]:
    """Latencies that were measured again, by the number of the trial."""
    with _study(storage, study_name) as study:
        return confirmations(study)


def read_references(storage: Storage, study_name: str) -> list[Reference]:
    """What :func:`keep_references` kept; nothing where that was not done."""
    with _study(storage, study_name) as study:
        document: list[dict[str, Any]] = study.user_attrs.get(_REFERENCES) or []
        return [
            Reference(**{**entry, "configuration": Configuration(entry["configuration"])})
            for entry in document
        ]


def _best(trials: list[Trial], low: float, high: float) -> tuple[Trial | None, tuple[Trial, ...]]:
    missed: list[Trial] = []
    for trial in sorted((t for t in trials if t.state == "scored"), key=rank):
        if trial.confirmed_ms is None or low <= trial.confirmed_ms <= high:
            return trial, tuple(missed)
        missed.append(trial)
    return None, tuple(missed)


def within(
    result: SearchResult, low: float, high: float, measured: dict[int, float]
) -> SearchResult:
    """A search of a wider interval as one of a narrower.

    Args:
        result: of the wider.
        low, high: the narrower, in milliseconds.
        measured: latencies that were measured again, by trial.
    """
    inside = [
        trial
        for trial in result.trials
        if trial.latency_ms is not None and low <= trial.latency_ms <= high
    ]
    return replace(result, **_summed_up(inside, low, high, measured))


def _summed_up(
    trials: list[Trial], low: float, high: float, measured: dict[int, float]
) -> dict[str, Any]:
    """The fields of a result that follow from its trials and its interval."""
    different = [trial for trial in trials if trial.state != "duplicate"]
    drawn = len({trial.configuration for trial in trials})
    confirmed = [replace(trial, confirmed_ms=measured.get(trial.number)) for trial in different]
    best, missed = _best(confirmed, low, high)
    return {
        "best": best,
        "unconfirmed": missed,
        "trials": tuple(trials),
        "candidates": len(trials),
        "distinct": drawn,
        "same_network": drawn - len(different),
        "feasible": sum(trial.feasible for trial in different),
        "min_ms": low,
        "max_ms": high,
    }


def _load(storage: Storage, study_name: str) -> optuna.Study:
    with reached(storage), quiet_optuna():
        opened = open_storage(storage)
        assert opened is not None
        return _of_name(opened, study_name, storage)


@contextmanager
def _study(storage: Storage, study_name: str) -> Iterator[optuna.Study]:
    """A study to read; what is not as it must be in it is the user's to mend."""
    with reading(storage) as opened, quiet_optuna():
        try:
            yield _of_name(opened, study_name, storage)
        except UNREADABLE as error:
            raise UserError(
                f"The study {study_name!r} in {_shown(storage)} is not a search's, or is damaged: "
                f"{type(error).__name__} {error}.",
                MEND,
            ) from error


def _of_name(opened: BaseStorage, study_name: str, storage: Storage) -> optuna.Study:
    try:
        return optuna.load_study(study_name=study_name, storage=opened)
    except KeyError as error:
        raise UserError(
            f"There is no study {study_name!r} in {_shown(storage)}.",
            "Search first: `sparsevit search`.",
        ) from error


def _shown(storage: Storage) -> str:
    return "the storage" if isinstance(storage, BaseStorage) else shown_url(storage)
