"""Calibrating a latency predictor: what to measure, for how long, and how far to believe it.

Knobs are measured one by one, all others at 0. Within a group ratios never fall, so a knob takes
those after it in its group along: what is measured are suffixes, and a knob's own share is the
difference between its suffix and the next knob's. Where a group is sparse at all its last knob is,
so what the group pays once (scoring its windows) is counted with the last knob.

A group may save a little more, or less, where the others are sparse too: caches hold what is left
of the maps. So what each group saves is scaled to fit random configurations, as far as they say so.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsevit.latency.predictor import Calibration, HeldOut, LatencyPredictor, Table
from sparsevit.latency.relative import Share
from sparsevit.latency.work_curve import Node, WorkCurve, fit_work_curve
from sparsevit.sparsity import Configuration, Space
from sparsevit.sparsity.sweep import sweep

MeasureShare = Callable[[Configuration, float], Share]
"""(configuration, seconds to spend) -> how long it takes beside dense."""

Work = Callable[[Configuration], float]
"""What is left to do at a configuration, in any unit."""

SECONDS = 600.0
HELD_OUT = 12
TUNING = 8
# By how much what a group saves may differ from what it saves alone, and a sum of groups from the
# latency of their configuration, as shares and as standard deviations.
_SCALE_SPREAD, _SUM_SPREAD = 0.1, 0.01
MAX_ERROR = 0.03


def draw_held_out(space: Space, count: int, seed: int) -> list[Configuration]:
    """Random configurations that are not in the sweep, as far as the space has so many.

    A space in which the sweep reaches everything, as with one knob, gives ones of the sweep.
    """
    taken = {space.dense(), *(point.configuration for point in sweep(space))}
    drawn: dict[Configuration, None] = {}
    again: dict[Configuration, None] = {}
    rng = random.Random(seed)
    for _ in range(100 * count):
        if len(drawn) == count:
            break
        configuration = space.sample(rng)
        if configuration not in taken:
            drawn[configuration] = None
        elif any(configuration.values()):
            again[configuration] = None
    return list(drawn or again)[:count]


class Plan:
    """What is measured, the most telling first.

    Args:
        space: of the model.
        work: what is left to do at a configuration. Points of a knob with the same work take the
            same time, so one of them is measured.
        held_out, seed: how many configurations to check with, and the seed of their draw.

    Attributes:
        required: of each knob the least and the most sparse and one between; then random ones.
        optional: the other points.
        held_out: the random configurations that predictions are checked with.
        tuning: those that knobs together are fitted to.
    """

    def __init__(self, space: Space, work: Work, held_out: int, seed: int) -> None:
        self.space = space
        self.points = sweep(space, of_earlier=True)
        self.work = {p.configuration: work(p.configuration) for p in self.points}
        drawn = draw_held_out(space, held_out + TUNING, seed)
        self.held_out, self.tuning = drawn[:held_out], drawn[held_out:]
        ends: list[Configuration] = []
        between: list[Configuration] = []
        for knob in space.names:
            different = self._different(knob)
            chosen = {0, (len(different) - 1) // 2, len(different) - 1}
            for index, configuration in enumerate(different):
                (ends if index in chosen else between).append(configuration)
        self.required = [*ends, *(c for c in drawn if c not in ends)]
        self.optional = [c for c in between if c not in drawn]

    def _different(self, knob: str) -> list[Configuration]:
        """The knob's points, one for each amount of work."""
        by_work: dict[float, Configuration] = {}
        for point in self.points:
            if point.knob == knob:
                by_work.setdefault(self.work[point.configuration], point.configuration)
        return list(by_work.values())

    def __contains__(self, configuration: object) -> bool:
        return configuration in self.required or configuration in self.optional

    def __len__(self) -> int:
        return len(self.required) + len(self.optional)


def measure_plan(
    plan: Plan,
    measure: MeasureShare,
    *,
    seconds: float,
    known: Mapping[Configuration, Share] | None = None,
    on_share: Callable[[Configuration, Share], Any] = lambda configuration, share: None,
) -> dict[Configuration, Share]:
    """Measure what is planned: all that is required, and the rest while the time lasts.

    Args:
        plan: what to measure.
        measure: measures one configuration.
        seconds: time to spend, with that of ``known``.
        known: what an earlier attempt measured.
        on_share: is told each measurement.
    """
    done = dict(known or {})
    spent = sum(share.seconds for share in done.values())
    left = [c for c in (*plan.required, *plan.optional) if c not in done]
    while left:
        configuration = left.pop(0)
        needs = statistics.fmean(share.seconds for share in done.values()) if done else 0.0
        if configuration in plan.optional and spent + needs > seconds:
            break
        share = measure(configuration, max(0.0, seconds - spent) / (len(left) + 1))
        done[configuration] = share
        spent += share.seconds
        on_share(configuration, share)
    return done


