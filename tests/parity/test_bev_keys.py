"""BEVDet has the weights of the reference's ``configs/bevdet/bevdet-sttiny.py``, name by name.

Names and shapes are spelled out here from the layers that its code builds for this config, so
that a checkpoint of its training loads as it is.
"""

from __future__ import annotations

import torch
from bev_scene import TASKS, bevdet
from mmdet.registry import MODELS


def conv(name, out, into, size, bias):
    return {f"{name}.weight": (out, into, size, size), **({f"{name}.bias": (out,)} if bias else {})}


def linear(name, out, into, bias=True):
    return {f"{name}.weight": (out, into), **({f"{name}.bias": (out,)} if bias else {})}


def layer_norm(name, channels):
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def batch_norm(name, channels):
    numbers = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{n}": (channels,) for n in numbers}, f"{name}.num_batches_tracked": ()}


def swin_t(name):
    keys = {**conv(f"{name}.patch_embed.projection", 96, 3, 4, True)}
    keys |= layer_norm(f"{name}.patch_embed.norm", 96)
    for i, depth in enumerate((2, 2, 6, 2)):
        C, heads = 96 * 2**i, 3 * 2**i
        for j in range(depth):
            block = f"{name}.stages.{i}.blocks.{j}"
            attention = f"{block}.attn.w_msa"
            keys |= layer_norm(f"{block}.norm1", C) | layer_norm(f"{block}.norm2", C)
            keys |= {f"{attention}.relative_position_bias_table": (13 * 13, heads)}
            keys |= {f"{attention}.relative_position_index": (49, 49)}
            keys |= linear(f"{attention}.qkv", 3 * C, C) | linear(f"{attention}.proj", C, C)
            keys |= linear(f"{block}.ffn.layers.0.0", 4 * C, C)
            keys |= linear(f"{block}.ffn.layers.1", C, 4 * C)
        if i < 3:
            keys |= layer_norm(f"{name}.stages.{i}.downsample.norm", 4 * C)
            keys |= linear(f"{name}.stages.{i}.downsample.reduction", 2 * C, 4 * C, bias=False)
    return keys | layer_norm(f"{name}.norm2", 384) | layer_norm(f"{name}.norm3", 768)


def fpn_lss(name, into, out, enlarged):
    width = 2 * out if enlarged else out
    keys = conv(f"{name}.conv.0", width, into, 3, False) | batch_norm(f"{name}.conv.1", width)
    keys |= conv(f"{name}.conv.3", width, width, 3, False) | batch_norm(f"{name}.conv.4", width)
    if enlarged:
        keys |= conv(f"{name}.up2.1", out, width, 3, False) | batch_norm(f"{name}.up2.2", out)
        keys |= conv(f"{name}.up2.4", out, out, 1, True)
    return keys


def view_transformer(name):
    grid = {f"{name}.{n}": (3,) for n in ("dx", "bx", "nx")}
    frustum = {f"{name}.frustum": (59, 16, 44, 3)}
    return grid | frustum | conv(f"{name}.depthnet", 59 + 64, 512, 1, True)


def bev_encoder(name):
    keys = {}
    for i, (into, out) in enumerate(((64, 128), (128, 256), (256, 512))):
        for j in range(2):
            block = f"{name}.layers.{i}.{j}"
            keys |= conv(f"{block}.conv1", out, out if j else into, 3, False)
            keys |= conv(f"{block}.conv2", out, out, 3, False)
            keys |= batch_norm(f"{block}.bn1", out) | batch_norm(f"{block}.bn2", out)
        keys |= conv(f"{name}.layers.{i}.0.downsample", out, into, 3, True)
    return keys


def center_head(name):
    keys = conv(f"{name}.shared_conv.conv", 64, 256, 3, False)
    keys |= batch_norm(f"{name}.shared_conv.bn", 64)
    for i, classes in enumerate(TASKS):
        maps = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "heatmap": len(classes)}
        for part, channels in maps.items():
            layers = f"{name}.task_heads.{i}.{part}"
            keys |= conv(f"{layers}.0.conv", 64, 64, 3, False) | batch_norm(f"{layers}.0.bn", 64)
            keys |= conv(f"{layers}.1", channels, 64, 3, True)
    return keys


def reference_keys():
    return {
        **swin_t("img_backbone"),
        **fpn_lss("img_neck", 384 + 768, 512, enlarged=False),
        **view_transformer("img_view_transformer"),
        **bev_encoder("img_bev_encoder_backbone"),
        **fpn_lss("img_bev_encoder_neck", 64 * 8 + 64 * 2, 256, enlarged=True),
        **center_head("pts_bbox_head"),
    }


def test_it_has_the_reference_s_keys_and_shapes():
    model = MODELS.build(bevdet())
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert ours == reference_keys()
    zeros = {name: torch.zeros(shape) for name, shape in reference_keys().items()}
    model.load_state_dict(zeros, strict=True)


def test_what_is_not_learned_is_what_the_reference_makes():
    view = MODELS.build(bevdet()["img_view_transformer"])
    assert view.dx.tolist() == torch.tensor([0.8, 0.8, 20.0]).tolist()
    assert view.bx.tolist() == torch.tensor([-51.2 + 0.4, -51.2 + 0.4, 0.0]).tolist()
    assert view.nx.tolist() == [128, 128, 1]
    for d, y, x in ((0, 0, 0), (58, 15, 43), (7, 3, 20)):
        expected = (x * 703 / 43, y * 255 / 15, 1 + d)
        torch.testing.assert_close(view.frustum[d, y, x], torch.tensor(expected))
    assert not [p for p in view.parameters() if not p.requires_grad]
