"""The convolutional parts of BEVDet: a ResNet and the neck that joins two of its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparsevit.errors import UserError

BATCH_NORM = {"type": "BN"}


@MODELS.register_module()
class ResNetForBEVDet(BaseModule):
    """Residual stages on a map that is already small: no stem (BEVDet, section 3.2).

    Args:
        numC_input: channels of the map.
        num_layer: blocks of each stage.
        num_channels: channels of each stage; None for twice those of the one before.
        stride: of each stage.
        backbone_output_ids: stages whose maps are given out; None for all.
        norm_cfg: normalisation.
        with_cp: whether activations of a stage are computed again in backward, not kept.
        block_type: ``Basic`` or ``BottleNeck``.
        init_cfg: of mmengine.
    """

    def __init__(
        self,
        numC_input: int,
        num_layer: Sequence[int] = (2, 2, 2),
        num_channels: Sequence[int] | None = None,
        stride: Sequence[int] = (2, 2, 2),
        backbone_output_ids: Sequence[int] | None = None,
        norm_cfg: Mapping[str, Any] = BATCH_NORM,
        with_cp: bool = False,
        block_type: str = "Basic",
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        if block_type not in ("Basic", "BottleNeck"):
            raise UserError(
                f"block_type={block_type!r} of ResNetForBEVDet is not known.",
                "Use 'Basic' or 'BottleNeck'.",
            )
        kind, widening = (BasicBlock, 1) if block_type == "Basic" else (Bottleneck, 4)
        widths = num_channels or [numC_input * 2 ** (i + 1) for i in range(len(num_layer))]
        stages, before = [], numC_input
        for depth, width, step in zip(num_layer, widths, stride, strict=True):
            shortcut = nn.Conv2d(before, width, 3, step, 1)
            norm = dict(norm_cfg)
            planes = width // widening
            first = kind(before, planes, stride=step, downsample=shortcut, norm_cfg=norm)
            others = [kind(width, planes, norm_cfg=norm) for _ in range(depth - 1)]
            stages.append(nn.Sequential(first, *others))
            before = width
        self.layers = nn.Sequential(*stages)
        self.backbone_output_ids = (
            range(len(stages)) if backbone_output_ids is None else backbone_output_ids
        )
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, numC_input, H, W) -> maps of the stages given out."""
        maps = []
        for i, stage in enumerate(self.layers):
            keep = not (self.with_cp and x.requires_grad)
            x = stage(x) if keep else checkpoint(stage, x, use_reentrant=False)
            if i in self.backbone_output_ids:
                maps.append(x)
        return maps


@MODELS.register_module()
class FPN_LSS(BaseModule):
    """Enlarges the smaller of two maps and joins them (the neck of LSS, and of BEVDet).

    Args:
        in_channels: of both maps together.
        out_channels: of the result.
        scale_factor: how many times as large the one is as the other.
        input_feature_index: which of the maps given are joined: (the larger, the smaller).
        norm_cfg: normalisation.
        extra_upsample: how many times the result is enlarged; None for not at all.
        lateral: channels of the larger map, to pass it through a convolution first; None for none.
        init_cfg: of mmengine.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale_factor: int = 4,
        input_feature_index: Sequence[int] = (0, 2),
        norm_cfg: Mapping[str, Any] = BATCH_NORM,
        extra_upsample: int | None = 2,
        lateral: int | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)

        def convolved(before: int, after: int, size: int = 3) -> list[nn.Module]:
            conv = nn.Conv2d(before, after, size, padding=size // 2, bias=False)
            return [conv, build_norm_layer(dict(norm_cfg), after)[1], nn.ReLU(inplace=True)]

        self.input_feature_index = input_feature_index
        self.up = enlarged(scale_factor)
        width = out_channels * (2 if extra_upsample else 1)
        self.conv = nn.Sequential(*convolved(in_channels, width), *convolved(width, width))
        self.up2 = None
        if extra_upsample:
            self.up2 = nn.Sequential(
                enlarged(extra_upsample),
                *convolved(width, out_channels),
                nn.Conv2d(out_channels, out_channels, kernel_size=1),
            )
        self.lateral_conv = None
        if lateral:
            self.lateral_conv = nn.Sequential(*convolved(lateral, lateral, size=1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W), among them the two -> (B, out_channels, H', W').

        Raises:
            UserError: one map, enlarged, is not as large as the other.
        """
        larger, smaller = (maps[i] for i in self.input_feature_index)
        if self.lateral_conv is not None:
            larger = self.lateral_conv(larger)
        smaller = self.up(smaller)
        if larger.shape[-2:] != smaller.shape[-2:]:
            raise UserError(
                f"FPN_LSS cannot join a map of {tuple(larger.shape[-2:])} with one that is "
                f"{tuple(smaller.shape[-2:])} when enlarged.",
                "Use images, and a grid, whose sides are multiples of the smaller map's stride "
                "(for images 32).",
            )
        x = self.conv(torch.cat([larger, smaller], dim=1))
        return x if self.up2 is None else self.up2(x)


def enlarged(times: int) -> nn.Upsample:
    """Bilinear, corners on corners."""
    return nn.Upsample(scale_factor=times, mode="bilinear", align_corners=True)
