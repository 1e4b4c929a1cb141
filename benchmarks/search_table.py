"""Score and time every configuration of the demo's adapted model: what a search can only sample.

python benchmarks/search_table.py WORKSPACE              # scores; goes on where it was stopped
python benchmarks/search_table.py WORKSPACE --backwards  # the same from the other end, beside it
python benchmarks/search_table.py WORKSPACE --latency    # times all of them: quiet machine, 8 min
python benchmarks/search_table.py WORKSPACE --write      # the CSV and JSON in benchmarks/results

WORKSPACE is one in which the demo ran. The scores are those of the project's own evaluation on the
100 validation images, in a random order, so that a table of a part is a random sample of the space.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.demo_space import IMG_SIZE, SPACE, Kept, kept, networks
from shared.record import RESULTS, account, write

from sparsevit.engine.config import load_config
from sparsevit.engine.evaluation import Evaluation
from sparsevit.engine.runner import build_model
from sparsevit.latency.execution import Execution
from sparsevit.latency.workload import Workload
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.workspace import Workspace

NAME = "search_table"
SEED = 0
BATCH_SIZE = 4
SCORES, LATENCIES = "search_table_scores.jsonl", "search_table_latencies.jsonl"
# A pass visits every network once; dense is timed anew after so many of them.
PASSES, CALLS, DENSE_EVERY = 4, 2, 8


class Demo:
    """The adapted model of a workspace, and what tells it from others."""

    def __init__(self, workspace: Path) -> None:
        found = Workspace.open(workspace, readonly=True)
        config, weights = found.output("adapt", "config"), found.output("adapt", "checkpoint")
        if config is None or weights is None:
            sys.exit(f"{workspace} has no finished adapt: run `sparsevit demo` in it first")
        self.cfg = load_config(config)
        self.model, _ = build_model(self.cfg, weights)
        self.handle = SparsityHandle(self.model)
        assert self.handle.space == SPACE
        self.sha256 = found.file_digest(weights)


class Lines:
    """JSON lines that a killed run leaves whole: the first says what they are of."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        text = path.read_text() if path.exists() else ""
        whole, _, torn = text.rpartition("\n")
        if torn:
            path.write_text(f"{whole}\n" if whole else "")
        rows = [json.loads(line) for line in whole.splitlines()]
        if rows and rows[0]["checkpoint"] != header["checkpoint"]:
            sys.exit(f"{path} is of another checkpoint: move it away first")
        self.header = rows[0] if rows else header
        self.rows = rows[1:]
        if not rows:
            self._append(header)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--backwards", action="store_true", help="score from the other end")
    steps.add_argument("--latency", action="store_true", help="time the networks that are scored")
    steps.add_argument("--write", action="store_true", help="make the table of what there is")
    parser.add_argument("--output", help="CSV file, its account beside it as .json")
    arguments = parser.parse_args()
    if arguments.write:
        return write_table(arguments.workspace, arguments.output)
    demo = Demo(arguments.workspace)
    if arguments.latency:
        return time_all(demo, arguments.workspace)
    score_all(demo, arguments.workspace, arguments.backwards)


# --- scores ----------------------------------------------------------------------------------


def score_all(demo: Demo, workspace: Path, backwards: bool) -> None:
    lines = Lines(workspace / SCORES, header("", demo))
    order = list(networks().items())
    random.Random(SEED).shuffle(order)
    if backwards:
        order.reverse()
    # an interval is told as a share of the way between these two
    ends = {kept(SPACE.dense()), kept(SPACE.max())}
    order.sort(key=lambda network: network[0] not in ends)
    evaluation = Evaluation(demo.cfg)
    for windows, configuration in order:
        done = scored_networks(workspace)
        if windows in done:  # also by a process that comes from the other end
            continue
        demo.handle.set(configuration)
        began = time.perf_counter()
        metrics = evaluation(demo.model)
        lines.add(
            {
                "kept": windows,
                "bbox_ap": metrics["bbox_mAP"],
                "segm_ap": metrics["segm_mAP"],
                "images": evaluation.num_images,
                "seconds": round(time.perf_counter() - began, 2),
            }
        )
        print(f"{len(done) + 1}/{len(order)} {configuration} {metrics['bbox_mAP']:.3f}")


def header(option: str, demo: Demo) -> dict[str, Any]:
    return {
        **account(),
        "command": f"python benchmarks/{NAME}.py WORKSPACE {option}".strip(),
        "checkpoint": demo.sha256,
    }


# --- latencies -------------------------------------------------------------------------------


