"""The demo model's space of configurations, and which of them are the same network.

A ratio becomes a whole number of windows. On the demo's 224 px images the stages have 64, 16, 4 and
1 windows, so that many settings of the last two keep the same windows: one measurement answers for
all of them.
"""

from __future__ import annotations

import math

from sparsevit.methods.windows.forward import num_kept
from sparsevit.sparsity import Configuration, Space

IMG_SIZE = 224
WINDOW, PATCH = 7, 4
SPACE = Space.staged((2, 2, 2, 2), prefix="backbone.stages")

Kept = tuple[int, ...]


def windows() -> list[int]:
    """Windows of each stage of the demo's Swin on its images."""
    sides = [IMG_SIZE // PATCH // 2**stage for stage in range(len(SPACE))]
    return [math.ceil(side / WINDOW) ** 2 for side in sides]


def kept(configuration: Configuration) -> Kept:
    """How many windows each stage works on."""
    return tuple(
        num_kept(count, configuration[name])
        for count, name in zip(windows(), SPACE.names, strict=True)
    )


def networks() -> dict[Kept, Configuration]:
    """Every different network, with the least sparse configuration that gives it."""
    found: dict[Kept, Configuration] = {}
    for configuration in SPACE.every():
        found.setdefault(kept(configuration), configuration)
    return found
