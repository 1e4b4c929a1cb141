"""UPerNet and Mask2Former with Swin-T, dense and ours, and pictures for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.tasks import TASKS
from sparsevit.tasks.pictures import pictures

PICTURES = 3


@dataclass(frozen=True)
class Kind:
    """A segmentor.

    Attributes:
        config: of ours that says what it is.
        parts: see :func:`shared.parts.parts_of`.
    """

    config: str
    parts: tuple[tuple[str, str, str], ...]


_AROUND = (
    ("preprocessing", "data_preprocessor", "forward"),
    ("backbone", "backbone", "forward"),
)
SEGMENTORS = {
    "UPerNet": Kind(
        "sparsevit::swin/upernet_swin-t_ade20k.py",
        (
            *_AROUND,
            ("laterals and FPN", "decode_head.lateral_convs.*", "forward"),
            ("laterals and FPN", "decode_head.fpn_convs.*", "forward"),
            ("pyramid pooling", "decode_head", "psp_forward"),
            ("maps fused", "decode_head.fpn_bottleneck", "forward"),
            ("classes", "decode_head", "cls_seg"),
            ("logits at the image's size", "decode_head", "predict_by_feat"),
            ("labels", "", "postprocess_result"),
        ),
    ),
    "Mask2Former": Kind(
        "sparsevit::swin/mask2former_swin-t_cityscapes.py",
        (
            *_AROUND,
            ("pixel decoder", "decode_head.pixel_decoder", "forward"),
            ("transformer decoder", "decode_head.transformer_decoder.layers.*", "forward"),
            ("masks of the queries", "decode_head", "_forward_head"),
            ("labels", "", "postprocess_result"),
        ),
    ),
}
"""The rest of Mask2Former is masks at the image's size, joined into logits."""


class Segmentors:
    """mmseg's model and ours, with the same random weights, and what they are given.

    Args:
        kind: one of :data:`SEGMENTORS`.
        shape: (B, 3, H, W) of the images.

    Attributes:
        dense, sparse: in evaluation mode, on images as a whole.
        images: some batches, normalised.
        batch: what ``test_step`` takes.
    """

    def __init__(self, kind: Kind, shape: tuple[int, int, int, int]) -> None:
        self.kind = kind
        cfg = load_config(kind.config, ["model.test_cfg.mode=whole"])
        self.dense: Any = build_model(cfg)[0]
        self.sparse: Any = build_model(sparsify_config(cfg))[0]
        self.sparse.load_state_dict(self.dense.state_dict())
        self.images: list[Tensor] = [pictures(self.dense, shape, seed) for seed in range(PICTURES)]
        pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
        self.batch = TASKS["segmentation"].batch_of(pixels.to(torch.uint8))
