"""What is kept with a study beside its trials, and how trials compare."""

from __future__ import annotations

from optuna.study import Study

from sparsevit.search.trial import Trial

DENSE, SLOWEST, FASTEST = "dense", "slowest", "fastest"

_CONFIRMED = "confirmed_ms:"


def confirmations(study: Study) -> dict[int, float]:
    """Latencies measured again: trial number to milliseconds.

    Optuna takes no attribute for a trial that is finished, so the study keeps them; each by itself,
    so that no two workers overwrite each other's.
    """
    return {
        int(key.removeprefix(_CONFIRMED)): latency_ms
        for key, latency_ms in study.user_attrs.items()
        if key.startswith(_CONFIRMED) and latency_ms is not None
    }


def confirm(study: Study, number: int, latency_ms: float) -> float:
    """Keeps the latency that was measured again for a trial; gives the one that is kept.

    That is another's, where one was quicker.
    """
    known = confirmations(study).get(number)
    if known is not None:
        return known
    study.set_user_attr(f"{_CONFIRMED}{number}", latency_ms)
    return latency_ms


def rank(trial: Trial) -> tuple[float, float]:
    """Sorts scored trials: the higher score first; of equal ones the faster."""
    assert trial.score is not None
    assert trial.latency_ms is not None
    return -trial.score, trial.latency_ms
