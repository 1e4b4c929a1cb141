"""Mask2Former of Hugging Face transformers, dense and with half of its windows skipped.

    python examples/segment_faster.py           # a small model with random weights: seconds
    python examples/segment_faster.py --real    # Swin-T at 672 x 672, the size people use

Nothing is downloaded: models are built from configs. For one that is trained, put
``Mask2FormerForUniversalSegmentation.from_pretrained(...)`` in place of ``build``.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from sparsevit import densify, sparsify

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def build(real: bool) -> nn.Module:
    """Mask2Former on Swin-T, or on a Swin a twelfth as wide."""
    if real:
        config = Mask2FormerConfig(backbone_config=SwinConfig(out_features=STAGES))
    else:
        small = SwinConfig(
            embed_dim=8, depths=[2, 2, 2, 2], num_heads=[2, 2, 2, 2], out_features=STAGES
        )
        config = Mask2FormerConfig(
            backbone_config=small,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            num_queries=10,
        )
    return Mask2FormerForUniversalSegmentation(config).eval()


def seconds(model: nn.Module, images: Tensor) -> float:
    """What a call takes."""
    start = time.perf_counter()
    model(pixel_values=images)
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="store_true", help="a model of the usual size")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of windows to skip")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    model = build(args.real)
    side = 672 if args.real else 128
    images = torch.randn(1, 3, side, side)
    times: dict[str, list[float]] = {"dense": [], f"{args.ratio:.0%} skipped": []}
    dense, sparse = times.values()
    for _ in range(args.rounds + 1):
        dense.append(seconds(densify(model), images))
        sparse.append(seconds(sparsify(model, args.ratio), images))

    print(f"Mask2Former, one image of {side} x {side}")
    for name, taken in times.items():
        # the first call of each warms up
        print(f"  {name:12} {1000 * statistics.median(taken[1:]):8.1f} ms")


if __name__ == "__main__":
    main()