def time_all(demo: Demo, workspace: Path) -> None:
    """Every network in turn, in another order in every pass, dense among them all the time.

    A sample is told as a share of the dense calls around it, so that a machine that slows down for
    a minute does not slow the networks of that minute.
    """
    calls = calls_of(demo, scored_networks(workspace))
    dense = tuple(kept(SPACE.dense()))
    shares: dict[Kept, list[float]] = {windows: [] for windows in calls}
    dense_ms: list[float] = []
    for windows in calls:
        timed(calls[windows], 1)
    for index in range(PASSES):
        order = list(calls)
        random.Random(f"{SEED}:{index}").shuffle(order)
        for chunk in chunks(order, DENSE_EVERY):
            before = timed(calls[dense], CALLS)
            found = {windows: timed(calls[windows], CALLS) for windows in chunk}
            after = timed(calls[dense], CALLS)
            dense_ms += before + after
            around_ms = statistics.median(before + after)
            for windows, samples in found.items():
                shares[windows] += [sample / around_ms for sample in samples]
        print(f"pass {index + 1} of {PASSES}, dense {statistics.median(dense_ms):.2f} ms")
    path = workspace / LATENCIES
    path.unlink(missing_ok=True)
    lines = Lines(
        path,
        {
            **header("--latency", demo),
            "batch_size": BATCH_SIZE,
            "img_size": [IMG_SIZE, IMG_SIZE],
            "dense_ms": round(statistics.median(dense_ms), 3),
            "dense_quartiles_ms": [round(q, 3) for q in statistics.quantiles(dense_ms, n=4)],
        },
    )
    for windows, samples in shares.items():
        low, median, high = statistics.quantiles(samples, n=4)
        lines.add({"kept": windows, "of_dense": round(median, 5), "spread": round(high - low, 5)})


def calls_of(demo: Demo, wanted: set[Kept]) -> dict[Kept, Callable[[], Any]]:
    execution = Execution(img_size=(IMG_SIZE, IMG_SIZE), batch_size=BATCH_SIZE)
    workload = Workload(demo.model, execution)
    calls = {
        windows: workload.at(configuration)
        for windows, configuration in networks().items()
        if windows in wanted
    }
    dense = SPACE.dense()
    return {kept(dense): workload.at(dense), **calls}


def timed(call: Callable[[], Any], count: int) -> list[float]:
    """Milliseconds of each call; one more goes before them, untimed."""
    call()
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        samples.append(1000 * (time.perf_counter() - start))
    return samples


def chunks(items: list[Kept], size: int) -> Iterator[list[Kept]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def scored_networks(workspace: Path) -> set[Kept]:
    return {tuple(row["kept"]) for row in read_lines(workspace / SCORES)[1]}


# --- the table -------------------------------------------------------------------------------


def write_table(workspace: Path, output: str | None) -> None:
    scored_by, scores = read_lines(workspace / SCORES)
    timed_by, latencies = read_lines(workspace / LATENCIES)
    of_dense = {tuple(row["kept"]): row for row in latencies}
    shared: dict[Kept, int] = {}
    for configuration in SPACE.every():
        shared[kept(configuration)] = shared.get(kept(configuration), 0) + 1
    path = Path(output) if output else RESULTS / f"{NAME}.csv"
    columns = [*(f"kept_{stage}" for stage in range(len(SPACE))), "configurations"]
    columns += ["bbox_ap", "segm_ap", "latency_ms", "latency_spread_ms"]
    lines = [",".join(columns)]
    rows = {tuple(row["kept"]): row for row in scores if tuple(row["kept"]) in of_dense}
    for windows, row in sorted(rows.items(), reverse=True):
        dense_ms, share = timed_by["dense_ms"], of_dense[windows]
        figures = [*windows, shared[windows], row["bbox_ap"], row["segm_ap"]]
        figures += [
            f"{share['of_dense'] * dense_ms:.3f}",
            f"{share['spread'] * dense_ms:.3f}",
        ]
        lines.append(",".join(map(str, figures)))
    path.write_text("\n".join(lines) + "\n")
    print(f"written to {path}")
    total = sum(row["seconds"] for row in scores)
    write(
        NAME,
        {
            **{key: timed_by[key] for key in ("command", "date", "machine", "versions")},
            "checkpoint": timed_by["checkpoint"],
            "scored_by": scored_by,
            "images": scores[0]["images"],
            "seconds_to_score": round(total),
            "batch_size": timed_by["batch_size"],
            "img_size": timed_by["img_size"],
            "dense_ms": timed_by["dense_ms"],
            "dense_quartiles_ms": timed_by["dense_quartiles_ms"],
            "networks": len(rows),
            "networks_of_the_space": len(shared),
            "configurations": sum(shared[windows] for windows in rows),
            "configurations_of_the_space": SPACE.size(),
            "table": path.name,
        },
        str(path.with_suffix(".json")),
    )


def read_lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return rows[0], rows[1:]


if __name__ == "__main__":
    main()
