"""The search: draw candidates, time them, score those within the latency interval, keep the best.

The study holds everything: killed at any moment and called again, the search goes on from there,
and nothing that was finished is measured or scored again. Any number of processes may work on one
study, and come to the trials that one would have come to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from sparsevit.errors import UserError
from sparsevit.search.candidates import Alike, Candidates, Draws, Limits
from sparsevit.search.halving import Halving
from sparsevit.search.history import DENSE, FASTEST, SLOWEST
from sparsevit.search.options import Budget, SearchOptions
from sparsevit.search.plugged import PluggedSampler
from sparsevit.search.results import SearchResult
from sparsevit.search.samplers import Predict, SpaceSampler, make_sampler
from sparsevit.search.samplers.feasible import SMALL_SPACE
from sparsevit.search.session import Measure, OnEvent, Problem, Score, Session, bounds
from sparsevit.search.study import Direction, claim_study, open_study, quiet_optuna, reached
from sparsevit.search.workers import BEAT_SECONDS, Worker
from sparsevit.sparsity import Configuration, Space

# The form of what a study holds; one that was made with another form is not gone on with.
_STUDY_VERSION = 2


def search(
    space: Space,
    measure: Measure,
    score: Score,
    options: SearchOptions,
    *,
    interval: Budget | None = None,
    predict: Predict | None = None,
    halving: Halving | None = None,
    sampler: SpaceSampler | BaseSampler | None = None,
    sensitivity: Mapping[Configuration, float] | None = None,
    storage: BaseStorage | None = None,
    identity: Mapping[str, Any] | None = None,
    latencies: Mapping[Configuration, float] | None = None,
    alike: Alike | None = None,
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
        options: when to stop, how candidates are drawn, and which study of which storage holds
            them. What they say of a model, its images and its timing is for the caller, who gives
            ``measure`` and ``score``.
        interval: which of ``options.searched`` to search; the first where None.
        predict: latency of a configuration in milliseconds without measuring it, always the same.
            Where given, candidates are not measured: whether one lies in the interval is what this
            says. The bounds are measured, and each new best before it is called so.
        halving: stops weak candidates after some of the images; it scores instead of ``score``.
        sampler: in place of the one that the options name: a sampler of ours with options of its
            own, or any Optuna sampler (only ours go on identically after a kill, and only ours may
            be shared by several processes).
        sensitivity: scores known beforehand, for a sampler that starts from them.
        storage: an Optuna storage in place of the options' file or URL; see
            :func:`sparsevit.search.study.open_study`.
        identity: plain data that tells this search from others (the checkpoint's digest, the image
            size, ...); a study that was made with another one is not gone on with.
        latencies: what is known to have been measured, by an earlier search for instance; all
            processes must know the same.
        alike: which configurations are the same network; each by itself where None. One that is the
            same as one before takes over what is known of that.
        log_path: where to write the log of the paper's form.
        on_event: is told the progress before and after every step.
        confirm_best: measure the winner again, and take the next best where it misses the interval.

    Raises:
        UserError: where the sampler cannot be made, the interval cannot be met on this device, or
            the study was made with other inputs.
    """
    options = with_dense(options, lambda: measure(space.dense()), storage)
    if options.dense_ms is not None:
        latencies = {**(latencies or {}), space.dense(): options.dense_ms}
    interval = options.searched[0] if interval is None else interval
    if sampler is None:
        sampler = make_sampler(
            options.sampler_name,
            space,
            options.seed,
            interval=None if options.pareto else interval,
            predict=predict,
            sensitivity=sensitivity,
            lag=options.workers - 1,
            **options.sampler_options,
        )
    problem = Problem(space, measure, predict, score, interval, options, halving)
    began = time.monotonic()
    directions = _directions(options)
    with quiet_optuna(), reached(storage or options.storage):
        study = open_study(
            storage or options.storage, options.study_name(interval), directions=directions
        )
        draws: Draws = (
            sampler
            if isinstance(sampler, SpaceSampler)
            else PluggedSampler(sampler, space, directions)
        )
        claim_study(study, _identity(problem, draws, identity or {}))
        candidates = Candidates(
            space,
            draws,
            interval,
            Limits(options.trials, options.max_candidates, distinct=_networks(space, alike)),
            None if predict is None else problem.foretold,
            alike,
        )
        for configuration, latency_ms in (latencies or {}).items():
            candidates.note_latency(configuration, latency_ms)
        log = None if log_path is None else Path(log_path)
        with Worker(study, BEAT_SECONDS) as worker:
            session = Session(study, worker, problem, candidates, log, on_event, confirm_best)
            dense_ms, fastest_ms = _check_interval(session)
            session.refresh()
            resumed_from = candidates.finished
            session.work()
            stopped = candidates.stopped()
            assert stopped is not None
            winner, unconfirmed = session.winner()
            session.tell("done")
    return SearchResult(
        best=winner,
        trials=tuple(candidates.trials()),
        candidates=candidates.finished,
        distinct=candidates.distinct,
        same_network=candidates.same_network,
        feasible=candidates.settled,
        unconfirmed=unconfirmed,
        min_ms=interval[0],
        max_ms=interval[1],
        dense_ms=dense_ms,
        fastest_ms=fastest_ms,
        stopped=stopped,
        seconds=time.monotonic() - began,
        resumed_from=resumed_from,
    )


def with_dense(
    options: SearchOptions,
    measure: Callable[[], float],
    storage: BaseStorage | None = None,
) -> SearchOptions:
    """Options whose speedups are intervals of milliseconds; others are returned as they are.

    A search that is gone on with keeps the intervals that it had: the latency of the dense model is
    taken from its first study, where it is known.

    Args:
        measure: latency of the dense model in milliseconds.
        storage: in place of the options'.
    """
    if not options.speedups or options.dense_ms is not None:
        return options
    with quiet_optuna():
        study = open_study(
            storage or options.storage, options.studies[0], directions=_directions(options)
        )
        name = f"{DENSE}_ms"
        if study.user_attrs.get(name) is None:
            study.set_user_attr(name, measure())
        # another machine's, where that was quicker
        return replace(options, dense_ms=study.user_attrs[name])


def _directions(options: SearchOptions) -> list[Direction]:
    return ["maximize", "minimize"] if options.pareto else ["maximize"]


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
    require_reach(problem.interval, dense_ms, fastest_ms, slowest_ms)
    return dense_ms, fastest_ms


def require_reach(interval: Budget, dense_ms: float, fastest_ms: float, slowest_ms: float) -> None:
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
            f"Choose an interval within {low:.4g} to {high:.4g} ms (--min, --max)"
            + (f", or a speedup up to {dense_ms / low:.3g} (--speedup)." if low > 0 else "."),
        )


def _networks(space: Space, alike: Alike | None) -> int:
    """How many different networks a space has, at most."""
    if alike is None or space.size() > SMALL_SPACE:
        return space.size()
    return len({alike.network(configuration) for configuration in space.every()})


def _identity(problem: Problem, sampler: Draws, extra: Mapping[str, Any]) -> dict[str, Any]:
    low, high = problem.interval
    return {
        "version": _STUDY_VERSION,
        "interval_ms": [low, str(high) if problem.options.pareto else high],
        "space": problem.space.to_dict(),
        "sampler": sampler.describe(),
        "latency": "measured" if problem.predict is None else "predicted",
        "halving": None if problem.halving is None else problem.halving.describe(),
        **dict(extra),
    }
