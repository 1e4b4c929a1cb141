"""A search on a model of one's own: the best ratios within a latency.

    python examples/search_your_model.py

The model is any module with window attention in it, the score any function of it. Here a Swin of
Hugging Face estimates how bright the brightest spot of a picture is; nothing is downloaded.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from transformers import SwinConfig, SwinModel

from sparsevit import RandomSparsity, calibrate, search_configuration, sparsify
from sparsevit.sparsity.handle import SparsityHandle

SIDE = 128


class Brightest(nn.Module):
    """A backbone of a library and a head of one's own."""

    def __init__(self) -> None:
        super().__init__()
        config = SwinConfig(
            image_size=SIDE, embed_dim=24, depths=[2, 2, 2], num_heads=[1, 2, 4], window_size=4
        )
        self.backbone = SwinModel(config)
        self.head = nn.Linear(config.hidden_size, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B,)."""
        return self.head(self.backbone(images).pooler_output)[:, 0]


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    brightness = 3 * torch.rand(count, generator=generator)
    corners = torch.randint(SIDE - 16, (count, 2), generator=generator).tolist()
    for image, level, (y, x) in zip(images, brightness, corners, strict=True):
        image[:, y : y + 16, x : x + 16] += level
    return images, brightness


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=150, help="of training")
    parser.add_argument("--trials", type=int, default=25, help="configurations to score")
    parser.add_argument("--seconds", type=float, default=20.0, help="to spend on the calibration")
    parser.add_argument("--max-ms", type=float, help="halfway to the sparsest if left out")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = sparsify(Brightest())
    draw = RandomSparsity(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for iteration in range(arguments.iterations):
        draw()
        images, brightness = pictures(16, seed=iteration)
        loss = (model(images) - brightness).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    draw.dense()

    images, brightness = pictures(64, seed=10**6)

    def score(candidate: nn.Module) -> float:
        return -(candidate(images) - brightness).abs().mean().item()

    predictor = calibrate(model, images[:1], seconds=arguments.seconds, held_out=4)
    space = SparsityHandle(model).space
    dense_ms, least_ms = predictor.dense_ms, predictor.predict(space.max())
    limit = arguments.max_ms or (dense_ms + least_ms) / 2
    print(f"dense {dense_ms:.2f} ms, sparsest {least_ms:.2f} ms; searched up to {limit:.2f} ms")
    found = search_configuration(
        model,
        score,
        images[:1],
        max_ms=limit,
        trials=arguments.trials,
        predictor=predictor,
        latency_seconds=0.3,
    )
    if found.best is None or found.best.configuration is None:
        print("nothing was found within it; the machine may be busy")
        return
    for knob, ratio in found.best.configuration.items():
        print(f"  {knob:28} {ratio:g}")
    print(f"score {found.best.score:.3f} at {found.best.confirmed_ms:.2f} ms, of {found.feasible}")


if __name__ == "__main__":
    main()
