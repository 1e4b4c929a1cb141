"""Hugging Face's Swin with the weights of mmdet's: a peer whose outputs must be the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# mmdet -> transformers; what matches none is spelt alike
_NAMES = (
    (r"^patch_embed\.projection\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"^stages\.", "swin.encoder.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.w_msa\.(relative_position_bias)_table$", r".attention.\1.\1_table"),
    (r"\.attn\.w_msa\.proj\.", ".attention.o_proj."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)


class HuggingFaceSwin(nn.Module):
    """transformers' ``SwinBackbone`` as mmdet's is called: images in, a list of maps out.

    Args:
        swin: mmdet's ``SwinTransformer``, whose weights are taken.
        shape: ``embed_dims``, ``depths`` and ``num_heads`` of it.

    Raises:
        ImportError: transformers is not installed.
        RuntimeError: this version of it has other parameters.
    """

    def __init__(self, swin: nn.Module, shape: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import SwinBackbone, SwinConfig

        stages = len(shape["depths"])
        config = SwinConfig(
            embed_dim=shape["embed_dims"],
            depths=list(shape["depths"]),
            num_heads=list(shape["num_heads"]),
            window_size=7,
            drop_path_rate=0.0,
            out_indices=list(range(1, stages + 1)),
        )
        self.backbone = SwinBackbone(config)
        result = self.backbone.load_state_dict(renamed(swin.state_dict()), strict=False)
        # the norm over the last stage, which a backbone does not run
        missing = [key for key in result.missing_keys if not key.startswith("swin.layernorm.")]
        if missing or result.unexpected_keys:
            raise RuntimeError(
                f"this transformers names Swin's parameters otherwise: {missing[:3]} missing, "
                f"{result.unexpected_keys[:3]} unknown"
            )
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.backbone(images).feature_maps)


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """mmdet's weights of a Swin under the names, and in the order, of transformers."""
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key.endswith("relative_position_index"):
            continue
        if ".qkv." in key:
            start, end = key.split(".attn.w_msa.qkv.")
            for name, part in zip("qkv", value.chunk(3), strict=True):
                found[_renamed(f"{start}.attention.{name}_proj.{end}")] = part
            continue
        if ".downsample." in key:
            value = _merging_order(value)
        found[_renamed(key)] = value
    return found


def _renamed(key: str) -> str:
    output_norm = re.match(r"norm(\d+)\.(\w+)$", key)
    if output_norm:
        return f"hidden_states_norms.stage{int(output_norm[1]) + 1}.{output_norm[2]}"
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    return key


def _merging_order(value: Tensor) -> Tensor:
    """A weight on the 4C inputs of patch merging, from mmdet's order (channel, row, column) to
    transformers' (column, row, channel)."""
    grid = value.unflatten(-1, (-1, 2, 2))
    moved = torch.movedim(grid, (-3, -2, -1), (-1, -2, -3))
    return moved.flatten(-3).contiguous()
