"""Small models of Hugging Face transformers with random weights, and what to ask of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from skipping_reference import Place, _Stage, kept_tokens
from torch import Tensor, nn
from transformers import (
    AutoBackbone,
    DonutSwinConfig,
    MaskFormerSwinConfig,
    SamVisionConfig,
    SamVisionModel,
    SwinBackbone,
    SwinConfig,
    SwinModel,
    Swinv2Backbone,
    Swinv2Config,
    VitDetBackbone,
    VitDetConfig,
)
from transformers.models.donut.modeling_donut_swin import DonutSwinModel

from sparsevit.sparsity.handle import SparsityHandle

SWIN: dict[str, Any] = {
    "image_size": 48,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [2, 4],
    "num_heads": [2, 2],
    "window_size": 3,
    "mlp_ratio": 2.0,
    "drop_path_rate": 0.0,
}
STAGES = ["stage1", "stage2"]


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with weights that let every part count, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            scale = 0.2 if p.ndim > 1 else 0.5
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (p.ndim == 1))
    return model.eval()


def swin_like(name: str, **options: Any) -> nn.Module:
    """Swin in one of its five copies."""
    options = SWIN | options
    if name == "swin":
        return randomised(SwinModel(SwinConfig(**options)))
    if name == "swin backbone":
        return randomised(SwinBackbone(SwinConfig(**options, out_features=STAGES)))
    if name == "swinv2":
        return randomised(Swinv2Backbone(Swinv2Config(**options, out_features=STAGES)))
    if name == "maskformer":
        config = MaskFormerSwinConfig(**options, out_features=STAGES)
        return randomised(AutoBackbone.from_config(config))
    return randomised(DonutSwinModel(DonutSwinConfig(**options)))


SWINS = ("swin", "swin backbone", "swinv2", "maskformer", "donut")


def vitdet(image: int = 44, **options: Any) -> nn.Module:
    """ViTDet with two runs of windowed blocks between two global ones."""
    config = {
        "hidden_size": 16,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "image_size": image,
        "pretrain_image_size": image,
        "patch_size": 4,
        "window_size": 4,
        "window_block_indices": [0, 1, 3, 4],
        "residual_block_indices": [1, 2],
        "use_relative_position_embeddings": True,
        "drop_path_rate": 0.0,
        "out_features": ["stage1", "stage4", "stage6"],
    }
    return randomised(VitDetBackbone(VitDetConfig(**config | options)))


def sam(image: int = 44, **options: Any) -> nn.Module:
    """SAM's image encoder with two runs of windowed blocks before two global ones."""
    config = {
        "hidden_size": 16,
        "output_channels": 8,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "mlp_dim": 32,
        "image_size": image,
        "patch_size": 4,
        "window_size": 4,
        "global_attn_indexes": [2, 5],
    }
    attention = options.pop("attention", "sdpa")
    made = SamVisionConfig(**config | options)
    made._attn_implementation = attention
    return randomised(SamVisionModel(made))


def tensors(output: Any) -> Iterator[Tensor]:
    """Every tensor in a model's output."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from tensors(value)


def assert_alike(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Every tensor of two outputs agrees."""
    ours, theirs = list(tensors(got)), list(tensors(expected))
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        if one.dtype.is_floating_point:
            near = tolerance * max(1.0, float(other.abs().max()))
            torch.testing.assert_close(one, other, atol=near, rtol=tolerance)


def set_by_pairs(model: nn.Module, pairs: Sequence[Sequence[float]]) -> list[list[float]]:
    """Give the knobs of a model these ratios, by group; returns the ratio of each block."""
    handle = SparsityHandle(model)
    handle.set(dict(zip(handle.get(), [r for group in pairs for r in group], strict=True)))
    return [[r for r in group for _ in range(2)] for group in pairs]


@contextmanager
def skipping(
    stages: Sequence[Sequence[Any]],
    ratios: Sequence[Sequence[float]],
    place: Callable[[Any, Tensor, tuple, dict], Place],
) -> Iterator[None]:
    """``skipping_reference.skipping`` for maps (B, C, H, W) too, and the convolutions that ViTDet
    has after a block, which see the whole map."""
    undo: list[Callable[[], Any]] = []
    for blocks, of_blocks in zip(stages, ratios, strict=True):
        shared = {"stage": _Stage()}
        for block, ratio in zip(blocks, of_blocks, strict=True):
            residual = getattr(block, "use_residual_block", False)
            if residual:
                block.use_residual_block = False
                undo.append(lambda block=block: setattr(block, "use_residual_block", True))
            hook = _skips(block is blocks[0], ratio, shared, place, residual)
            undo.append(block.register_forward_hook(hook, with_kwargs=True).remove)
    try:
        yield
    finally:
        for each in undo:
            each()


def _skips(
    first: bool, ratio: float, shared: dict[str, _Stage], place: Callable, residual: bool
) -> Callable:
    def hook(block, args, kwargs, output):
        if first:
            shared["stage"] = _Stage()
        x = args[0]
        new = output[0] if isinstance(output, tuple) else output
        cut = place(block, x, args, kwargs)
        channels_first = x.shape[2:] == cut.hw
        x, new = (t.permute(0, 2, 3, 1) if channels_first else t for t in (x, new))
        keep = kept_tokens(shared["stage"], x, ratio, cut).reshape(*x.shape[:-1], 1)
        new = torch.where(keep, new, x)
        new = new.permute(0, 3, 1, 2) if channels_first else new
        new = block.residual(new) if residual else new
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return hook


def vit_place(block: Any, x: Tensor, args: tuple, kwargs: dict) -> Place:
    """Where a windowed layer of ViTDet (B, C, H, W) or SAM (B, H, W, C) cuts its map."""
    hw = x.shape[2:] if hasattr(block, "use_residual_block") else x.shape[1:3]
    return Place(hw, (block.window_size,) * 2, (0, 0))


def swin_place(block: Any, x: Tensor, args: tuple, kwargs: dict) -> Place:
    """Where a Swin layer of transformers cuts its map, after its forward."""
    hw = args[1] if len(args) > 1 else kwargs["input_dimensions"]
    return Place(hw, (block.window_size,) * 2, (int(block.shift_size),) * 2)


def grads(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of all parameters that have one."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def twin(model: nn.Module) -> Any:
    """A copy, to stay dense."""
    return copy.deepcopy(model)
