"""Samplers compared on the table of ``search_table.py``: best score against scored trials.

python benchmarks/search.py                                  # benchmarks/results/search.json
python benchmarks/search.py --live WORKSPACE --trials 20     # and the table against the model

Every sampler draws as in `sparsevit search`; the score and the latency of what it draws are looked
up. A trial is a configuration that was scored: what lies outside the interval, and what is drawn
again, is none. WORKSPACE is the one of which the table was made.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_table import BATCH_SIZE, Demo
from shared.demo_space import IMG_SIZE, SPACE, kept
from shared.demo_table import Table
from shared.record import RESULTS, account, write

from sparsevit.engine.evaluation import Evaluation
from sparsevit.latency.execution import Execution
from sparsevit.latency.timer import measure
from sparsevit.latency.workload import Workload
from sparsevit.search.loop import search
from sparsevit.search.options import SearchOptions
from sparsevit.search.samplers import make_sampler
from sparsevit.search.seen import Seen
from sparsevit.sparsity import Configuration

TABLE = RESULTS / "search_table.csv"
# Ends of the latency intervals, between the sparsest (0) and the dense model (1).
INTERVALS = {"25 to 45 %": (0.25, 0.45), "50 to 70 %": (0.50, 0.70)}
TRIALS = 200
MOST_CANDIDATES = 10_000
REFERENCE, OURS = "evolution", "guided"
AT = (10, 20, 40, 100, 200)
RESAMPLES = 10_000


@dataclass(frozen=True)
class Contender:
    """A sampler and its options; with ``told`` the latencies are predicted, all rightly."""

    sampler: str
    options: Mapping[str, Any]
    told: bool = False


CONTENDERS = {
    "random": Contender("random", {}),
    REFERENCE: Contender("evolution", {}),
    "evolution, population 20": Contender("evolution", {"population": 20, "parents": 5}),
    "tpe": Contender("tpe", {}),
    "nsga2": Contender("nsga2", {}),
    OURS: Contender("guided", {}),
    "guided, latency predicted": Contender("guided", {}, told=True),
    "guided, latency and windows": Contender("guided", {"effect": kept}, told=True),
}
COMPARED = (
    (REFERENCE, "random"),
    ("evolution, population 20", "random"),
    ("tpe", REFERENCE),
    (OURS, REFERENCE),
    (OURS, "evolution, population 20"),
    ("guided, latency predicted", REFERENCE),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="searches of each sampler")
    parser.add_argument("--live", type=Path, metavar="WORKSPACE", help="search the model itself")
    parser.add_argument("--trials", type=int, default=20, help="scored trials of that search")
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()
    began = time.perf_counter()
    path = Path(arguments.output or RESULTS / "search.json")
    if arguments.live:
        result = json.loads(path.read_text())
        result["live"] = live(arguments.live, arguments.trials)
        return write("search", result, arguments.output)
    intervals = {name: compare(name, arguments.seeds) for name in INTERVALS}
    table = json.loads(TABLE.with_suffix(".json").read_text())
    result = {
        **account(),
        "command": f"python benchmarks/search.py --seeds {arguments.seeds}",
        "checkpoint": table["checkpoint"],
        "networks": table["networks"],
        "networks_of_the_space": table["networks_of_the_space"],
        "seeds": arguments.seeds,
        "trials": TRIALS,
        "seconds": round(time.perf_counter() - began, 1),
        "intervals": intervals,
    }
    write("search", result, arguments.output)


# --- the comparison ----------------------------------------------------------------------------


def compare(interval: str, seeds: int) -> dict[str, Any]:
    """Every contender in one interval."""
    jobs = list(product(CONTENDERS, range(seeds), [interval]))
    with ProcessPoolExecutor(
        os.cpu_count(), initializer=torch.set_num_threads, initargs=[1]
    ) as pool:
        runs = list(pool.map(improvements, *zip(*jobs, strict=True), chunksize=1))
    table = the_table()
    bounds = table.interval(*INTERVALS[interval])
    inside = table.within(bounds)
    scores = sorted((table.score(c) for c in inside), reverse=True)
    steps = {
        name: [run for (which, _, _), run in zip(jobs, runs, strict=True) if which == name]
        for name in CONTENDERS
    }
    curves = {name: np.array([curve(run) for run in found]) for name, found in steps.items()}
    print(f"{interval}: {len(inside)} configurations, best {scores[0]:.1f}")
    return {
        "interval_ms": bounds,
        "configurations": len(inside),
        "networks": len({table.kept[c] for c in inside}),
        "best": scores[0],
        "configurations_with_the_best": scores.count(scores[0]),
        "median": statistics.median(scores),
        "samplers": {name: summary(curves[name], steps[name]) for name in CONTENDERS},
        "differences": {
            f"{one} - {other}": {str(at): difference(curves[one], curves[other], at) for at in AT}
            for one, other in COMPARED
        },
        "to_reach_the_reference": reach(curves),
    }


@cache
def the_table() -> Table:
    return Table(TABLE)


def improvements(name: str, seed: int, interval: str) -> list[tuple[int, float]]:
    """One search: at which scored trial the best score rose, and to what."""
    table, contender = the_table(), CONTENDERS[name]
    low, high = bounds = table.interval(*INTERVALS[interval])
    best = max(map(table.score, table.within(bounds)))
    predict = predicted(table) if contender.told else None
    sampler = make_sampler(
        contender.sampler, SPACE, seed, interval=bounds, predict=predict, **contender.options
    )
    before: list[Seen] = []
    seen: dict[Configuration, Seen] = {}
    steps: list[tuple[int, float]] = []
    scored = 0
    while scored < TRIALS and len(before) < MOST_CANDIDATES:
        drawn = sampler.draw(sampler.rng(len(before)), before)
        assert drawn is not None
        if drawn not in seen:
            latency_ms = table.latency(drawn)
            feasible = latency_ms is not None and low <= latency_ms <= high
            score = table.score(drawn) if feasible else None
            seen[drawn] = Seen(drawn, latency_ms, feasible, score)
            scored += feasible
            if score is not None and (not steps or score > steps[-1][1]):
                steps.append((scored, score))
                if score == best:  # what is to come cannot change the curve
                    return steps
        before.append(seen[drawn])
    return steps


def predicted(table: Table) -> Callable[[Configuration], float]:
    def predict(configuration: Configuration) -> float:
        latency_ms = table.latency(configuration)
        return float("inf") if latency_ms is None else latency_ms

    return predict


def curve(steps: Sequence[tuple[int, float]]) -> list[float]:
    """The best score after each of the trials, from the first on."""
    found = []
    for at in range(1, TRIALS + 1):
        found.append(max(score for trial, score in steps if trial <= at))
    return found


def summary(curves_ST: np.ndarray, steps: list[list[tuple[int, float]]]) -> dict[str, Any]:
    low, median, high = np.quantile(curves_ST, (0.1, 0.5, 0.9), axis=0)
    return {
        "median": [round(float(score), 3) for score in median],
        "p10": [round(float(score), 3) for score in low],
        "p90": [round(float(score), 3) for score in high],
        "mean_at": {str(at): round(float(curves_ST[:, at - 1].mean()), 3) for at in AT},
        "searches": steps,
    }


def difference(one_ST: np.ndarray, other_ST: np.ndarray, at: int) -> dict[str, Any]:
    """Of the mean best scores after so many trials, with a bootstrap's 95 % interval over seeds."""
    rng = np.random.default_rng(0)
    means = []
    for curves in (one_ST, other_ST):
        scores = curves[:, at - 1]
        means.append(rng.choice(scores, (RESAMPLES, len(scores))).mean(1))
    low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
    mean = one_ST[:, at - 1].mean() - other_ST[:, at - 1].mean()
    return {"mean": round(float(mean), 3), "ci95": [round(float(low), 3), round(float(high), 3)]}


