"""Swin in plain torch, for machines without mmdet: its algorithm, its parameters under its names.

Where mmdet is installed nothing here is needed. Where it is not, :func:`stand_in` puts these
classes where ``sparsevit.models.sparsevit`` looks for mmdet's, so that the backbone that is timed
is the package's own and no copy of it. Only what a forward in evaluation needs is here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WindowMSA(nn.Module):
    """Attention within windows (windows, N, C), with a bias by relative position."""

    def __init__(self, C: int, heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.window_size = (window, window)
        self.scale = (C // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        down, right = (
            torch.arange(window * window) // window,
            torch.arange(window * window) % window,
        )
        offset = (down[:, None] - down + window - 1) * (2 * window - 1)
        offset = offset + right[:, None] - right + window - 1
        self.register_buffer("relative_position_index", offset)
        self.qkv = nn.Linear(C, 3 * C)
        self.attn_drop = nn.Dropout(0.0)
        self.proj = nn.Linear(C, C)
        self.proj_drop = nn.Dropout(0.0)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        logits = logits + bias.view(N, N, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            logits = logits.view(B // windows, windows, self.num_heads, N, N)
            logits = (logits + mask.to(x.dtype)[None, :, None]).view(-1, self.num_heads, N, N)
        x = (self.attn_drop(logits.softmax(-1)) @ v).transpose(1, 2).reshape(B, N, C)
        return self.proj_drop(self.proj(x))


class ShiftWindowMSA(nn.Module):
    """Pad, roll, cut into windows, attend, and undo all three; the mask is made each time."""

    def __init__(self, C: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window_size, self.shift_size = window, shift
        self.w_msa = WindowMSA(C, heads, window)
        self.drop = nn.Identity()

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        B, L, C = x.shape
        window, shift = self.window_size, self.shift_size
        H, W = hw
        x = F.pad(x.view(B, H, W, C), (0, 0, 0, -W % window, 0, -H % window))
        Hp, Wp = x.shape[1:3]
        mask = None
        if shift:
            x = torch.roll(x, (-shift, -shift), (1, 2))
            mask = self._mask(Hp, Wp, x.device)
        x = self._merge(self.w_msa(self._cut(x), mask), Hp, Wp)
        if shift:
            x = torch.roll(x, (shift, shift), (1, 2))
        return self.drop(x[:, :H, :W].reshape(B, L, C))

    def _mask(self, H: int, W: int, device: torch.device) -> Tensor:
        region = torch.zeros(1, H, W, 1, device=device)
        bands = ((0, -self.window_size), (-self.window_size, -self.shift_size))
        bands = (*bands, (-self.shift_size, None))
        for i, (top, bottom) in enumerate(bands):
            for j, (left, right) in enumerate(bands):
                region[:, top:bottom, left:right] = 3 * i + j
        region = self._cut(region)[..., 0]
        differ = region[:, None] != region[:, :, None]
        return torch.zeros(differ.shape, device=device).masked_fill(differ, -100.0)

    def _cut(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        window = self.window_size
        x = x.view(B, H // window, window, W // window, window, C)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, C)

    def _merge(self, x: Tensor, H: int, W: int) -> Tensor:
        window = self.window_size
        x = x.view(-1, H // window, W // window, window, window, x.shape[-1])
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, H, W, x.shape[-1])


class FFN(nn.Module):
    def __init__(self, C: int) -> None:
        super().__init__()
        grow = nn.Sequential(nn.Linear(C, 4 * C), nn.GELU(), nn.Dropout(0.0))
        self.layers = nn.Sequential(grow, nn.Linear(4 * C, C), nn.Dropout(0.0))
        self.dropout_layer = nn.Identity()
        self.gamma2 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout_layer(self.gamma2(self.layers(x)))


class SwinBlock(nn.Module):
    with_cp = False

    def __init__(self, C: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(C)
        self.attn = ShiftWindowMSA(C, heads, window, shift)
        self.norm2 = nn.LayerNorm(C)
        self.ffn = FFN(C)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        x = x + self.attn(self.norm1(x), hw)
        return x + self.ffn(self.norm2(x))


class CornerPadding(nn.Module):
    """Zeros at the end, to whole patches."""

    padding = "corner"

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, -x.shape[-1] % self.side, 0, -x.shape[-2] % self.side))


class PatchEmbed(nn.Module):
    def __init__(self, C: int, patch: int) -> None:
        super().__init__()
        self.adap_padding = CornerPadding(patch)
        self.projection = nn.Conv2d(3, C, patch, patch)
        self.norm = nn.LayerNorm(C)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.projection(self.adap_padding(images))
        hw = (x.shape[2], x.shape[3])
        return self.norm(x.flatten(2).transpose(1, 2)), hw


class PatchMerging(nn.Module):
    def __init__(self, C: int) -> None:
        super().__init__()
        self.adap_padding = CornerPadding(2)
        self.sampler = nn.Unfold(2, stride=2)
        self.norm = nn.LayerNorm(4 * C)
        self.reduction = nn.Linear(4 * C, 2 * C, bias=False)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        H, W = hw
        x = x.view(x.shape[0], H, W, -1).permute(0, 3, 1, 2)
        x = self.sampler(self.adap_padding(x)).transpose(1, 2)
        return self.reduction(self.norm(x)), ((H + 1) // 2, (W + 1) // 2)


class Stage(nn.Module):
    def __init__(self, C: int, heads: int, depth: int, window: int, last: bool) -> None:
        super().__init__()
        shifts = [0 if i % 2 == 0 else window // 2 for i in range(depth)]
        self.blocks = nn.ModuleList(SwinBlock(C, heads, window, shift) for shift in shifts)
        self.downsample = None if last else PatchMerging(C)


class SwinTransformer(nn.Module):
    """Takes of mmdet's arguments those that shape a Swin; ``pretrain_img_size`` is not used."""

    use_abs_pos_embed = False

    def __init__(
        self,
        pretrain_img_size: Any = 224,
        *,
        embed_dims: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
    ) -> None:
        super().__init__()
        self.out_indices = tuple(range(len(depths)))
        self.num_features = [embed_dims * 2**i for i in self.out_indices]
        self.patch_embed = PatchEmbed(embed_dims, 4)
        self.drop_after_pos = nn.Dropout(0.0)
        self.stages = nn.ModuleList(
            Stage(C, num_heads[i], depths[i], window_size, last=i == len(depths) - 1)
            for i, C in enumerate(self.num_features)
        )
        for i, C in enumerate(self.num_features):
            self.add_module(f"norm{i}", nn.LayerNorm(C))

    def forward(self, images: Tensor) -> list[Tensor]:
        x, hw = self.patch_embed(images)
        outs = []
        for i, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = block(x, hw)
            out = getattr(self, f"norm{i}")(x).view(-1, *hw, self.num_features[i])
            outs.append(out.permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x, hw = stage.downsample(x, hw)
        return outs


class _Registry:
    """Takes the place of mmdet's registry: classes register, nothing looks them up."""

    def __init__(self, parent: _Registry | None = None) -> None:
        self.parent = parent

    def register_module(self) -> Any:
        return lambda cls: cls


def stand_in() -> None:
    """Let ``sparsevit.models.sparsevit`` be imported without mmdet, mmengine, mmcv and YAML.

    The files of the package that it needs run as they are; those that only read configs and
    checkpoints are left out.
    """
    import sparsevit

    root = Path(sparsevit.__file__).parent
    for name in ("models", "sparsity"):
        # a package without its __init__, which imports more than a forward needs
        _module(f"sparsevit.{name}", __path__=[str(root / name)])
    _module("sparsevit.models.swin_weights", initialise=None)
    _module("mmdet.registry", MODELS=_Registry(_Registry()))
    _module("mmcv.cnn.bricks.wrappers", Conv2d=nn.Conv2d, Linear=nn.Linear)
    _module(
        "mmdet.models.backbones.swin",
        SwinBlock=SwinBlock,
        SwinTransformer=SwinTransformer,
        WindowMSA=WindowMSA,
    )


def _module(name: str, **contents: Any) -> None:
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = ".".join(parts[:depth])
        if sys.modules.get(path) is None or path == name:
            sys.modules[path] = ModuleType(path)
            sys.modules[path].__path__ = []  # type: ignore[attr-defined]
    vars(sys.modules[name]).update(contents)
    for parent, child in pairwise(".".join(parts[: i + 1]) for i in range(len(parts))):
        setattr(sys.modules[parent], child.rpartition(".")[2], sys.modules[child])
