"""Pooling into the map seen from above: the reference's cumulative sum, what PyTorch has, ours.

    python benchmarks/bev_pool.py                      # writes benchmarks/results/bev_pool.json
    python benchmarks/bev_pool.py --batch-size 4 --rounds 5 --output -

Six cameras of 256 x 704 pixels, 59 depths and 64 channels, into 128 x 128 cells: BEVDet's sizes.
One call of each way in turn; maps and gradients are compared with sums in float64 first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from shared.bev_pooling import FORWARD_ONLY, REFERENCE, Way, ways
from shared.memory import peak_memory
from shared.record import account, interleave, summary, write
from torch import Tensor

from sparsevit.models.bev import Cameras, ViewTransformerLiftSplatShoot

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))
from bev_scene import cameras_around


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    view, cameras, (weight, x) = scene(arguments.batch_size, arguments.device)
    found = ways(view, cameras)
    upstream = torch.randn_like(found[REFERENCE](weight, x))
    differences = {name: difference(way, found, weight, x, upstream) for name, way in found.items()}
    assert max(differences.values()) < 1e-4, differences

    trained = {name: way for name, way in found.items() if name not in FORWARD_ONLY}
    with torch.no_grad():
        forward = {name: lambda way=way: way(weight, x) for name, way in found.items()}
        rows = {"forward": timed(forward, arguments.rounds)}
    both = {
        name: lambda way=way: gradients(way, weight, x, upstream) for name, way in trained.items()
    }
    rows["forward and backward"] = timed(both, arguments.rounds)
    rows["beside it"] = timed(
        {
            "geometry and cells": lambda: view.cells(cameras),
            "cameras compared, plan kept": lambda: view.plan(cameras),
        },
        arguments.rounds,
        against=None,
    )
    result = {
        **account(),
        "batch_size": arguments.batch_size,
        "points": view.frustum[..., 0].numel() * cameras.trans[..., 0].numel(),
        "points_in_grid": len(view.plan(cameras).point_P),
        "largest_difference": differences,
        "left_out": {"forward and backward": FORWARD_ONLY},
        "results": rows,
    }
    write("bev_pool", result, arguments.output)


def scene(
    batch: int, device: str
) -> tuple[ViewTransformerLiftSplatShoot, Cameras, tuple[Tensor, Tensor]]:
    """A view transformer of BEVDet's, its cameras, and depths and features of their images."""
    view = ViewTransformerLiftSplatShoot().to(device).eval()
    given = cameras_around(6)
    cameras = Cameras.of({name: torch.cat([one] * batch).to(device) for name, one in given.items()})
    weight = torch.randn(6 * batch, view.D, *view.frustum.shape[1:3], device=device).softmax(1)
    return view, cameras, (weight, torch.randn(6 * batch, view.C, *weight.shape[2:], device=device))


def gradients(way: Way, weight: Tensor, x: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """Of depths and features."""
    leaves = weight.detach().requires_grad_(), x.detach().requires_grad_()
    return torch.autograd.grad(way(*leaves), leaves, upstream)


def difference(
    way: Way, found: dict[str, Way], weight: Tensor, x: Tensor, upstream: Tensor
) -> float:
    """The largest from a sum in float64, of what is computed, over the largest number in it."""
    got: tuple[Tensor, ...] = (way(weight, x).detach(),)
    exact: tuple[Tensor, ...] = (found["index_add"](weight.double(), x.double()),)
    if all(way is not found[name] for name in FORWARD_ONLY):
        got += gradients(way, weight, x, upstream)
        exact += gradients(found["index_add"], weight.double(), x.double(), upstream.double())
    pairs = zip(got, exact, strict=True)
    return max(float((one - true).abs().max() / true.abs().max()) for one, true in pairs)


def timed(
    calls: dict[str, Callable[[], Any]], rounds: int, against: str | None = REFERENCE
) -> dict[str, Any]:
    """Each call's times, how many times as fast it is as another, and the memory that it takes."""
    samples = interleave(calls, rounds)
    peer = None if against is None else samples[against]
    rows = {}
    for name, taken in samples.items():
        memory = peak_memory(calls[name]).allocated_mib
        rows[name] = {**summary(taken, against=peer), "allocated_mib": memory}
        speedup = f"{rows[name]['speedup']:>8.1f}x" if peer else ""
        print(f"{name:<52}{rows[name]['median_ms']:>9.2f} ms{speedup}{memory:>9.1f} MiB")
    print()
    return rows


if __name__ == "__main__":
    main()
