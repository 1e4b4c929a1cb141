"""Windows as a method: what it converts, compiles to, exports to and looks like."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparsevit.methods.base import Method, Nested
from sparsevit.methods.windows import config
from sparsevit.methods.windows.forward import num_kept

if TYPE_CHECKING:
    from mmengine.config import Config


class Windows(Method):
    """Each block works on its most active windows (SparseViT, arXiv 2303.17605)."""

    name = "windows"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._windows: dict[tuple[int, int], dict[str, dict[tuple[int, int], int]]] = {}

    @classmethod
    def convert(cls, model: nn.Module, **options: Any) -> nn.Module:
        """See :func:`~sparsevit.methods.windows.sparsify.sparsify`."""
        from sparsevit.methods.windows.sparsify import sparsify

        return sparsify(model, **options)

    @classmethod
    def config_has(cls, cfg: Config) -> bool:
        return config.has_windows(cfg)

    @classmethod
    def convert_config(cls, cfg: Config) -> Config:
        return config.sparsify_swin(cfg)

    def nested(self, configuration: Mapping[str, float]) -> list[list[float]] | None:
        parts = self.parts()
        if len(parts) != 1:
            return None
        ((prefix, part),) = parts.items()
        space = part.sparsity_space().prefixed(prefix)
        return space.to_nested({name: configuration[name] for name in space.names})

    @classmethod
    def write_nested(cls, cfg: Config, nested: Nested) -> None:
        config.write_pruning_ratios(cfg, nested)

    @classmethod
    def compiled(cls, part: nn.Module, frozen: bool) -> nn.Module | None:
        from sparsevit.models.forms import compiled
        from sparsevit.models.sparsevit import SparseSwin

        return compiled(part, frozen=frozen) if isinstance(part, SparseSwin) else None

    @classmethod
    def exported(cls, part: nn.Module) -> nn.Module:
        from sparsevit.models.forms import exported
        from sparsevit.models.sparsevit import SparseSwin

        return exported(part) if isinstance(part, SparseSwin) else part

    def effective(
        self, configuration: Mapping[str, float], image_sizes: Collection[tuple[int, int]]
    ) -> Hashable:
        """How many windows each block keeps, by part and image size. Which ones follows from how
        many: a block that keeps all has ratio 0, and windows are scored where not all are kept."""
        kept = []
        for prefix, part in self.parts().items():
            space = part.sparsity_space().prefixed(prefix)
            nested = space.to_nested({name: configuration[name] for name in space.names})
            for height, width in image_sizes:
                windows = self._windows_of((height, width))[prefix]
                counts = tuple(num_kept(n, nested[i][j]) for (i, j), n in windows.items())
                kept.append((prefix, (height, width), counts))
        return tuple(kept)

    def _windows_of(self, image_size: tuple[int, int]) -> dict[str, dict[tuple[int, int], int]]:
        """How many windows each block has of an image, by part and (stage, block)."""
        if image_size not in self._windows:
            weight = next(self.model.parameters())
            image = torch.zeros(1, 3, *image_size, dtype=weight.dtype, device=weight.device)
            found = {}
            for prefix, part in self.parts().items():
                with torch.no_grad(), part.record_selections() as selections:
                    self.model.get_submodule(prefix)(image)
                found[prefix] = {(s.stage, s.block): s.layout.num_windows for s in selections}
            self._windows[image_size] = found
        return self._windows[image_size]

    def picture(self, image: Tensor, pixels: Any, out: Path) -> Path | None:
        from sparsevit.methods.windows.picture import draw_kept_windows, kept_windows

        kept: dict[str, Any] = {}
        with torch.no_grad():
            for prefix, part in self.parts().items():
                kept |= kept_windows(part, self.model.get_submodule(prefix), image, prefix)
        if not kept:
            return None
        grids = {name: grid for name, (grid, _) in kept.items()}
        return draw_kept_windows(pixels, grids, {name: px for name, (_, px) in kept.items()}, out)
