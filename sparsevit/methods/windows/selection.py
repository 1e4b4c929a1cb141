"""Records which windows blocks kept, for pictures and tests."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsevit.methods.windows.forward import Stage
from sparsevit.ops.windows import Pair, WindowLayout, Windows


@dataclass(frozen=True, eq=False)
class Selection:
    """What one block kept.

    Attributes:
        stage, block: which block: the number of its stage, or group, and its place there.
        shift: its cyclic shift in tokens.
        kept_BK: (B, K) int64 indices of the kept windows, best first, or None where all are. Where
            windows of several images are ranked together a row is of these, and window w of its
            image i is ``i * W + w``.
        layout: the partition they are windows of.
        windows: where their tokens are, or None where no window is kept.
        images: how many images are ranked together.
    """

    stage: int
    block: int
    shift: int
    kept_BK: Tensor | None
    layout: WindowLayout
    windows: Windows | None
    images: int = 1

    @property
    def grid(self) -> Pair:
        """Windows down and across."""
        return self.layout.grid

    def kept_of(self, image: int) -> Tensor | None:
        """(k,) indices of the windows kept of one image, best first; None where all are."""
        if self.kept_BK is None:
            return None
        kept, W = self.kept_BK[image // self.images], self.layout.num_windows
        return kept[kept // W == image % self.images] % W


def record(
    seen: list[Selection],
    number: int,
    stage: Stage,
    block: int,
    kept_BK: Tensor | None,
    windows: Windows | None,
) -> None:
    """Add what a block of stage ``number`` keeps to a list; to be told by the stage."""
    shift, layout = stage.blocks[block].shift[0], stage.layouts[block]
    seen.append(Selection(number, block, shift, kept_BK, layout, windows, stage.images))
