"""Weights in the forms that other repositories released, made here."""

from __future__ import annotations

import pytest
import svite_models
import torch
import torch.nn.functional as F
from svite_models import ARCH, Training, classifier

import sparsevit.models.svite as svite
from sparsevit.errors import UserError
from sparsevit.methods.weights.blocks import blocks_of
from sparsevit.models.released import load


def timm_state(heads=4, hidden=32, seed=3):
    """A DeiT of the tests' size under timm's names; fewer heads as SViTE's structured models have
    them: queries, keys and values of those alone, a projection of full width."""
    drawn = torch.Generator().manual_seed(seed)
    width, kept = ARCH["embed_dims"], 4 * heads
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 17, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 4, 4), "patch_embed.proj.bias": (width,)}
    for n in range(ARCH["num_layers"]):
        for name, out, into in (
            ("attn.qkv", 3 * kept, width),
            ("attn.proj", width, width),
            ("mlp.fc1", hidden, width),
            ("mlp.fc2", width, hidden),
        ):
            shapes[f"blocks.{n}.{name}.weight"] = (out, into)
            shapes[f"blocks.{n}.{name}.bias"] = (out,)
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{n}.{name}.{x}": (width,) for x in ("weight", "bias")}
    shapes |= {f"norm.{x}": (width,) for x in ("weight", "bias")}
    shapes |= {"head.weight": (svite_models.CLASSES, width), "head.bias": (svite_models.CLASSES,)}
    return {name: torch.randn(shape, generator=drawn) * 0.3 for name, shape in shapes.items()}


def slow_deit(state, images, heads):
    """The same network written out: timm's forward, with SViTE's padding of what heads give."""
    width = ARCH["embed_dims"]

    def linear(name, x):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name, x):
        return F.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 4)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    for n in range(ARCH["num_layers"]):
        given = linear(f"blocks.{n}.attn.qkv", norm(f"blocks.{n}.norm1", x))
        outs = []
        for head in range(heads):
            q, k, v = (given[..., (part * heads + head) * 4 :][..., :4] for part in range(3))
            outs.append((q @ k.transpose(1, 2) / 2).softmax(dim=-1) @ v)
        outs.append(torch.zeros(*x.shape[:2], width - 4 * heads))
        x = x + linear(f"blocks.{n}.attn.proj", torch.cat(outs, dim=-1))
        hidden = F.gelu(linear(f"blocks.{n}.mlp.fc1", norm(f"blocks.{n}.norm2", x)))
        x = x + linear(f"blocks.{n}.mlp.fc2", hidden)
    return linear("head", norm("norm", x)[:, 0])


class Head(torch.nn.Module):
    """As mmpretrain's: ``layers.head``."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleDict(
            {"head": torch.nn.Linear(ARCH["embed_dims"], svite_models.CLASSES)}
        )

    def forward(self, x):
        return self.layers["head"](x)


def mmpretrain_like(kind=svite.VisionTransformer, **options):
    model = classifier(kind, **options)
    model.head = Head()
    return model.eval()


def outputs(model, images):
    with torch.no_grad():
        return model(images)


def test_a_dense_deit_computes_what_it_did():
    state, model = timm_state(), mmpretrain_like()
    images, _ = svite_models.batch(0)
    assert "timm's DeiT" in load(model, state)
    torch.testing.assert_close(outputs(model, images), slow_deit(state, images, 4))
    assert [block.heads for block in blocks_of(model)] == [4, 4]


def test_zeros_in_the_weights_are_masks():
    state = timm_state()
    for value in state.values():
        if value.dim() in (2, 4):
            value *= torch.rand(value.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    model = mmpretrain_like(svite.SViTE, svite={"density": 0.5, "update_interval": 4})
    load(model, state)
    training = Training(model).run(1)
    for name, mask in training.method.masks.items():
        # of the patch embedding and of the head too
        assert 0.2 < float(mask.float().mean()) < 0.6, name
    qkv = training.method.masks["backbone.layers.1.attn.qkv.weight"]
    assert torch.equal(qkv, state["blocks.1.attn.qkv.weight"] != 0)


def test_a_structured_one_with_zeros_becomes_smaller():
    state = timm_state()
    for n in range(2):
        state[f"blocks.{n}.attn.qkv.weight"].view(3, 4, 4, 16)[:, n] = 0
        state[f"blocks.{n}.mlp.fc1.weight"][: 10 + n] = 0
        state[f"blocks.{n}.mlp.fc2.weight"][:, : 10 + n] = 0
    images, _ = svite_models.batch(0)
    whole, smaller = mmpretrain_like(), mmpretrain_like()
    load(whole, state, shrunk=False)
    load(smaller, state)
    expected = slow_deit(state, images, 4)
    for model in (whole, smaller):
        torch.testing.assert_close(outputs(model, images), expected, rtol=1e-5, atol=1e-5)
    assert [block.heads for block in blocks_of(whole)] == [4, 4]
    assert [block.heads for block in blocks_of(smaller)] == [3, 3]
    assert [block.fc1.out_features for block in blocks_of(smaller)] == [22, 21]


@pytest.mark.parametrize("alone", [False, True])
def test_one_whose_projections_were_padded_becomes_smaller(alone):
    state = timm_state(heads=2, hidden=20)
    images, _ = svite_models.batch(0)
    model = mmpretrain_like()
    load(model.backbone if alone else model, state)
    assert [(b.heads, b.fc1.out_features) for b in blocks_of(model)] == [(2, 20), (2, 20)]
    if not alone:
        expected = slow_deit(state, images, 2)
        torch.testing.assert_close(outputs(model, images), expected, rtol=1e-5, atol=1e-5)


def test_a_file_of_either_form_is_read(tmp_path):
    images, _ = svite_models.batch(0)
    state = timm_state()
    # as the repository saves it, with what its training had
    torch.save({"model": state, "epoch": 3, "mask": {}}, tmp_path / "released.pth")
    model = mmpretrain_like()
    load(model, tmp_path / "released.pth")
    torch.testing.assert_close(outputs(model, images), slow_deit(state, images, 4))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "ours.pth")
    other = mmpretrain_like()
    load(other, str(tmp_path / "ours.pth"))
    assert torch.equal(outputs(other, images), outputs(model, images))


def test_weights_of_another_architecture_are_refused():
    wrong = timm_state()
    wrong["norm.weight"] = torch.ones(8)
    with pytest.raises(
        UserError, match=r"different model: backbone\.ln1\.weight has another shape"
    ):
        load(mmpretrain_like(), wrong)
    del wrong["norm.weight"]
    with pytest.raises(UserError, match=r"different model: backbone\.ln1\.weight is missing"):
        load(mmpretrain_like(), wrong)
    with pytest.raises(UserError, match="not for a Linear"):
        load(torch.nn.Linear(2, 2), timm_state())
