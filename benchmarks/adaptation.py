"""One training iteration against the share of windows that is kept: milliseconds and peak memory.

    python benchmarks/adaptation.py                 # writes benchmarks/results/adaptation.json
    python benchmarks/adaptation.py --scopes backbone --img-size 448 --rounds 2 --output -

At dense, at uniform ratios, and at the configurations that the adapt phase draws in its first
iterations. A ``backbone`` iteration is its forward, a backward from random gradients, and AdamW; a
``detector`` one is all of Mask R-CNN's training step on images of the generated dataset.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from shared.detectors import build_pair, training_batch
from shared.fit import line
from shared.memory import peak_memory
from shared.record import account, interleave, summary, write
from shared.swin import backbones, kept_share, random_images
from torch import Tensor, nn

from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.sparsity.random import configuration_at

PEER = "mmdet dense"
OURS = "ours dense"
UNIFORM = (0.2, 0.4, 0.6, 0.8)

Iteration = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scopes", nargs="+", default=list(SCOPES), choices=list(SCOPES))
    parser.add_argument("--img-size", type=int, default=672)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--draws", type=int, default=6, help="random configurations")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        **account(),
        "img_size": arguments.img_size,
        "batch_size": arguments.batch_size,
        "results": {},
    }
    for scope in arguments.scopes:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            calls, kept = SCOPES[scope](arguments, Path(folder))
            result["results"][scope] = measure(scope, calls, kept, arguments.rounds)
    write("adaptation", result, arguments.output)


def measure(
    scope: str, calls: dict[str, Iteration], kept: dict[str, float], rounds: int
) -> dict[str, Any]:
    """Time and memory of every iteration, and the lines through ours."""
    samples = interleave(calls, rounds, warmup=1, untimed=0)
    rows = {}
    for name, call in calls.items():
        row = summary(samples[name], against=samples[OURS])
        allocated = peak_memory(call).allocated_mib
        rows[name] = {"kept": round(kept[name], 4), **row, "allocated_mib": allocated}
    for row in rows.values():
        row["ms_of_dense"] = round(row["median_ms"] / rows[OURS]["median_ms"], 4)
        row["memory_of_dense"] = round(row["allocated_mib"] / rows[OURS]["allocated_mib"], 4)
    for name, row in rows.items():
        print(
            f"{scope:<10}{name:<14}kept {row['kept']:.0%}  {row['median_ms']:>9.1f} ms "
            f"({row['ms_of_dense']:.0%})  {row['allocated_mib']:>8.0f} MiB "
            f"({row['memory_of_dense']:.0%})",
            flush=True,
        )
    fits = fit([row for name, row in rows.items() if name != PEER])
    print(
        f"{scope}: time {fits['ms']['at_none']:.2f} + {fits['ms']['slope']:.2f} kept, "
        f"R2 {fits['ms']['r2']:.3f}; memory {fits['memory']['at_none']:.2f} + "
        f"{fits['memory']['slope']:.2f} kept, R2 {fits['memory']['r2']:.3f} (dense = 1)",
        flush=True,
    )
    return {"fits": fits, "rows": rows}


def fit(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Lines through what an iteration costs, as a share of dense, against the share it keeps."""
    kept = [row["kept"] for row in rows]
    fits = {}
    for name in ("ms", "memory"):
        found = line(kept, [row[f"{name}_of_dense"] for row in rows])
        fits[name] = {
            "at_none": round(found.intercept, 4),
            "slope": round(found.slope, 4),
            "r2": round(found.r2, 4),
        }
    return fits


def backbone_iterations(
    arguments: argparse.Namespace, folder: Path
) -> tuple[dict[str, Iteration], dict[str, float]]:
    """Forward, backward and optimiser of the backbones alone."""
    swin, sparse = backbones()
    images = random_images(arguments.batch_size, arguments.img_size)
    with torch.no_grad():
        upstream = [torch.randn_like(one) for one in swin(images)]

    def loss_of(model: nn.Module) -> Tensor:
        maps = zip(model(images), upstream, strict=True)
        return torch.stack([(one * gradient).sum() for one, gradient in maps]).sum()

    return settings(swin, sparse, loss_of, arguments)


def detector_iterations(
    arguments: argparse.Namespace, folder: Path
) -> tuple[dict[str, Iteration], dict[str, float]]:
    """The training step of the whole detectors."""
    dense, sparse = build_pair()
    batch = training_batch(folder, arguments.img_size, arguments.batch_size)

    def loss_of(model: Any) -> Tensor:
        # which anchors and RoIs are sampled is drawn: the same ones every time
        torch.manual_seed(0)
        data = model.data_preprocessor(batch, training=True)
        losses = model.loss(data["inputs"], data["data_samples"])
        total, _ = model.parse_losses(losses)
        return total

    return settings(dense, sparse, loss_of, arguments)


SCOPES = {"backbone": backbone_iterations, "detector": detector_iterations}


def settings(
    dense: nn.Module,
    sparse: nn.Module,
    loss_of: Callable[[Any], Tensor],
    arguments: argparse.Namespace,
) -> tuple[dict[str, Iteration], dict[str, float]]:
    """Iterations by name, and the share of windows that each keeps."""
    handle = SparsityHandle(sparse)
    space = handle.space
    configurations = {OURS: space.dense()}
    configurations.update({f"uniform {ratio:.0%}": space.uniform(ratio) for ratio in UNIFORM})
    for draw in range(arguments.draws):
        configurations[f"random {draw}"] = configuration_at(space, arguments.seed, draw, rank=0)
    train_dense, train_sparse = step(dense, loss_of), step(sparse, loss_of)
    calls: dict[str, Iteration] = {PEER: train_dense}
    kept = {PEER: 1.0}
    backbone: Any = (
        sparse if hasattr(sparse, "pruning_ratios") else sparse.get_submodule("backbone")
    )
    for name, configuration in configurations.items():

        def iteration(configuration: Any = configuration) -> None:
            handle.set(configuration)
            train_sparse()

        calls[name] = iteration
        handle.set(configuration)
        kept[name] = kept_share(backbone.pruning_ratios)
    return calls, kept


def step(model: nn.Module, loss_of: Callable[[Any], Tensor]) -> Iteration:
    """A training iteration of a model: loss, gradients, AdamW."""
    model.train()
    # so small a rate that the model stays what it is, for all that are timed on it
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-12, weight_decay=0.0)

    def iteration() -> None:
        loss_of(model).backward()
        optimiser.step()
        optimiser.zero_grad()

    return iteration


if __name__ == "__main__":
    main()
