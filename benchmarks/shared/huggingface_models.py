"""Models of Hugging Face transformers for ``benchmarks/sparsify.py``, built from configs.

Each takes the side of the image in pixels; the plain ViTs are those of the papers, for 1024 x 1024.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

GLOBAL_BLOCKS = (2, 5, 8, 11)
"""Of ViTDet-B and SAM-B: they see the whole map and stay dense."""


def swin_tiny(img_size: int) -> nn.Module:
    from transformers import SwinConfig, SwinModel

    return SwinModel(SwinConfig(image_size=img_size))


def swinv2_tiny(img_size: int) -> nn.Module:
    from transformers import Swinv2Config, Swinv2Model

    return Swinv2Model(Swinv2Config(image_size=img_size))


def vitdet_base(img_size: int) -> nn.Module:
    from transformers import VitDetConfig, VitDetModel

    windowed = [block for block in range(12) if block not in GLOBAL_BLOCKS]
    config = VitDetConfig(
        image_size=img_size,
        window_size=14,
        window_block_indices=windowed,
        use_relative_position_embeddings=True,
    )
    return VitDetModel(config)


def sam_base(img_size: int) -> nn.Module:
    from transformers import SamVisionConfig, SamVisionModel

    return SamVisionModel(SamVisionConfig(image_size=img_size, global_attn_indexes=GLOBAL_BLOCKS))


def call(model: Any, images: Tensor) -> list[Tensor]:
    """A model on a batch of images: its last hidden state."""
    output: Tensor = model(images).last_hidden_state
    return [output]


HUGGING_FACE = {
    "transformers/swin_tiny": (swin_tiny, None),
    "transformers/swinv2_tiny": (swinv2_tiny, None),
    "transformers/vitdet_base": (vitdet_base, 1024),
    "transformers/sam_base": (sam_base, 1024),
}
"""Name -> how it is built, and the side of its image where it has one of its own."""
