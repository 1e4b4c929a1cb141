"""Sparsifiner beyond parity: its settings, mistakes, memory, token labelling, released weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sparsevit.errors import UserError
from sparsevit.methods.attention import forward, routes
from sparsevit.models import released
from sparsevit.models.sparsifiner import (
    SparsifinerConfig,
    build_sparsifiner,
    draw_box,
)

DEIT = SparsifinerConfig("deit", 32, 4, 5, 16, 2, 2, 4)
LVVIT = replace(DEIT, architecture="lvvit", mlp_ratio=3)


def built(config, seed=0):
    torch.manual_seed(seed)
    return build_sparsifiner(config).eval()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"architecture": "swin"}, "architecture"),
        ({"img_size": 30}, "patches of 4"),
        ({"num_heads": 3}, "3 heads"),
        ({"depth": 0}, "depth"),
        ({"keep_rate": 0}, "keep_rate"),
        ({"keep_rate": 1.1}, "keep_rate"),
        ({"keep_rate": [0.5]}, "2 layers"),
        ({"keep_rate": [0.5, 0]}, "keep_rate"),
        ({"reduce_n": 100}, "reduce_n"),
        ({"reduce_c": 9}, "reduce_c"),
        ({"coefficients": 0}, "coefficients"),
        ({"coefficients": 1.5}, "coefficients"),
        ({"connections": "random"}, "connections"),
        ({"connections": 1.0}, "connections"),
        ({"basis_threshold": -1}, "basis_threshold"),
        ({"prune_tokens": {2: 0.5}}, "prune_tokens"),
        ({"prune_tokens": {0: 0}}, "prune_tokens"),
        ({"architecture": "lvvit", "patch_size": 1}, "even"),
    ],
)
def test_a_wrong_setting_is_named(wrong, told):
    with pytest.raises(UserError, match=told) as caught:
        replace(DEIT, **wrong)
    assert caught.value.remedy


def test_images_of_another_size_are_refused_with_what_to_do():
    with pytest.raises(UserError, match="65 tokens") as caught:
        built(DEIT)(torch.randn(1, 3, 36, 32))
    assert "img_size=(36, 32)" in caught.value.remedy


@pytest.mark.parametrize("config", [DEIT, LVVIT], ids=["deit", "lvvit"])
def test_all_connections_equal_dense_attention(config):
    images = torch.randn(2, 3, 32, 32)
    dense = built(replace(config, keep_rate=1))
    kept = built(replace(config, keep_rate=0.999, connections="topk"))
    assert kept.blocks[0].attn.mask_predictor.is_dense(65)  # ceil(0.999 * 65) are all of them
    with torch.no_grad():
        assert torch.equal(dense(images), kept(images))
        assert all(mask.all() for mask in dense.explain(images)["masks"])


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that an operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, torch.Tensor):
                self.numel = max(self.numel, one.numel())
        return out


@pytest.mark.parametrize("connections", ["topk", "blocks", 0.02])
def test_no_product_of_all_queries_and_keys_is_formed_in_inference(connections, monkeypatch):
    monkeypatch.setattr(routes, "serves", lambda *_: False)
    monkeypatch.setattr(forward, "PART_BYTES", 2**16)
    N = 32 * 32 + 1
    config = replace(DEIT, img_size=128, connections=connections, keep_rate=0.05)
    with torch.no_grad(), Largest() as largest:
        built(config)(torch.randn(1, 3, 128, 128))
    assert largest.numel < N * N


@pytest.mark.parametrize("connections", ["topk", "blocks"])
def test_training_keeps_no_product_of_all_queries_and_keys(connections, monkeypatch):
    monkeypatch.setattr(forward, "TRAINED_BYTES", 2**18)
    N = 32 * 32 + 1
    model = built(replace(DEIT, img_size=128, depth=1, connections=connections)).train()
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(torch.randn(1, 3, 128, 128))
    logits.sum().backward()
    assert max(kept.values()) < N * N
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_pruned_tokens_neither_attend_nor_are_attended_to():
    seen = built(replace(DEIT, prune_tokens={0: 0.5})).explain(torch.randn(2, 3, 32, 32))
    first, second = seen["masks"]
    assert first.shape == second.shape == (2, 2, 65, 65)
    assert (first.any(-1).sum(-1) == 65).all()
    assert (second.any(-1).sum(-1) == 33).all()
    assert (second.any(-2).sum(-1) == 33).all()
    assert (second[:, :, 0].sum(-1) == 33).all()
    # a quarter of all tokens, not of those that are left
    assert (second.sum(-1).flatten(2).sort().values[..., 33:-1] == 17).all()


@pytest.mark.parametrize("share", [False, True])
def test_weights_have_the_released_names(share):
    names = set(built(replace(DEIT, share_projection=share)).state_dict())
    predictor = "blocks.1.attn.mask_predictor."
    assert {n.removeprefix(predictor) for n in names if n.startswith(predictor)} == {
        *("proj_n", "proj_back_n", "proj_c_q.weight", "proj_c_q.bias"),
        *("proj_c_k.weight", "proj_c_k.bias"),
    }
    assert {
        *("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight"),
        *("blocks.0.attn.qkv.bias", "blocks.0.attn.proj.weight", "blocks.0.norm2.bias"),
        *("blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.bias", "norm.weight", "head.weight"),
    } <= names
    assert not any("aux" in name for name in names)


def test_lvvit_has_its_stem_and_its_auxiliary_head():
    names = set(built(LVVIT).state_dict())
    assert {"patch_embed.conv3.weight", "patch_embed.bn3.running_var", "aux_head.bias"} <= names
    assert "blocks.0.attn.qkv.bias" not in names


# --- token labelling ------------------------------------------------------------------------------


def test_logits_of_patches_go_back_to_the_image_that_they_are_from():
    """Blocks that do nothing leave every patch by itself: then mixing and un-mixing cancel."""
    model = built(LVVIT)
    for block in model.blocks:
        block.residual = 0
    torch.nn.init.zeros_(model.pos_embed)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        _, plain = model.label_tokens(images)
        _, mixed = model.label_tokens(images, (2, 7, 0, 5))
    torch.testing.assert_close(mixed, plain)


def test_patches_of_a_box_come_from_another_image():
    model = built(LVVIT).train()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits, tokens = model.label_tokens(images)
        whole, _ = model.label_tokens(images, (0, 8, 0, 8))
        nothing, _ = model.label_tokens(images, (3, 3, 0, 8))
        assert tokens.shape == (2, 64, 5)
        torch.testing.assert_close(whole, logits.flip(0))
        torch.testing.assert_close(nothing, logits)
        torch.testing.assert_close(model(images), logits)


def test_boxes_are_drawn_within_the_grid():
    generator = torch.Generator().manual_seed(0)
    boxes = [draw_box((8, 12), generator) for _ in range(200)]
    for top, bottom, left, right in boxes:
        assert 0 <= top <= bottom <= 8
        assert 0 <= left <= right <= 12
    assert len(set(boxes)) > 100


@pytest.mark.parametrize("config", [DEIT, replace(LVVIT, prune_tokens={0: 0.5})])
def test_models_without_logits_of_all_patches_say_so(config):
    with pytest.raises(UserError, match="every patch"):
        built(config).label_tokens(torch.randn(2, 3, 32, 32))


# --- released weights -----------------------------------------------------------------------------


def dense_weights(config, seed=1):
    state = built(config, seed).state_dict()
    return {k: v for k, v in state.items() if released.PREDICTOR not in k}


@pytest.mark.parametrize("config", [DEIT, LVVIT], ids=["deit", "lvvit"])
@pytest.mark.parametrize("holder", [None, "model", "state_dict"])
def test_a_released_file_loads_with_its_predictors(config, holder, tmp_path):
    theirs, ours = built(config, 1), built(config, 2)
    state = {f"module.{k}": v for k, v in theirs.state_dict().items()}
    torch.save({holder: state, "epoch": 1} if holder else state, tmp_path / "released.pth")
    released.load(ours, tmp_path / "released.pth")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("config", [DEIT, LVVIT], ids=["deit", "lvvit"])
def test_a_dense_one_leaves_the_predictors(config):
    model = built(config, 2)
    before = {k: v.clone() for k, v in model.state_dict().items() if released.PREDICTOR in k}
    state = dense_weights(config)
    released.load(model, state)
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in {**before, **state}.items())


def test_positions_of_a_dense_one_are_resized():
    model = built(replace(DEIT, img_size=48))
    state = dense_weights(DEIT)
    state["pos_embed"] = torch.ones(1, 65, 16)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    released.load(model, state)
    assert model.pos_embed.shape == (1, 145, 16)
    torch.testing.assert_close(model.pos_embed.detach(), torch.ones(1, 145, 16))


def test_predictors_for_another_number_of_tokens_are_refused_with_how_to_resize():
    model = built(replace(DEIT, img_size=48))
    with pytest.raises(UserError, match="65 tokens") as caught:
        released.load(model, built(DEIT).state_dict())
    assert "mask_predictor" in caught.value.remedy


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(DEIT, embed_dims=32), "shape"),
        (replace(DEIT, depth=1), r"lacks blocks\.1"),
        (replace(DEIT, depth=3), r"no blocks\.2"),
        (LVVIT, "lacks"),
    ],
)
def test_weights_of_another_model_are_refused(other, told):
    model = built(DEIT)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match=told):
        released.load(model, built(other).state_dict())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError):
        released.load(built(DEIT), tmp_path / "text.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="no weights"):
        released.load(built(DEIT), tmp_path / "tensor.pth")
