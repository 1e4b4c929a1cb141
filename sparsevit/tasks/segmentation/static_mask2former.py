"""Mask2Former's pixel decoder with the sizes of its maps as plain numbers.

mmdet's own keeps them in tensors, which neither an export nor a compiler can see through. This twin
computes the same on the same modules, in the same order.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]


def with_plain_sizes(head: Any) -> Any:
    """A decode head with the twin of its pixel decoder; other heads as they are.

    Args:
        head: is left as it is; parameters are shared.
    """
    from mmdet.models.layers import MSDeformAttnPixelDecoder

    decoder = getattr(head, "pixel_decoder", None)
    if type(decoder) is not MSDeformAttnPixelDecoder:
        return head
    twin = copy.copy(head)
    twin._modules = {**head._modules, "pixel_decoder": StaticPixelDecoder(decoder)}
    return twin


class StaticPixelDecoder(nn.Module):
    """The twin of mmdet's ``MSDeformAttnPixelDecoder``, for inference.

    Args:
        decoder: whose modules it uses.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps (B, C, H, W) by level -> the mask feature, and maps from low to high resolution."""
        decoder: Any = self.decoder
        levels = list(range(len(feats) - 1, -1, -1))[: decoder.num_encoder_levels]
        sizes = [(int(feats[i].shape[-2]), int(feats[i].shape[-1])) for i in levels]

        tokens, positions, points = [], [], []
        for number, level in enumerate(levels):
            feat = feats[level]
            tokens.append(decoder.input_convs[number](feat).flatten(2).transpose(1, 2))
            empty = feat.new_zeros((len(feat), *sizes[number]), dtype=torch.bool)
            encoded = decoder.postional_encoding(empty)
            embedded = decoder.level_encoding.weight[number].view(1, -1, 1, 1) + encoded
            positions.append(embedded.flatten(2).transpose(1, 2))
            points.append(_centres(sizes[number], feat))
        x_BLC, position_BLC = torch.cat(tokens, 1), torch.cat(positions, 1)
        # where a token lies is the same in every level
        point_1L112 = torch.cat(points)[None, :, None, None]
        for layer in decoder.encoder.layers:
            x_BLC = _attend(layer.self_attn, x_BLC, position_BLC, point_1L112, sizes)
            x_BLC = layer.norms[0](x_BLC)
            x_BLC = layer.norms[1](layer.ffn(x_BLC))

        parts = x_BLC.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
        outs = [part.unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]
        finest = len(feats) - decoder.num_encoder_levels - 1
        for level in range(finest, -1, -1):
            lateral = decoder.lateral_convs[level](feats[level])
            size = lateral.shape[-2:]
            upper = F.interpolate(outs[-1], size=size, mode="bilinear", align_corners=False)
            outs.append(decoder.output_convs[level](lateral + upper))
        return decoder.mask_feature(outs[-1]), outs[: decoder.num_outs]


def _centres(size: Size, like: Tensor) -> Tensor:
    """(H * W, 2) x and y of the centres of a map's tokens, in 0 to 1."""
    height, width = size
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid[1], grid[0]), dim=-1).flatten(0, 1)


def _attend(
    attention: Any, x_BLC: Tensor, position_BLC: Tensor, point_1L112: Tensor, sizes: list[Size]
) -> Tensor:
    """mmcv's ``MultiScaleDeformableAttention`` of all tokens on all levels."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    batch, length = x_BLC.shape[:2]
    heads, levels, count = attention.num_heads, attention.num_levels, attention.num_points
    value = attention.value_proj(x_BLC).view(batch, length, heads, -1)
    query = x_BLC + position_BLC
    offsets = attention.sampling_offsets(query).view(batch, length, heads, levels, count, 2)
    weights = attention.attention_weights(query).view(batch, length, heads, -1).softmax(-1)
    scale = x_BLC.new_tensor([[width, height] for height, width in sizes])[:, None]
    where = point_1L112[:, :, :, None] + offsets / scale
    attended = multi_scale_deformable_attn_pytorch(
        value, sizes, where, weights.view(batch, length, heads, levels, count)
    )
    return attention.output_proj(attended) + x_BLC
