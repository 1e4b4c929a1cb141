"""A search as its study has it, without computing anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna

from sparsevit.errors import UserError
from sparsevit.search.front import Reference
from sparsevit.search.history import DENSE, FASTEST, confirm, confirmations, rank
from sparsevit.search.results import SearchResult
from sparsevit.search.study import IDENTITY, Storage, open_storage, quiet_optuna
from sparsevit.search.trial import ITERATION, Trial, is_counted, read_trial
from sparsevit.sparsity import Configuration

_REFERENCES = "references"


def read_search(storage: Storage, study_name: str) -> SearchResult:
    """What a study holds of a search, finished or not.

    Raises:
        UserError: there is no such study.
    """
    study = _load(storage, study_name)
    attrs = study.user_attrs
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
    return confirmations(_load(storage, study_name))


def read_references(storage: Storage, study_name: str) -> list[Reference]:
    """What :func:`keep_references` kept; nothing where that was not done."""
    document: list[dict[str, Any]] = _load(storage, study_name).user_attrs.get(_REFERENCES) or []
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
    try:
        with quiet_optuna():
            opened = open_storage(storage)
            assert opened is not None
            return optuna.load_study(study_name=study_name, storage=opened)
    except KeyError as error:
        raise UserError(
            f"There is no study {study_name!r} in {storage}.", "Search first: `sparsevit search`."
        ) from error
