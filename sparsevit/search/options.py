"""What a search is asked for: one object from the command line to the loop.

Nothing heavy is imported here, so that the command can show these defaults in its help.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from sparsevit.errors import UserError
from sparsevit.search.storage import shown_url

Budget = tuple[float, float]
"""A latency interval: (lowest, highest) milliseconds, both included."""

FRONT: Budget = (0.0, math.inf)
"""The interval of a search for the whole front."""

# Up to how much more than a speedup that is asked for as one number is searched.
_MORE = 1.1

_EVOLUTION, _NSGA2 = "evolution", "nsga2"


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options of a search.

    Attributes:
        max_ms, min_ms: the latency interval in milliseconds, both ends included.
        budgets: more intervals, or all of them: (lowest, highest) each.
        speedups: intervals by how many times as fast as the dense model a configuration is:
            (lowest, highest) each, or the lowest alone, the highest being a tenth more.
        dense_ms: latency of the dense model, by which speedups become milliseconds; where None, it
            is measured when the search begins, and kept with its study.
        pareto: search the whole latency-accuracy front in one study; intervals, if any, take their
            best from it.
        trials: stop when this many different configurations were scored, for each interval.
        max_candidates: stop when this many were drawn (10000 in the paper's script).
        sampler: one of :data:`sparsevit.search.samplers.SAMPLERS`; ``evolution`` where None, with
            ``pareto`` NSGA-II.
        population, parents, mutation_prob: of the evolution.
        metric: what to maximise; the headline metric of the task where None.
        eval_images: score on the first N images only; on all where None.
        halving: stop weak candidates after an eighth, a quarter or a half of the images.
        workers: processes that share the work on this machine; a CUDA device each, or a part of
            the CPU's threads.
        storage: file or URL of the studies, to share them with other machines. Where None, a
            phase keeps them in the run's own file, and the loop alone keeps nothing.
        study: name of the study in the storage; after the interval where None.
        scope: time the ``backbone``, as the paper does, or the whole model: ``detector``,
            ``segmentor``, ``bev-detector`` or ``classifier``.
        backend: what executes it while it is timed; a configuration is prepared anew in all but
            ``eager`` and ``compile``. Scores are of eager PyTorch in fp32, whatever is timed.
        img_size: (height, width) to time at; that of the config's test images where None.
        batch_size: images in a timed call.
        precision: to time in: ``fp32``, ``fp16`` or ``bf16``.
        device: where to run; CUDA if there is any where None.
        latency: of candidates: ``predicted`` by a calibration, ``measured`` one by one, or
            ``auto``; see :func:`sparsevit.phases.latency_source.latency_predictor`. The winner's is
            measured.
        latency_seconds: seconds to spend on timing a configuration.
        max_error: mean error of a calibration up to which it is used, as a share.
        seed: of the draws.

    Raises:
        UserError: no interval is given, one is empty or has one end only, or a count is below 1.
    """

    max_ms: float | None = None
    min_ms: float | None = None
    budgets: tuple[Budget, ...] = ()
    speedups: tuple[float | Budget, ...] = ()
    dense_ms: float | None = None
    pareto: bool = False
    trials: int = 10_000
    max_candidates: int = 10_000
    sampler: str | None = None
    population: int = 100
    parents: int = 25
    mutation_prob: float = 0.1
    metric: str | None = None
    eval_images: int | None = None
    halving: bool = False
    workers: int = 1
    storage: str | os.PathLike[str] | None = None
    study: str | None = None
    scope: str = "backbone"
    backend: str = "eager"
    img_size: tuple[int, int] | None = None
    batch_size: int = 4
    precision: str = "fp32"
    device: str | None = None
    latency: str = "auto"
    latency_seconds: float = 5.0
    max_error: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.min_ms is None) != (self.max_ms is None):
            missing, given = ("--min", "--max") if self.min_ms is None else ("--max", "--min")
            raise UserError(
                f"{given} is given without {missing}.",
                f"Missing option '{missing}': both ends of the interval are needed, in "
                "milliseconds.",
            )
        object.__setattr__(self, "speedups", tuple(_speedup(each) for each in self.speedups))
        for low, high in self.intervals:
            if not 0 <= low <= high < math.inf:
                raise UserError(
                    f"The latency interval from {low:g} to {high:g} ms is empty.",
                    "Give --min below --max, in milliseconds: "
                    "`sparsevit search --max 42 --min 37`.",
                )
        if not self.studies:
            raise UserError(
                "A search needs a latency interval.",
                "Give --speedup 1.8, or --min and --max in milliseconds, or --budget MIN:MAX, or "
                "--pareto.",
            )
        for name in ("trials", "max_candidates", "workers"):
            if getattr(self, name) < 1:
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} is {getattr(self, name)}.", f"Give {option} 1 or more.")

    @property
    def intervals(self) -> tuple[Budget, ...]:
        """Every interval that was asked for, in milliseconds, each once; those of speedups only
        where ``dense_ms`` is known."""
        return tuple(self._asked(self.dense_ms))

    def name_of(self, interval: Budget) -> str:
        """How an interval was asked for: ``37:42``, or ``1.6x:2x``."""
        return self._asked(self.dense_ms)[interval]

    def _asked(self, dense_ms: float | None) -> dict[Budget, str]:
        given = () if self.min_ms is None or self.max_ms is None else ((self.min_ms, self.max_ms),)
        asked = {(low, high): budget_text((low, high)) for low, high in (*given, *self.budgets)}
        if dense_ms is not None:
            for slow, fast in self._speedups:
                interval = dense_ms / fast, dense_ms / slow
                asked.setdefault(interval, speedup_text((slow, fast)))
        return asked

    @property
    def _speedups(self) -> tuple[Budget, ...]:
        return tuple(_speedup(each) for each in self.speedups)

    @property
    def searched(self) -> tuple[Budget, ...]:
        """The intervals that have a study each; the whole front has one for all."""
        return (FRONT,) if self.pareto else self.intervals

    @property
    def sampler_name(self) -> str:
        """The sampler that was asked for, or the usual one."""
        return self.sampler or (_NSGA2 if self.pareto else _EVOLUTION)

    @property
    def sampler_options(self) -> dict[str, Any]:
        """Arguments of the sampler's class beside the space and the seed."""
        if self.sampler_name != _EVOLUTION:
            return {}
        return {
            "population": self.population,
            "parents": self.parents,
            "mutation_prob": self.mutation_prob,
        }

    @property
    def studies(self) -> tuple[str, ...]:
        """The name of every study that is searched, in order."""
        if self.pareto:
            usual = ["front"]
        else:
            # what an interval is called does not depend on how long the dense model takes
            usual = [file_name(text) for text in self._asked(self.dense_ms or 1.0).values()]
        if self.study is None:
            return tuple(usual)
        return tuple(f"{self.study}-{name}" for name in usual) if len(usual) > 1 else (self.study,)

    def study_name(self, interval: Budget) -> str:
        """The name of an interval's study."""
        return self.studies[self.searched.index(interval)]

    def to_dict(self) -> dict[str, Any]:
        """What tells one search from another, as plain data: what the record of a run holds.

        Not how latency is timed, which the record holds as it was settled.
        """
        intervals = [list(interval) for interval in self._asked(None)]
        one = len(self.studies) == len(intervals) == 1 and not self.pareto
        return {
            "interval_ms": intervals[0] if one else None,
            "budgets": intervals,
            "pareto": self.pareto,
            "trials": self.trials,
            "max_candidates": self.max_candidates,
            "latency": self.latency,
            "max_error": self.max_error,
            "sampler": self.sampler_name,
            "seed": self.seed,
            **self.sampler_options,
            "metric": self.metric,
            "eval_images": self.eval_images,
            "halving": self.halving,
            "storage": None if self.storage is None else shown_url(self.storage),
            "study": self.study,
            # the records of searches without have no such name
            **({"speedups": [list(each) for each in self._speedups]} if self.speedups else {}),
        }


