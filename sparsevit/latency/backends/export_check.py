"""Writes a backbone for a runtime, and compares it with eager PyTorch before it gets its name."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsevit.latency.backends.artefacts import Checked, Format, differs, moved, staged
from sparsevit.latency.backends.base import Run
from sparsevit.latency.backends.graph import CPU, output_names
from sparsevit.latency.backends.registry import prepare

LARGEST_DIFFERENCE = 1e-3
"""A file whose feature maps differ by more than this from eager ones is not kept."""

ATTEMPTS = 3


def write_backbone(
    form: Format[Run], backbone: nn.Module, shape: tuple[int, ...], target: Path
) -> Checked:
    """Write a backbone, and keep the file if its feature maps are eager PyTorch's.

    Raises:
        UserError: they are not, or the file cannot be written.
    """
    with staged(target) as folder:
        eager = prepare("eager", backbone, _noise(shape, 0))
        expected = eager(_noise(shape, 0))
        written = form.write(backbone, _noise(shape, 0), folder / target.name)
        run = _on(form.load(written, "fp32", torch.device(form.device)), form.device)
        difference = _difference(run, eager, shape)
        if not difference <= LARGEST_DIFFERENCE:
            raise differs(form.name, f"{difference:.2g}")
        files = moved(folder, written, target)
    names = output_names(backbone, len(expected))
    shapes = {name: list(one.shape) for name, one in zip(names, expected, strict=True)}
    return Checked(files, {"feature maps": difference}, shapes)


def _on(run: Run, device: str) -> Run:
    """The same for images and feature maps on the CPU."""
    return lambda images: [one.to(CPU) for one in run(images.to(device))]


def _difference(
    run: Callable[[Tensor], list[Tensor]],
    eager: Callable[[Tensor], list[Tensor]],
    shape: tuple[int, ...],
) -> float:
    """The largest difference on random images.

    Two windows may score so nearly the same that rounding decides which of them is kept, and then
    maps differ although nothing is wrong. That befalls an image, not a model: another one is tried.
    """
    found = math.inf
    for attempt in range(ATTEMPTS):
        images = _noise(shape, seed=attempt + 1)
        maps, expected = run(images), eager(images)
        if [one.shape for one in maps] != [one.shape for one in expected]:
            return math.inf
        gaps = [(a - b).abs().max().item() for a, b in zip(maps, expected, strict=True)]
        # max() would let NaN pass
        worst = math.inf if any(map(math.isnan, gaps)) else max(gaps)
        found = min(found, worst)
        if found <= LARGEST_DIFFERENCE:
            break
    return found


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Noise that grows from left to right, so that windows differ in how much they matter."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.linspace(0.5, 1.5, shape[-1])
