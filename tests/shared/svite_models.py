"""Small vision transformers of mmpretrain, and a training loop that calls a method as the hook
does, with nothing else around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import sparsevit.models.svite as svite
from sparsevit.methods.weights import Weights

ARCH = {"embed_dims": 16, "num_layers": 2, "num_heads": 4, "feedforward_channels": 32}
SIZE, CLASSES = 16, 5


class Classifier(nn.Module):
    """A backbone and a linear layer, under the names of mmpretrain's classifiers."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.embed_dims, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        given = self.backbone(images)[-1]
        return self.head(given[0] if isinstance(given, tuple) else given)


def classifier(
    kind: type[nn.Module] = svite.SViTE, arch: dict[str, int] = ARCH, **options: Any
) -> Classifier:
    """One whose weights are always the same; with ``svite`` options it is trained sparse."""
    torch.manual_seed(0)
    model = Classifier(kind(arch=dict(arch), img_size=SIZE, patch_size=4, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            # no zeros: what is zero has been pruned
            parameter.copy_(0.2 * torch.randn_like(parameter) + 0.01)
    return model


def batch(step: int, rank: int = 0, images: int = 4) -> tuple[Tensor, Tensor]:
    """(B, 3, 16, 16) images and (B) labels of an iteration."""
    drawn = torch.Generator().manual_seed(1000 * step + rank)
    shape = (images, 3, SIZE, SIZE)
    return torch.randn(shape, generator=drawn), torch.randint(CLASSES, (images,), generator=drawn)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW with weight decay, as in DeiT's recipe."""
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)


class Training:
    """A training of some iterations."""

    def __init__(
        self, model: Classifier, total: int = 20, seed: int = 0, wrapped: nn.Module | None = None
    ) -> None:
        self.model, self.wrapped = model, wrapped or model
        self.optimizer = optimizer_of(model)
        self.method = Weights(model)
        self.method.before_training(total, seed)
        self.step = 0

    def run(self, steps: int = 1, rank: int = 0, max_norm: float | None = None) -> Training:
        """Some more iterations."""
        for _ in range(steps):
            self.method.before_step(self.step)
            self.optimizer.zero_grad()
            images, labels = batch(self.step, rank)
            nn.functional.cross_entropy(self.wrapped(images), labels).backward()
            if max_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
            self.optimizer.step()
            self.method.after_optimizer_step(self.step, self.optimizer)
            self.step += 1
        return self

    def saved(self) -> dict[str, Any]:
        """What a checkpoint would hold."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "step": self.step,
        }

    def resume(self, saved: dict[str, Any]) -> Training:
        """Go on where another one was."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.method.load_state_dict(saved["method"])
        self.step = saved["step"]
        return self
