"""A classifier of timm, adapted to skipping in a plain PyTorch loop.

    python examples/adapt_classifier.py

Trained on pictures that it makes itself, the model first learns dense and then goes on with other
random ratios at every iteration. What skipping costs is shown before and after.
"""

from __future__ import annotations

import argparse

import timm
import torch
from torch import Tensor, nn

from sparsevit import RandomSparsity, sparsify
from sparsevit.sparsity.handle import SparsityHandle

SIDE, CLASSES = 128, 4


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with one bright square, whose colour is the class: (count, 3, SIDE, SIDE), (count,)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    corners = torch.randint(SIDE - 24, (count, 2), generator=generator)
    colours = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [1.2, 1.2, 1.2]])
    for image, label, (y, x) in zip(images, labels, corners.tolist(), strict=True):
        image[:, y : y + 24, x : x + 24] += colours[label][:, None, None]
    return images, labels


def train(model: nn.Module, iterations: int, adapt: bool) -> None:
    draw = RandomSparsity(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3 if not adapt else 3e-4)
    model.train()
    for iteration in range(iterations):
        if adapt:
            draw()
        images, labels = pictures(16, seed=iteration)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    draw.dense()


@torch.no_grad()
def accuracy(model: nn.Module, ratio: float) -> float:
    handle = SparsityHandle(model)
    handle.set(handle.space.uniform(ratio))
    images, labels = pictures(128, seed=10**6)
    found = torch.cat([model.eval()(part).argmax(1) for part in images.split(32)])
    handle.set(handle.space.dense())
    return (found == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=120, help="of either training")
    iterations = parser.parse_args().iterations
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=SIDE,
        window_size=4,
        embed_dim=24,
        depths=(2, 2),
        num_heads=(1, 2),
        num_classes=CLASSES,
    )
    sparsify(model)
    for title, adapt in (("trained dense", False), ("adapted", True)):
        train(model, iterations, adapt)
        scores = "  ".join(f"{r:.0%}: {accuracy(model, r):.3f}" for r in (0.0, 0.5, 0.8))
        print(f"{title:14} accuracy where it skips {scores}")


if __name__ == "__main__":
    main()
