"""Times the ops that sparsevit supplies for mmcv, through mmcv's own functions.

    python benchmarks/ops.py                 # prints a table, writes benchmarks/results/ops.json
    SPARSEVIT_OPS=pytorch python benchmarks/ops.py --runs 21 --output -

The RoIAlign figure to beat is 1.35 s: compiled mmcv 2.x, forward, same sizes, on 2 cores of a Xeon.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable

import torch
from shared.record import account, write
from torch import Tensor

from sparsevit.ops import mmcv_ext

COMPILED_ROI_ALIGN_MS = 1350.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each, after 2 others")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    backend = mmcv_ext.install()
    ops = importlib.import_module("mmcv.ops")
    figures = {name: measure(run, arguments.runs) for name, run in cases(ops)}
    result = {
        **account(),
        "backend": backend,
        "ops": mmcv_ext.describe(),
        "compiled_mmcv_roi_align_forward_ms": COMPILED_ROI_ALIGN_MS,
        "results": figures,
    }
    for name, figure in figures.items():
        print(f"{name:<44}{figure['median_ms']:>10.2f} ms   spread {figure['spread_ms']:.2f} ms")
    write("ops", result, arguments.output)


def cases(ops: object) -> list[tuple[str, Callable[[], object]]]:
    """What is timed, by name: RoIs up to 150 px wide on a 168 x 168 map, and an FPN level's."""
    torch.manual_seed(0)
    features = torch.randn(1, 256, 168, 168)
    wide, small = rois(1000, 1, 150), rois(1000, 14, 28)
    boxes, scores = crowd(1000, 1000)
    dense_boxes, dense_scores = crowd(1000, 100)
    many_boxes, many_scores = crowd(10_000, 1000)
    align = ops.RoIAlign((7, 7), 0.25, 0, "avg", True)  # type: ignore[attr-defined]
    nms, soft_nms = ops.nms, ops.soft_nms  # type: ignore[attr-defined]
    leaf = features.clone().requires_grad_()
    pooled_wide, pooled_small = align(leaf, wide), align(leaf, small)
    upstream = torch.randn_like(pooled_wide)

    def backward(pooled: Tensor) -> None:
        leaf.grad = None
        pooled.backward(upstream, retain_graph=True)

    return [
        ("roi_align forward, 1000 RoIs, 1-150 px", lambda: align(features, wide)),
        ("roi_align backward, 1000 RoIs, 1-150 px", lambda: backward(pooled_wide)),
        ("roi_align forward, 1000 RoIs, 14-28 px", lambda: align(features, small)),
        ("roi_align backward, 1000 RoIs, 14-28 px", lambda: backward(pooled_small)),
        ("nms, 1000 boxes, few overlap", lambda: nms(boxes, scores, 0.5)),
        ("nms, 1000 boxes, most overlap", lambda: nms(dense_boxes, dense_scores, 0.5)),
        ("nms, 10000 boxes", lambda: nms(many_boxes, many_scores, 0.5)),
        ("soft_nms linear, 1000 boxes", lambda: soft_nms(dense_boxes, dense_scores, 0.5)),
    ]


def rois(count: int, least: float, most: float) -> Tensor:
    """RoIs with sides of ``least`` to ``most`` pixels of the map, in pixels of the image (4 x)."""
    size = least + torch.rand(count, 2) * (most - least)
    corner = torch.rand(count, 2) * (168 - size)
    return torch.cat([torch.zeros(count, 1), 4 * corner, 4 * (corner + size)], dim=1)


def crowd(count: int, side: float) -> tuple[Tensor, Tensor]:
    corner = torch.rand(count, 2) * side
    return torch.cat([corner, corner + 20 + torch.rand(count, 2) * 60], dim=1), torch.rand(count)


def measure(run: Callable[[], object], runs: int) -> dict[str, float]:
    """Median, extremes and spread (between the quartiles) of the time of a run, in milliseconds."""
    for _ in range(2):
        run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    low, median, high = statistics.quantiles(times, n=4)
    figure = {
        "median_ms": median,
        "spread_ms": high - low,
        "min_ms": min(times),
        "max_ms": max(times),
    }
    return {name: round(value, 3) for name, value in figure.items()} | {"runs": runs}


if __name__ == "__main__":
    main()
