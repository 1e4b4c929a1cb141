"""What skipping windows means, by a library's own dense blocks: the tests' reference.

Each block runs on the whole map; its result is kept on the windows that it keeps, and elsewhere its
input stands. That is exact, as attention stays within a window. Nothing here is of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """How a block of a library cuts its map into windows.

    Attributes:
        hw: size of the map in tokens, (height, width).
        window, shift: (down, across).
        roll_first: whether the map is rolled before it is padded, not after.
    """

    hw: Pair
    window: Pair
    shift: Pair
    roll_first: bool = False


@dataclass
class _Stage:
    """What the blocks of a stage share in one pass: the magnitudes, and a ranking by partition."""

    magnitude_BHW: Tensor | None = None
    ranked: dict[tuple[Pair, Pair], Tensor] = field(default_factory=dict)


@contextmanager
def skipping(
    stages: Sequence[Sequence[nn.Module]],
    ratios: Sequence[Sequence[float]],
    place: Callable[[Any, Tensor, tuple, dict], Place],
) -> Iterator[None]:
    """Within this context, dense blocks skip their least active windows.

    Args:
        stages: the library's blocks by stage, in the order in which they run.
        ratios: one a block, in the same order.
        place: (block, its input, positional arguments, named arguments) -> how it is cut. The input
            is (B, H, W, C) or (B, H * W, C), the first argument or ``hidden_states``.
    """
    handles = []
    for blocks, of_blocks in zip(stages, ratios, strict=True):
        shared: dict[str, _Stage] = {}
        for i, (block, ratio) in enumerate(zip(blocks, of_blocks, strict=True)):
            hook = _hook(i == 0, ratio, shared, place)
            handles.append(block.register_forward_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(first: bool, ratio: float, shared: dict[str, _Stage], place: Callable) -> Callable:
    def hook(block, args, kwargs, output):
        if first:
            shared["stage"] = _Stage()
        x = args[0] if args else kwargs["hidden_states"]
        keep = kept_tokens(shared["stage"], x, ratio, place(block, x, args, kwargs))
        if isinstance(output, tuple):
            return (torch.where(keep.reshape(*x.shape[:-1], 1), output[0], x), *output[1:])
        return torch.where(keep.reshape(*x.shape[:-1], 1), output, x)

    return hook


@torch.no_grad()
def kept_tokens(stage: _Stage, x: Tensor, ratio: float, cut: Place) -> Tensor:
    """(B, H, W) bool: the tokens in windows that a block with this ratio works on."""
    H, W = cut.hw
    (h, w), (down, across) = cut.window, cut.shift
    x_BHWC = x.detach().reshape(len(x), H, W, -1)
    if ratio > 0 and stage.magnitude_BHW is None:
        stage.magnitude_BHW = x_BHWC.abs().mean(-1)
    if ratio == 0 or stage.magnitude_BHW is None:
        return x_BHWC.new_ones(len(x), H, W, dtype=torch.bool)

    # padded and rolled as the library does, and cut into windows
    m = stage.magnitude_BHW
    pad = (0, -W % w, 0, -H % h)
    if cut.roll_first:
        m = F.pad(m.roll((-down, -across), (1, 2)), pad)
    else:
        m = F.pad(m, pad).roll((-down, -across), (1, 2))
    B, padded_H, padded_W = m.shape
    rows, columns = padded_H // h, padded_W // w
    tiles = m.view(B, rows, h, columns, w).permute(0, 1, 3, 2, 4).reshape(B, rows * columns, h * w)

    key = (cut.window, cut.shift)
    if key not in stage.ranked:
        stage.ranked[key] = tiles.norm(dim=-1).argsort(dim=1, descending=True)
    kept = stage.ranked[key][:, : int(rows * columns * (1 - ratio))]
    keep = torch.zeros(B, rows * columns, dtype=torch.bool, device=x.device).scatter(1, kept, True)

    # the same cuts undone
    keep = keep.view(B, rows, columns).repeat_interleave(h, 1).repeat_interleave(w, 2)
    if cut.roll_first:
        return keep[:, :H, :W].roll((down, across), (1, 2))
    return keep.roll((down, across), (1, 2))[:, :H, :W]
