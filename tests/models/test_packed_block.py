"""A backbone compiled with frozen weights against the eager one. (Graphs are run eagerly here.)"""

from __future__ import annotations

import pytest
import torch
from frozen_backbones import frozen, two_stages
from torch import nn

from sparsevit.models.packed_block import packable, run_packed_block
from sparsevit.models.window_block import all_windows, run_block
from sparsevit.ops import inference_ops
from sparsevit.ops.native import swin
from sparsevit.ops.windows import window_layout

pytestmark = pytest.mark.skipif(
    not inference_ops.usable(torch.float32), reason="no packed products here"
)
BF16 = pytest.mark.skipif(not inference_ops.usable(torch.bfloat16), reason="no packed bf16 here")
# the second size is no multiple of the window: padding takes part
SIZES = [(112, 112), (100, 124)]


@pytest.fixture(autouse=True)
def _no_native_code(monkeypatch):
    monkeypatch.setattr(swin, "usable", lambda: False)


@pytest.fixture
def packed_calls(monkeypatch):
    calls = []
    plain = inference_ops.packed_linear

    def counting(*args):
        calls.append(args)
        return plain(*args)

    monkeypatch.setattr(inference_ops, "packed_linear", counting)
    return calls


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pad_before_norm", [False, True])
def test_frozen_weights_give_what_eager_gives(size, pad_before_norm, packed_calls):
    backbone = two_stages(pad_before_norm=pad_before_norm)
    twin = frozen(backbone)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        for ratio in (0.0, 0.3, 0.8, [0.0, 0.6]):
            backbone.pruning_ratios = twin.pruning_ratios = ratio
            for got, expected in zip(twin(images), backbone(images), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert packed_calls


@BF16
def test_under_autocast(packed_calls):
    backbone = two_stages()
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for got, expected in zip(frozen(backbone)(images), backbone(images), strict=True):
            assert (got - expected).float().norm() < 0.02 * expected.float().norm()
    assert packed_calls[0][0].dtype == torch.bfloat16


def test_gradients_take_the_plain_route(packed_calls):
    backbone = two_stages()
    images = torch.randn(1, 3, 112, 112)
    sum(out.square().mean() for out in frozen(backbone)(images)).backward()
    assert not packed_calls
    assert backbone.stages[0].blocks[0].attn.w_msa.qkv.weight.grad.abs().max() > 0


def in_training(block):
    block.train()


def adapted(block):
    class Adapter(nn.Linear):
        pass

    qkv = block.attn.w_msa.qkv
    block.attn.w_msa.qkv = Adapter(qkv.in_features, qkv.out_features)


def of_another_norm(block):
    block.norm2 = nn.Identity()


def in_fp64(block):
    block.double()


@pytest.mark.parametrize("change", [in_training, adapted, of_another_norm, in_fp64])
def test_other_blocks_are_not_packed(change):
    block = two_stages().stages[0].blocks[0]
    tokens = torch.randn(4, 49, 16)
    with torch.no_grad():
        assert packable(block, tokens, torch.float32)
        assert not packable(block, tokens, torch.float16)
        assert not packable(block, tokens.double(), torch.float32)
        change(block)
        assert not packable(block, tokens, torch.float32)


def test_a_scaled_ffn():
    block = two_stages().stages[0].blocks[1]

    class Scale(nn.Module):
        def forward(self, x):
            return 0.3 * x

    block.ffn.gamma2 = Scale()
    windows = all_windows(window_layout(14, 21, 7, 3, torch.device("cpu")), 1)
    tokens = torch.randn(6, 49, 16)
    with torch.no_grad():
        expected = run_block(block, tokens, windows, 1, False)
        got = run_packed_block(block, tokens, windows, False, torch.float32)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
