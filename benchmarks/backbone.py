"""Swin-T backbones side by side: mmdet's dense one, the paper's algorithm written plainly, ours.

    python benchmarks/backbone.py                        # writes benchmarks/results/backbone.json
    python benchmarks/backbone.py --img-size 1344 --rounds 5 --output -

All run eagerly on the same weights and image, one call of each in turn; outputs are compared first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from shared.agreement import agreement
from shared.floor import floor_ms, gemm_gflops, product_shapes
from shared.record import account, interleave, summary, write
from shared.swin import CONFIGURATIONS, backbones, random_images

from sparsevit.latency.cost import gmacs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))
from plain_forward import plain_forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--img-size", type=int, default=672)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    swin, sparse = backbones()
    images = random_images(arguments.batch_size, arguments.img_size)
    calls, macs, differences = {}, {}, {}
    with torch.no_grad():
        calls["mmdet dense"] = lambda: swin(images)
        macs["mmdet dense"] = gmacs(calls["mmdet dense"])
        for name, ratios in CONFIGURATIONS.items():
            ours, plain = sparse_call(sparse, images, ratios), plain_call(swin, images, ratios)
            expected = swin(images) if name == "dense" else plain()
            differences[name] = agreement(ours(), expected).absolute
            calls[f"paper's {name}"], calls[f"ours {name}"] = plain, ours
            macs[f"paper's {name}"], macs[f"ours {name}"] = gmacs(plain), gmacs(ours)
        assert max(differences.values()) < 1e-4, differences
        samples = interleave(calls, arguments.rounds)
        rate = gemm_gflops(product_shapes(calls["mmdet dense"]))

    rows = {}
    for name, taken in samples.items():
        rows[name] = summary(taken, against=samples["mmdet dense"])
        rows[name]["gmacs"] = round(macs[name], 2)
        rows[name]["gemm_floor_ms"] = round(floor_ms(macs[name], rate), 1)
        print(
            f"{name:<16}{rows[name]['median_ms']:>9.1f} ms  {rows[name]['speedup']:.2f}x  "
            f"{macs[name]:.1f} GMACs, floor {rows[name]['gemm_floor_ms']:.0f} ms"
        )
    result = {
        **account(),
        "img_size": arguments.img_size,
        "batch_size": arguments.batch_size,
        "gemm_gflops": round(rate, 1),
        "largest_difference": differences,
        "results": rows,
    }
    write("backbone", result, arguments.output)


def sparse_call(model: Any, images: torch.Tensor, ratios: list[list[float]]) -> Callable[[], Any]:
    def call() -> Any:
        model.pruning_ratios = ratios
        return model(images)

    return call


def plain_call(swin: Any, images: torch.Tensor, ratios: list[list[float]]) -> Callable[[], Any]:
    return lambda: plain_forward(swin, images, ratios)


if __name__ == "__main__":
    main()
