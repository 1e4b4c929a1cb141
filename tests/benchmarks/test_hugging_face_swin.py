"""benchmarks/shared/hugging_face.py: the peer computes what mmdet's Swin does."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from mmdet_backbones import small_swin

SHAPE = {"embed_dims": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
@pytest.mark.parametrize("hw", [(112, 56), (60, 92)])
def test_its_maps_are_those_of_mmdet(bench, hw):
    torch.manual_seed(0)
    swin = small_swin("SwinTransformer")
    peer = bench("shared.hugging_face").HuggingFaceSwin(swin, SHAPE)
    images = torch.randn(2, 3, *hw)
    with torch.no_grad():
        for theirs, ours in zip(peer(images), swin(images), strict=True):
            assert torch.allclose(theirs, ours, atol=1e-4)


def test_patch_merging_in_its_order_is_that_of_mmdet(bench):
    torch.manual_seed(0)
    swin = small_swin("SwinTransformer")
    weights = bench("shared.hugging_face").renamed(swin.state_dict())
    x_BHWC = torch.randn(1, 8, 6, 16)
    merged = [x_BHWC[:, row::2, column::2] for column in range(2) for row in range(2)]
    prefix = "swin.encoder.layers.0.downsample"
    y = F.layer_norm(
        torch.cat(merged, dim=-1).flatten(1, 2),
        (64,),
        weights[f"{prefix}.norm.weight"],
        weights[f"{prefix}.norm.bias"],
    )
    y = y @ weights[f"{prefix}.reduction.weight"].t()
    expected, _ = swin.stages[0].downsample(x_BHWC.flatten(1, 2), (8, 6))
    assert torch.allclose(y, expected, atol=1e-5)


def test_every_weight_gets_one_name_and_none_of_mmdets_is_left(bench):
    swin = small_swin("SwinTransformer")
    renamed = bench("shared.hugging_face").renamed(swin.state_dict())
    assert all(key.startswith(("swin.", "hidden_states_norms.stage")) for key in renamed)
    assert not [key for key in renamed if "attn" in key or "ffn" in key or "qkv" in key]
    own = {k: v for k, v in swin.state_dict().items() if not k.endswith("position_index")}
    assert sum(v.numel() for v in renamed.values()) == sum(v.numel() for v in own.values())
