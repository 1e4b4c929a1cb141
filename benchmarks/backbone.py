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
from shared.record import account, gemm_gflops, interleave, summary, write

import sparsevit.models
from sparsevit.latency.cost import gmacs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))
from plain_forward import plain_forward

SWIN_T = {"embed_dims": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
CONFIGURATIONS: dict[str, list[list[float]]] = {
    "dense": [[0.0] * 2, [0.0] * 2, [0.0] * 6, [0.0] * 2],
    "cfg1": [[0.3, 0.3], [0.0, 0.0], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2], [0.0, 0.0]],
    "cfg2": [[0.6, 0.6], [0.0, 0.0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0.0, 0.0]],
    "cfg3": [[0.7, 0.7], [0.0, 0.0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0.0, 0.0]],
    "60%": [[0.6] * 2, [0.6] * 2, [0.6] * 6, [0.6] * 2],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--img-size", type=int, default=672)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    swin, sparse = backbones()
    images = torch.randn(arguments.batch_size, 3, arguments.img_size, arguments.img_size)
    calls, macs, differences = {}, {}, {}
    with torch.inference_mode():
        calls["mmdet dense"] = lambda: swin(images)
        macs["mmdet dense"] = gmacs(calls["mmdet dense"])
        for name, ratios in CONFIGURATIONS.items():
            ours, plain = sparse_call(sparse, images, ratios), plain_call(swin, images, ratios)
            expected = swin(images) if name == "dense" else plain()
            differences[name] = largest_difference(ours(), expected)
            calls[f"paper's {name}"], calls[f"ours {name}"] = plain, ours
            macs[f"paper's {name}"], macs[f"ours {name}"] = gmacs(plain), gmacs(ours)
        assert max(differences.values()) < 1e-4, differences
        samples = interleave(calls, arguments.rounds)
        rate = gemm_gflops()

    rows = {}
    for name, taken in samples.items():
        rows[name] = summary(taken, against=samples["mmdet dense"])
        rows[name]["gmacs"] = round(macs[name], 2)
        rows[name]["gemm_floor_ms"] = round(2 * macs[name] / rate * 1000, 1)
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


def backbones() -> tuple[Any, sparsevit.models.SparseViT]:
    """mmdet's Swin-T and ours with the same weights."""
    from mmdet.registry import MODELS

    swin = MODELS.build({"type": "SwinTransformer", **SWIN_T})
    sparse = MODELS.build({"type": "SparseViT", **SWIN_T})
    swin.init_weights()
    sparse.load_state_dict(swin.state_dict())
    swin.eval()
    return swin, sparse.eval()


def sparse_call(model: Any, images: torch.Tensor, ratios: list[list[float]]) -> Callable[[], Any]:
    def call() -> Any:
        model.pruning_ratios = ratios
        return model(images)

    return call


def plain_call(swin: Any, images: torch.Tensor, ratios: list[list[float]]) -> Callable[[], Any]:
    return lambda: plain_forward(swin, images, ratios)


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