def reach(curves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Trials until a sampler has the score that the paper's evolution ends with, by the median."""
    target = float(np.median(curves[REFERENCE][:, -1]))
    found: dict[str, Any] = {"score": round(target, 3), "reference": REFERENCE, "trials": {}}
    for name, curves_ST in curves.items():
        reached = curves_ST >= target
        first = [int(run.argmax()) + 1 if run.any() else None for run in reached]
        counts = [TRIALS + 1 if trial is None else trial for trial in first]
        low, median, high = np.quantile(counts, (0.1, 0.5, 0.9))
        found["trials"][name] = {
            "median": float(median),
            "p10": float(low),
            "p90": float(high),
            "reached": sum(trial is not None for trial in first),
            "of_each_search": first,
        }
    return found


# --- the model itself --------------------------------------------------------------------------


def live(workspace: Path, trials: int) -> dict[str, Any]:
    """A search of the model, and what the table says of the same configurations."""
    table, demo = the_table(), Demo(workspace)
    assert demo.sha256 == json.loads(TABLE.with_suffix(".json").read_text())["checkpoint"]
    evaluation = Evaluation(demo.cfg)
    execution = Execution(img_size=(IMG_SIZE, IMG_SIZE), batch_size=BATCH_SIZE)
    workload = Workload(demo.model, execution)

    def time_ms(configuration: Configuration) -> float:
        demo.handle.set(configuration)
        return measure(workload, execution.device, seconds=0.5).mean_ms

    def score(configuration: Configuration) -> float:
        demo.handle.set(configuration)
        return 100 * evaluation(demo.model)["bbox_mAP"]

    dense_ms, sparsest_ms = time_ms(SPACE.dense()), time_ms(SPACE.max())
    name, (low, high) = next(iter(INTERVALS.items()))
    result = search(
        SPACE,
        time_ms,
        score,
        SearchOptions(
            min_ms=sparsest_ms + low * (dense_ms - sparsest_ms),
            max_ms=sparsest_ms + high * (dense_ms - sparsest_ms),
            trials=trials,
            sampler="guided",
        ),
    )
    rows = []
    for trial in result.trials:
        configuration = trial.configuration
        if trial.score is None or configuration is None or table.latency(configuration) is None:
            continue
        rows.append(
            {
                "kept": kept(configuration),
                "score": round(trial.score, 3),
                "score_in_table": table.score(configuration),
                "latency_of_dense": round((trial.latency_ms or 0) / dense_ms, 4),
                "latency_of_dense_in_table": round(
                    (table.latency(configuration) or 0) / (table.latency(SPACE.dense()) or 1), 4
                ),
            }
        )
    return {
        **account(),
        "command": f"python benchmarks/search.py --live WORKSPACE --trials {trials}",
        "interval": name,
        "interval_ms": [round(result.min_ms, 2), round(result.max_ms, 2)],
        "dense_ms": round(dense_ms, 2),
        "scored": result.feasible,
        "best": None if result.best is None else result.best.score,
        "seconds": round(result.seconds, 1),
        "same_score_as_in_table": sum(row["score"] == row["score_in_table"] for row in rows),
        "compared": len(rows),
        "trials": rows,
    }


if __name__ == "__main__":
    main()
