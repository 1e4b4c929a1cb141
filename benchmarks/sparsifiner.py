"""A small DeiT on CIFAR-10's images whose attention keeps a part of the pairs: what does that cost,
and what do pairs at random?

    python benchmarks/sparsifiner.py --data cifar10.zip --workspace runs/keep  # one after the other
    python benchmarks/sparsifiner.py --data cifar10.zip --workspace runs/keep --most 1  # one
    python benchmarks/sparsifiner.py --data cifar10.zip --workspace runs/keep --table

Patches of 2 pixels make 257 tokens. The dense model of a seed is trained first, and is what the
others of that seed start from and are taught by. Pairs at random are drawn once for each head, as
many as the predictor would choose, and trained likewise. A run that is done is not done again, and
one that was killed goes on; results are written to benchmarks/results/sparsifiner.json.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from shared.photographs import file_of, interval, options, runs_of, written
from shared.record import account, write
from torch import Tensor

from sparsevit.engine.config import load_config
from sparsevit.engine.runner import build_model
from sparsevit.latency.cost import gmacs
from sparsevit.methods.attention import forward, routes
from sparsevit.methods.attention.forward import Choice
from sparsevit.phases.adapt import adapt
from sparsevit.phases.pretrain import pretrain
from sparsevit.report.reporter import ConsoleReporter

DENSE = "dense"
KINDS: dict[str, dict[str, Any]] = {
    DENSE: {},
    "0.5": {"keep_rate": 0.5},
    "0.25": {"keep_rate": 0.25},
    "0.1": {"keep_rate": 0.1},
    "0.25, blocks": {"keep_rate": 0.25, "connections": "blocks"},
    "0.1, blocks": {"keep_rate": 0.1, "connections": "blocks"},
    "0.25 at random": {"keep_rate": 0.25},
    "0.1 at random": {"keep_rate": 0.1},
}
IMPORTS = ["sparsevit.models.sparsifiner_backbones"]


def main() -> None:
    parser = options(__doc__, tuple(KINDS), 800)
    parser.add_argument("--sparse-iterations", type=int, default=400, help="from the dense model")
    given = parser.parse_args()
    runs = runs_of(given, lambda kind, seed, images: run(kind, seed, images, given))
    names = ("iterations", "sparse_iterations", "batch_size", "depth")
    settings = {name: getattr(given, name) for name in names}
    result = {**account(), **settings, "runs": runs, "kinds": table(runs)}
    for kind, row in result["kinds"].items():
        print(f"{kind:<20}" + "  ".join(f"{name} {value}" for name, value in row.items()))
    write("sparsifiner", result, given.output)


def run(kind: str, seed: int, images: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One training, and what came of it."""
    folder = file_of(given, kind, seed).with_suffix("")
    backbone = {"type": "SparsifinerDeiT", "patch_size": 2, "sparsifiner": KINDS[kind]}
    how: dict[str, Any] = {
        "workspace": folder / "workspace",
        "seed": seed,
        "eval_images": given.val_images,
        "reporter": ConsoleReporter(Console(stderr=True)),
    }
    if kind == DENSE:
        made = pretrain(written(given, folder, images, IMPORTS, backbone), **how)
        top1 = made.after["dense"]["top1"]
    else:
        dense = file_of(given, DENSE, seed).with_suffix("") / "workspace"
        weights = next(dense.glob(f"pretrain/*/iter_{given.iterations}.pth"))
        fewer = argparse.Namespace(**{**vars(given), "iterations": given.sparse_iterations})
        config = written(fewer, folder, images, IMPORTS, backbone, rate=3e-4)
        ratio = round(1 - KINDS[kind]["keep_rate"], 4)
        with at_random() if "random" in kind else nullcontext():
            made = adapt(config, weights, validate_at=[ratio], validate_before=False, **how)
        top1 = made.after[f"uniform {ratio:g}"]["top1"]
    return {
        "top1": top1,
        "loss": made.loss,
        "seconds": round(made.seconds, 1),
        "resumed": made.resumed,
        "gmacs": round(multiplications(made.config), 4),
    }


@contextmanager
def at_random() -> Iterator[None]:
    """Pairs that no predictor chose, the same for every image."""

    def kept_keys(coefficients: Tensor, basis: Tensor, choice: Choice) -> Tensor:
        heads, rows, n = coefficients.shape[1], coefficients.shape[2], basis.shape[-1]
        drawn = torch.rand(heads, rows, n, generator=torch.Generator().manual_seed(heads))
        kept = forward.largest(drawn, int(choice.keep)).to(basis.device)
        return kept.expand(len(coefficients), -1, -1, -1)

    with (
        mock.patch.object(forward, "kept_keys", kept_keys),
        mock.patch.object(routes, "serves", return_value=False),
    ):
        yield


def multiplications(config: Path) -> float:
    """Billions of an image, in PyTorch."""
    model, _ = build_model(load_config(config))
    model.eval()
    image = torch.zeros(1, 3, 32, 32)
    with mock.patch.object(routes, "serves", return_value=False):
        return gmacs(lambda: model.backbone(image))


def table(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind: mean top-1 and its 95 % interval, and the same of what it has less than the dense
    model of the same seed."""
    by_kind: dict[str, dict[int, float]] = defaultdict(dict)
    for one in runs:
        by_kind[one["kind"]][one["seed"]] = one["top1"]
    dense = by_kind.get(DENSE, {})
    return {
        kind: {
            "top1": interval(list(scores.values())),
            "above_dense": interval([top1 - dense[s] for s, top1 in scores.items() if s in dense]),
            "gmacs": next(one["gmacs"] for one in runs if one["kind"] == kind),
        }
        for kind, scores in by_kind.items()
    }


if __name__ == "__main__":
    main()