def calibrate(
    plan: Plan,
    shares: Mapping[Configuration, Share],
    *,
    key: Mapping[str, Any],
    limit: float = MAX_ERROR,
    made: str = "",
) -> Calibration:
    """Fit the tables to what was measured, and check them on the held-out configurations.

    Args:
        plan: what was to be measured.
        shares: what was measured, all that the plan requires at least.
        key: what it holds for.
        limit: mean error up to which predictions are accepted, as a share.
        made: when, for the record.
    """
    dense_ms = statistics.median(share.dense_ms for share in shares.values())
    shares = _pooled(shares)
    tables = _tuned(plan, shares, _tables(plan, shares, dense_ms), dense_ms)
    used = ({point.configuration for point in plan.points} | set(plan.tuning)) & set(shares)
    calibration = Calibration(
        key=dict(key),
        dense_ms=dense_ms,
        tables=tables,
        held_out=(),
        mean_error=0.0,
        max_error=0.0,
        limit=limit,
        measured=len(used),
        seconds=sum(share.seconds for share in shares.values()),
        made=made,
    )
    predictor = LatencyPredictor(calibration)
    held_out = tuple(
        HeldOut(
            configuration=configuration,
            predicted_ms=predictor.predict(configuration),
            measured_ms=shares[configuration].share * dense_ms,
            standard_error_ms=shares[configuration].standard_error * dense_ms,
        )
        for configuration in plan.held_out
    )
    # a model that can only be dense leaves nothing to be wrong about
    errors = [each.error for each in held_out] or [0.0]
    return Calibration(
        **{
            **vars(calibration),
            "held_out": held_out,
            "mean_error": statistics.fmean(errors),
            "max_error": max(errors),
        }
    )


def _tables(plan: Plan, shares: Mapping[Configuration, Share], dense_ms: float) -> dict[str, Table]:
    swept = dict.fromkeys(point.knob for point in plan.points)
    curves = {knob: _work_curve(plan, shares, knob) for knob in swept}
    change = {
        (point.knob, point.ratio): curves[point.knob].at(plan.work[point.configuration])
        for point in plan.points
    }
    tables: dict[str, Table] = {}
    for members in plan.space.groups.values():
        names = [knob.name for knob in members]
        for name, following in zip(names, [*names[1:], None], strict=True):
            rows = [
                (ratio, (value - change.get((following or "", ratio), 0.0)) * dense_ms)
                for (knob, ratio), value in change.items()
                if knob == name
            ]
            tables[name] = ((0.0, 0.0), *rows)
    return tables


def _pooled(
    shares: Mapping[Configuration, Share],
) -> dict[Configuration, Share]:
    """With standard errors that are not below what the spread of all samples says.

    Sampling stops once a standard error is small, and it is small too soon where few samples happen
    to agree.
    """
    spread = math.sqrt(
        statistics.fmean(share.standard_error**2 * share.turns for share in shares.values())
    )
    return {
        configuration: replace(
            share, standard_error=max(share.standard_error, spread / math.sqrt(share.turns))
        )
        for configuration, share in shares.items()
    }


def _tuned(
    plan: Plan,
    shares: Mapping[Configuration, Share],
    tables: dict[str, Table],
    dense_ms: float,
) -> dict[str, Table]:
    """The tables, each group's times a factor: least squares with a prior around 1 (ridge)."""
    changes = {name: dict(table) for name, table in tables.items()}
    groups = [[knob.name for knob in members] for members in plan.space.groups.values()]
    if len(groups) == 1 or not plan.tuning:
        return tables
    rows, aims = [], []
    for configuration in plan.tuning:
        share = shares[configuration]
        weight = 1 / (math.hypot(share.standard_error, _SUM_SPREAD) * dense_ms)
        saved = [sum(changes[n][configuration[n]] for n in names) for names in groups]
        rows.append([weight * change for change in saved])
        aims.append(weight * ((share.share - 1) * dense_ms - sum(saved)))
    rows += (np.eye(len(groups)) / _SCALE_SPREAD).tolist()
    aims += [0.0] * len(groups)
    more, *_ = np.linalg.lstsq(np.array(rows), np.array(aims), rcond=None)
    factors = {
        name: 1 + float(extra) for names, extra in zip(groups, more, strict=True) for name in names
    }
    return {
        name: tuple((ratio, factors[name] * change) for ratio, change in table)
        for name, table in tables.items()
    }


def _work_curve(plan: Plan, shares: Mapping[Configuration, Share], knob: str) -> WorkCurve:
    measured: Sequence[Configuration] = [
        point.configuration
        for point in plan.points
        if point.knob == knob and point.configuration in shares
    ]
    return fit_work_curve(
        [Node(plan.work[c], shares[c].share - 1, shares[c].standard_error) for c in measured]
    )