def budget_text(budget: Budget) -> str:
    """``37:42``: an interval as it is asked for."""
    return "{:g}:{:g}".format(*budget)


def speedup_text(speedup: Budget) -> str:
    """``1.6x:2x``: an interval of speedups as it is asked for."""
    return "{:g}x:{:g}x".format(*speedup)


def described(text: str) -> str:
    """``37:42 ms``, or ``1.6x:2x`` as it is."""
    return text if "x" in text.lower() else f"{text} ms"


def file_name(text: str) -> str:
    """``max42_min37`` or ``speedup1.6_2``: what was asked for in the names of studies and files."""
    if "x" in text:
        return "speedup" + text.replace("x", "").replace(":", "_")
    return budget_name(parse_budget(text))


def budget_name(budget: Budget) -> str:
    """``max42_min37``: an interval in the names of studies and files."""
    low, high = budget
    return f"max{high:g}_min{low:g}"


def parse_budget(text: str) -> Budget:
    """``37:42`` as an interval.

    Raises:
        UserError: it is none.
    """
    low, colon, high = text.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        found = math.nan, math.nan
    if not colon or not 0 <= found[0] <= found[1] < math.inf:
        raise UserError(
            f"{text!r} is not a latency interval.",
            "Give the lower and the upper end in milliseconds: --budget 37:42.",
        )
    return found


def parse_speedup(text: str) -> Budget:
    """``1.8`` or ``1.6:2.0``, each with an ``x`` behind it or without, as an interval of speedups.

    Raises:
        UserError: it is none.
    """
    low, colon, high = text.lower().replace("x", "").partition(":")
    try:
        return _speedup((float(low), float(high)) if colon else float(low))
    except ValueError:
        raise _no_speedup(text) from None


def canonical_budget(text: str) -> str:
    """An interval of either kind in the form in which it is recorded: ``37:42``, ``1.6x:2x``.

    Raises:
        UserError: it is none.
    """
    if "x" in text.lower():
        return speedup_text(parse_speedup(text))
    return budget_text(parse_budget(text))


def _speedup(given: Any) -> Budget:
    """A speedup or a pair of them as a pair."""
    low, high = given if isinstance(given, (tuple, list)) else (given, round(_MORE * given, 4))
    if not 1 <= low <= high < math.inf:
        raise _no_speedup(f"{low:g}:{high:g}" if isinstance(given, (tuple, list)) else f"{low:g}")
    return float(low), float(high)


def _no_speedup(text: str) -> UserError:
    return UserError(
        f"{text!r} is not a speedup.",
        "Give how many times as fast as the dense model, 1 or more: --speedup 1.8, or from and to: "
        "--speedup 1.6:2.0.",
    )
