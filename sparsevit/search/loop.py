"""The search: draw candidates, time them, score those within the latency interval, keep the best.

The study holds everything: killed at any moment and called again, the search goes on from there,
and nothing that was finished is measured or scored again. Any number of processes may work on one
study, and come to the trials that one would have come to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from sparsevit.errors import UserError
from sparsevit.search.candidates import Candidates, Draws, Limits
from sparsevit.search.halving import Halving
from sparsevit.search.history import DENSE, FASTEST, SLOWEST
from sparsevit.search.log import log_name
from sparsevit.search.plugged import PluggedSampler
from sparsevit.search.results import SearchResult
from sparsevit.search.samplers import Predict, SpaceSampler, make_sampler
from sparsevit.search.session import Measure, OnEvent, Problem, Score, Session, bounds
from sparsevit.search.study import Direction, claim_study, open_study, quiet_optuna
from sparsevit.search.workers import BEAT_SECONDS, Worker
from sparsevit.sparsity import Configuration, Space

# The form of what a study holds; one that was made with another form is not gone on with.
_STUDY_VERSION = 2


def search(
    space: Space,
    measure: Measure,
    score: Score,
    *,
    min_ms: float,
    max_ms: float,
    trials: int,
    predict: Predict | None = None,
    halving: Halving | None = None,
    front: bool = False,
    sampler: SpaceSampler | BaseSampler | str = "evolution",
    seed: int = 0,
    max_candidates: int = 10_000,
    storage: str | Path | BaseStorage | None = None,
    study_name: str | None = None,
    identity: Mapping[str, Any] | None = None,
    latencies: Mapping[Configuration, float] | None = None,
    log_path: str | Path | None = None,
    on_event: OnEvent | None = None,
    confirm_best: bool = True,
) -> SearchResult:
    """Searches for the best configuration whose latency lies within an interval.

    Called in several processes with the same arguments and one storage, they share the work; each
    returns when all of it is done.

    Args:
        space: what is searched.
        measure: latency of a configuration in milliseconds; called once for each different one
            that is drawn, for the dense and the sparsest one, and again for the winner.
        score: the higher the better; called once for each different candidate in the interval.
        min_ms: lower end of the interval, included.
        max_ms: upper end of the interval, included.
        trials: stop when that many different configurations were scored.
        predict: latency of a configuration in milliseconds without measuring it, always the same.
            Where given, candidates are not measured: whether one lies in the interval is what this
            says. The bounds are measured, and each new best before it is called so.
        halving: stops weak candidates after some of the images; it scores instead of ``score``.
        front: make the latency, the lower the better, a second objective of the study.
        sampler: ``evolution``, ``random``, one of :mod:`sparsevit.search.samplers` with options of
            its own, or any Optuna sampler (only ours go on identically after a kill, and only ours
            may be shared by several processes).
        seed: for a sampler given by name.
        max_candidates: stop when that many were drawn (the iterations of the paper's script).
        storage: see :func:`sparsevit.search.open_study`; None keeps nothing.
        study_name: ``max42_min37`` after the interval where left out.
        identity: plain data that tells this search from others (the checkpoint's digest, the image
            size, ...); a study that was made with another one is not gone on with.
        latencies: what is known to have been measured, by an earlier search for instance; all
            processes must know the same.
        log_path: where to write the log of the paper's form.
        on_event: is told the progress before and after every step.
        confirm_best: measure the winner again, and take the next best where it misses the interval.

    Raises:
        UserError: where an argument is wrong, the interval cannot be met on this device, or the
            study was made with other inputs.
    """
    _check_arguments(min_ms, max_ms, trials, max_candidates, front)
    if isinstance(sampler, str):
        sampler = make_sampler(sampler, space, seed, interval=(min_ms, max_ms), predict=predict)
    problem = Problem(space, measure, predict, score, min_ms, max_ms, halving, front)
    began = time.monotonic()
    with _session(
        problem,
        sampler,
        limits=(trials, max_candidates),
        storage=storage,
        study_name=study_name or default_study_name(min_ms, max_ms),
        identity=identity or {},
        log_path=None if log_path is None else Path(log_path),
        on_event=on_event,
        confirm_best=confirm_best,
    ) as session:
        for configuration, latency_ms in (latencies or {}).items():
            session.candidates.note_latency(configuration, latency_ms)
        dense_ms, fastest_ms = _check_interval(session)
        session.refresh()
        resumed_from = session.candidates.finished
        session.work()
        stopped = session.candidates.stopped()
        assert stopped is not None
        winner, unconfirmed = session.winner()
        session.tell("done")
        return SearchResult(
            best=winner,
            trials=tuple(session.candidates.trials()),
            candidates=session.candidates.finished,
            distinct=session.candidates.distinct,
            feasible=session.candidates.settled,
            unconfirmed=unconfirmed,
            min_ms=min_ms,
            max_ms=max_ms,
            dense_ms=dense_ms,
            fastest_ms=fastest_ms,
            stopped=stopped,
            seconds=time.monotonic() - began,
            resumed_from=resumed_from,
        )


def default_study_name(min_ms: float, max_ms: float) -> str:
    """``max42_min37``: what the study of an interval is called where nothing else is said."""
    return log_name(min_ms, max_ms).removeprefix("search_").removesuffix(".txt")


@contextmanager
def _session(
    problem: Problem,
    sampler: SpaceSampler | BaseSampler,
    *,
    limits: tuple[int, int],
    storage: str | Path | BaseStorage | None,
    study_name: str,
    identity: Mapping[str, Any],
    log_path: Path | None,
    on_event: OnEvent | None,
    confirm_best: bool,
) -> Iterator[Session]:
    directions: list[Direction] = ["maximize", "minimize"] if problem.front else ["maximize"]
    with quiet_optuna():
        study = open_study(storage, study_name, directions=directions)
        draws: Draws = (
            sampler
            if isinstance(sampler, SpaceSampler)
            else PluggedSampler(sampler, problem.space, directions)
        )
        claim_study(study, _identity(problem, draws, identity))
        candidates = Candidates(
            problem.space,
            draws,
            (problem.min_ms, problem.max_ms),
            Limits(*limits, distinct=problem.space.size()),
            None if problem.predict is None else problem.foretold,
        )
        with Worker(study, BEAT_SECONDS) as worker:
            yield Session(
                study, worker, problem, candidates, limits, log_path, on_event, confirm_best
            )


def _check_interval(session: Session) -> tuple[float, float]:
    """Measures the dense and the fastest; refuses an interval that lies outside of them."""
    space, problem = session.problem.space, session.problem
    ends = {DENSE: space.dense(), SLOWEST: space.min(), FASTEST: space.max()}

    def measured(configuration: Any) -> float:
        known = session.candidates.latency_of(configuration)
        if known is not None:
            return known
        session.tell("bounds", configuration)
        return problem.timed(configuration)

    session.candidates.update(session.study.get_trials(deepcopy=False))
    found = bounds(session.study, ends, measured)
    for name, configuration in ends.items():
        session.candidates.note_latency(configuration, found[name])
    dense_ms, slowest_ms, fastest_ms = found[DENSE], found[SLOWEST], found[FASTEST]
    require_reach((problem.min_ms, problem.max_ms), dense_ms, fastest_ms, slowest_ms)
    return dense_ms, fastest_ms


def require_reach(
    interval: tuple[float, float], dense_ms: float, fastest_ms: float, slowest_ms: float
) -> None:
    """Refuses an interval that lies outside of what a model can take.

    Args:
        interval: lowest and highest latency, milliseconds.
        dense_ms, fastest_ms, slowest_ms: of the dense model, and of the sparsest and the least
            sparse configuration of the space, milliseconds.

    Raises:
        UserError: no configuration can be expected within.
    """
    low, high = sorted((fastest_ms, slowest_ms))
    min_ms, max_ms = interval
    if max_ms < low or min_ms > high:
        raise UserError(
            f"No configuration can be expected within {min_ms:g} to {max_ms:g} ms here: the "
            f"sparsest takes {fastest_ms:.4g} ms, and the dense model {dense_ms:.4g} ms.",
            f"Choose an interval within {low:.4g} to {high:.4g} ms (--min, --max).",
        )


def _check_arguments(
    min_ms: float, max_ms: float, trials: int, max_candidates: int, front: bool
) -> None:
    ends_somewhere = math.isfinite(max_ms) or front
    if not (ends_somewhere and 0 <= min_ms <= max_ms):
        raise UserError(
            f"A latency interval of {min_ms:g} to {max_ms:g} ms.",
            "Give --min and --max in milliseconds, with the lower one as --min.",
        )
    if trials < 1 or max_candidates < 1:
        raise UserError(
            f"A search for {trials} trials among {max_candidates} candidates.",
            "Both are 1 or more.",
        )


def _identity(problem: Problem, sampler: Draws, extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": _STUDY_VERSION,
        "interval_ms": [problem.min_ms, str(problem.max_ms) if problem.front else problem.max_ms],
        "space": problem.space.to_dict(),
        "sampler": sampler.describe(),
        "latency": "measured" if problem.predict is None else "predicted",
        "halving": None if problem.halving is None else problem.halving.describe(),
        **dict(extra),
    }
