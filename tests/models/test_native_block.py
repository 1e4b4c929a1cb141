"""A backbone compiled with frozen weights, in native code, against the eager one."""

from __future__ import annotations

import gc

import pytest
import torch
from frozen_backbones import frozen, two_stages
from mmdet.models.layers import PatchEmbed, PatchMerging
from torch import nn
from torch.nn.utils import prune

from sparsevit.models import native_block
from sparsevit.models.compiled import compiled, compiled_pieces
from sparsevit.models.native_block import (
    block_natively,
    embed_natively,
    feature_map_natively,
    merge_patches_natively,
)
from sparsevit.models.sparsevit import StageTokens
from sparsevit.ops.native import swin
from sparsevit.ops.windows import window_layout

pytestmark = pytest.mark.skipif(not swin.usable(), reason="no native code here")
ALL_PARTS = {
    "sparsevit_embed",
    "sparsevit_swin_block",
    "sparsevit_merge_patches",
    "sparsevit_feature_map",
}


@pytest.fixture
def native_calls(monkeypatch):
    calls = []
    plain = swin._call

    def counting(name, *arguments):
        calls.append(name)
        return plain(name, *arguments)

    monkeypatch.setattr(swin, "_call", counting)
    return calls


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


# no multiple of a window, of a patch, of two patches; less than a window
@pytest.mark.parametrize("size", [(112, 112), (100, 124), (111, 90), (20, 15)])
@pytest.mark.parametrize("pad_before_norm", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_gives_what_eager_gives(size, pad_before_norm, batch, native_calls):
    backbone = two_stages(pad_before_norm=pad_before_norm)
    twin = frozen(backbone)
    images = torch.randn(batch, 3, *size)
    with torch.no_grad():
        for ratio in (0.0, 0.3, 0.8, [0.0, 0.6], [[0.5, 0.2], [0.0, 0.9]]):
            backbone.pruning_ratios = twin.pruning_ratios = ratio
            assert_same(twin(images), backbone(images))
    assert set(native_calls) == ALL_PARTS


@pytest.mark.parametrize(
    "described",
    [
        {"qkv_bias": False},
        {"qk_scale": 0.5},
        {"window_size": 4},
        {"use_abs_pos_embed": True},
        {"mlp_ratio": 3},
    ],
    ids=str,
)
def test_other_swins(described, native_calls):
    backbone = two_stages(**described)
    twin = frozen(backbone)
    backbone.pruning_ratios = twin.pruning_ratios = 0.4
    images = torch.randn(1, 3, 112, 100)
    with torch.no_grad():
        assert_same(twin(images), backbone(images))
    assert set(native_calls) == ALL_PARTS


def test_a_swin_without_norms_of_patches(native_calls):
    backbone = two_stages(patch_norm=False)
    images = torch.randn(1, 3, 112, 100)
    with torch.no_grad():
        assert_same(frozen(backbone)(images), backbone(images))
    assert set(native_calls) == ALL_PARTS - {"sparsevit_merge_patches"}


def test_images_in_another_layout():
    backbone = two_stages()
    images = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert_same(frozen(backbone)(images), backbone(images))


def test_what_it_is_given_is_left_as_it_is():
    backbone = two_stages()
    images = torch.randn(1, 3, 64, 64)
    before = images.clone()
    with torch.no_grad():
        first = [out.clone() for out in frozen(backbone)(images)]
        assert_same(frozen(backbone)(images), first)
    assert torch.equal(images, before)


class TestPacking:
    def test_changed_weights_are_packed_anew(self):
        backbone = two_stages()
        twin = frozen(backbone)
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            twin(images)
            for parameter in backbone.parameters():
                parameter.mul_(1.1)
            assert_same(twin(images), backbone(images))
            block = backbone.stages[0].blocks[0]
            block.attn.w_msa.proj.weight = nn.Parameter(torch.randn(16, 16))
            backbone.norm0 = nn.LayerNorm(16, eps=0.1).requires_grad_(False)
            assert_same(twin(images), backbone(images))

    def test_weights_are_packed_once_and_go_with_the_model(self, monkeypatch):
        packed = []
        plain = swin.PackedBlock.__init__
        monkeypatch.setattr(
            swin.PackedBlock,
            "__init__",
            lambda self, *args: (packed.append(1), plain(self, *args))[1],
        )
        gc.collect()
        held = len(native_block._packed)
        backbone = two_stages()
        with torch.no_grad():
            for _ in range(3):
                frozen(backbone)(torch.randn(1, 3, 64, 64))
        assert len(packed) == 4
        assert len(native_block._packed) == held + 1 + 4 + 1 + 2
        del backbone
        gc.collect()
        assert len(native_block._packed) == held

    def test_inference_tensors(self):
        with torch.inference_mode():
            backbone = two_stages()
            images = torch.randn(1, 3, 64, 64)
            assert_same(frozen(backbone)(images), backbone(images))


class TestOtherRoutes:
    """What native code does not compute goes another way, and comes out right."""

    @pytest.fixture
    def backbone(self):
        return two_stages()

    def test_gradients(self, backbone, native_calls):
        sum(out.square().mean() for out in frozen(backbone)(torch.randn(1, 3, 64, 64))).backward()
        assert not native_calls
        assert backbone.stages[0].blocks[0].attn.w_msa.qkv.weight.grad.abs().max() > 0

    def test_training(self, backbone, native_calls):
        twin = frozen(backbone).train()
        with torch.no_grad():
            twin(torch.randn(1, 3, 64, 64))
        assert not native_calls

    def test_autocast(self, backbone, native_calls):
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for got, expected in zip(frozen(backbone)(images), backbone(images), strict=True):
                assert (got - expected).float().norm() < 0.02 * expected.float().norm()
        assert not native_calls

    def test_float64(self, backbone, native_calls):
        backbone.double()
        images = torch.randn(1, 3, 64, 64).double()
        with torch.no_grad():
            assert_same(frozen(backbone)(images), backbone(images))
        assert not native_calls

    def test_weights_that_may_change(self, backbone, native_calls):
        with torch.no_grad():
            compiled(backbone, compiled_pieces(backend="eager"))(torch.randn(1, 3, 64, 64))
        assert not native_calls

    def test_no_native_code(self, backbone, native_calls, monkeypatch):
        monkeypatch.setattr(swin, "usable", lambda: False)
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert_same(frozen(backbone)(images), backbone(images))
        assert not native_calls


def adapted(block):
    class Adapter(nn.Linear):
        pass

    block.attn.w_msa.qkv = Adapter(16, 48)


def scaled(block):
    block.ffn.gamma2 = nn.Sigmoid()


def of_another_activation(block):
    block.ffn.layers[0][1] = nn.ReLU()


def of_another_norm(block):
    block.norm2 = nn.Identity()


def parametrised(block):
    nn.utils.parametrizations.weight_norm(block.attn.w_msa.proj)


def pruned(block):
    prune.l1_unstructured(block.ffn.layers[1], "weight", amount=0.5)


def for_quantisation(block):
    block.attn.w_msa.qkv.qconfig = torch.ao.quantization.get_default_qat_qconfig()
    block.attn.w_msa.qkv = torch.ao.nn.qat.Linear.from_float(block.attn.w_msa.qkv)


@pytest.mark.parametrize(
    "change",
    [
        adapted,
        scaled,
        of_another_activation,
        of_another_norm,
        parametrised,
        pruned,
        for_quantisation,
    ],
)
def test_other_blocks(change):
    block = two_stages().stages[0].blocks[0]
    x_RC = StageTokens.of(torch.randn(1, 196, 16), window_layout(14, 14, 7, 0, torch.device("cpu")))
    with torch.no_grad():
        assert block_natively(block, x_RC.x_RC)
        change(block)
        assert not block_natively(block.eval(), x_RC.x_RC)


@torch.no_grad()
def test_other_embeddings_merging_and_norms():
    images, x_BLC = torch.randn(1, 3, 32, 32), torch.randn(1, 36, 16)
    for options in (
        {"stride": 2},
        {"padding": 1},
        {"padding": "same"},
        {"dilation": 2},
        {"norm_cfg": {"type": "BN1d"}},
    ):
        described = {"embed_dims": 16, "kernel_size": 4, "stride": 4, **options}
        assert embed_natively(PatchEmbed(**described).eval(), images) is None
    assert embed_natively(PatchEmbed(3, 16, kernel_size=4, stride=4).eval(), images) is not None
    for options in ({"stride": 1}, {"kernel_size": 3}, {"norm_cfg": None}, {"padding": "same"}):
        merging = PatchMerging(**{"in_channels": 16, "out_channels": 32, "stride": 2, **options})
        assert merge_patches_natively(merging.eval(), x_BLC, (6, 6)) is None
    assert merge_patches_natively(PatchMerging(16, 32, stride=2).eval(), x_BLC, (6, 6)) is not None
    assert feature_map_natively(nn.Identity().eval(), x_BLC, (6, 6)) is None
    assert feature_map_natively(nn.LayerNorm(16, bias=False).eval(), x_BLC, (6, 6)) is None
