"""Whole models of Hugging Face transformers with window attention, built small from configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from huggingface_models import randomised
from torch import nn

SWIN: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 2, 2, 2],
    "num_heads": [2, 2, 2, 2],
    "window_size": 3,
    "drop_path_rate": 0.0,
}
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def _pixels(size: int = 64) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(1, 3, size, size, generator=generator)}


def maskformer() -> nn.Module:
    decoder = hf.DetrConfig(
        d_model=16,
        decoder_layers=1,
        encoder_layers=1,
        decoder_attention_heads=2,
        encoder_attention_heads=2,
        decoder_ffn_dim=16,
        encoder_ffn_dim=16,
        num_queries=4,
    )
    config = hf.MaskFormerConfig(
        fpn_feature_size=32,
        mask_feature_size=32,
        backbone_config=hf.MaskFormerSwinConfig(**SWIN, out_features=STAGES),
        decoder_config=decoder,
    )
    return hf.MaskFormerForInstanceSegmentation(config)


def mask2former() -> nn.Module:
    config = hf.Mask2FormerConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=STAGES),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=4,
    )
    return hf.Mask2FormerForUniversalSegmentation(config)


def oneformer() -> nn.Module:
    config = hf.OneFormerConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=STAGES),
        num_queries=4,
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        num_attention_heads=2,
        dim_feedforward=16,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        text_encoder_width=32,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=50,
        text_encoder_context_length=8,
        task_seq_len=8,
        use_task_norm=True,
    )
    return hf.OneFormerForUniversalSegmentation(config)


def upernet() -> nn.Module:
    config = hf.UperNetConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=STAGES),
        hidden_size=16,
        use_auxiliary_head=False,
        num_labels=3,
    )
    return hf.UperNetForSemanticSegmentation(config)


def grounding_dino() -> nn.Module:
    text = {
        "model_type": "bert",
        "vocab_size": 1100,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    config = hf.GroundingDinoConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=STAGES[1:]),
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=4,
        disable_custom_kernels=True,
    )
    return hf.GroundingDinoForObjectDetection(config)


def donut() -> nn.Module:
    decoder = hf.BartConfig(
        vocab_size=20,
        d_model=16,
        decoder_layers=1,
        encoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        encoder_ffn_dim=16,
        is_decoder=True,
        add_cross_attention=True,
    )
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.DonutSwinConfig(**(SWIN | {"window_size": 2})), decoder
    )
    return hf.VisionEncoderDecoderModel(config)


def sam_model() -> nn.Module:
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_pos_feats": 8,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "mlp_dim": 32,
        "image_size": 64,
        "patch_size": 4,
        "window_size": 5,
        "global_attn_indexes": [1],
    }
    prompt = {
        "hidden_size": 16,
        "num_pos_feats": 8,
        "image_size": 64,
        "patch_size": 4,
        "mask_input_channels": 4,
    }
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    config = hf.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return hf.SamModel(config)


WHOLE: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]], int]] = {
    "MaskFormer": (maskformer, _pixels, 8),
    "Mask2Former": (mask2former, _pixels, 8),
    "OneFormer": (
        oneformer,
        lambda: _pixels() | {"task_inputs": torch.ones(1, 8, dtype=torch.long)},
        8,
    ),
    "UPerNet": (upernet, _pixels, 8),
    "Grounding DINO": (
        grounding_dino,
        lambda: _pixels(128) | {"input_ids": torch.tensor([[101, 5, 1012, 102]])},
        8,
    ),
    "Donut": (donut, lambda: _pixels() | {"decoder_input_ids": torch.tensor([[1, 2]])}, 8),
    "SAM": (sam_model, lambda: _pixels() | {"input_points": torch.ones(1, 1, 1, 2)}, 3),
}
"""Name -> how it is built, its input, and how many blocks with windows it has."""


def built(name: str) -> nn.Module:
    """One of these models, with random weights, in evaluation mode."""
    torch.manual_seed(0)
    return randomised(WHOLE[name][0]())
