"""Sparse trainings of a small DeiT on CIFAR-10's images: does dynamic beat static, and dense by how
much?

    python benchmarks/svite.py --data cifar10.zip --workspace runs/svite  # one run after the other
    python benchmarks/svite.py --data cifar10.zip --workspace runs/svite --most 1  # one at a time
    python benchmarks/svite.py --data cifar10.zip --workspace runs/svite --table  # what is there

The archive has ``train/CLASS/NAME.jpg``; the last tenth of each class is for validation. Every kind
trains for the same number of iterations from the same seeds. A run that is done is not done again,
and one that was killed goes on; results are written to benchmarks/results/svite.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from shared.photographs import file_of, interval, options, runs_of, written
from shared.record import account, write

from sparsevit.engine.checkpoint import read_checkpoint
from sparsevit.phases.pretrain import pretrain
from sparsevit.report.reporter import ConsoleReporter
from sparsevit.sparsity.weights import prunable

KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "static 50 %": {"density": 0.5},
    "SViTE 50 %": {"density": 0.5, "update_interval": None},
    "S2ViTE 40 %": {"heads": 0.7, "neurons": 0.6, "update_interval": None},
    "SViTE+ 50 %, 10 % fewer tokens": {"density": 0.5, "tokens": 0.9, "update_interval": None},
}
"""Options of each; an interval of None becomes that of the script's arguments."""


def main() -> None:
    parser = options(__doc__, tuple(KINDS), 1000)
    parser.add_argument("--updates", type=int, default=40, help="in as many iterations, if all ran")
    given = parser.parse_args()
    runs = runs_of(given, lambda kind, seed, images: run(kind, seed, images, given))
    settings = {name: getattr(given, name) for name in ("iterations", "batch_size", "depth")}
    result = {**account(), **settings, "runs": runs, "kinds": table(runs)}
    for kind, row in result["kinds"].items():
        print(f"{kind:<32}" + "  ".join(f"{name} {value}" for name, value in row.items()))
    write("svite", result, given.output)


def run(kind: str, seed: int, images: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One training, and what came of it."""
    svite = dict(KINDS[kind])
    if "update_interval" in svite:
        svite["update_interval"] = max(1, given.iterations // given.updates)
    folder = file_of(given, kind, seed).with_suffix("")
    backbone = {"type": "SViTE", "patch_size": 4, "svite": svite}
    made = pretrain(
        written(given, folder, images, ["sparsevit.models.svite"], backbone),
        workspace=folder / "workspace",
        seed=seed,
        eval_images=given.val_images,
        reporter=ConsoleReporter(Console(stderr=True)),
    )
    weights = {
        name: one
        for name, one in read_checkpoint(made.checkpoint)["state_dict"].items()
        if prunable(name, one.shape)
    }
    alive = sum(int((one != 0).sum()) for one in weights.values())
    return {
        "svite": svite,
        "top1": made.after["dense"]["top1"],
        "loss": made.loss,
        "seconds": round(made.seconds, 1),
        "resumed": made.resumed,
        "alive": round(alive / sum(one.numel() for one in weights.values()), 4),
    }


def table(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind: mean top-1 and its 95 % interval, and the same of what it has more than static
    masks from the same seeds."""
    by_kind: dict[str, dict[int, float]] = defaultdict(dict)
    for one in runs:
        by_kind[one["kind"]][one["seed"]] = one["top1"]
    static = by_kind.get("static 50 %", {})
    rows = {}
    for kind, scores in by_kind.items():
        paired = [score - static[seed] for seed, score in scores.items() if seed in static]
        alive = [one["alive"] for one in runs if one["kind"] == kind]
        rows[kind] = {
            "alive": round(statistics.mean(alive), 3),
            "top1": interval(list(scores.values())),
            "above_static": interval(paired),
        }
    return rows


if __name__ == "__main__":
    main()
