"""First weights of the backbone: random, from mmdet's form and from Microsoft's."""

from __future__ import annotations

import pytest
import torch
from mmdet_backbones import small_swin

from sparsevit.errors import UserError
from sparsevit.models.swin_weights import fit_weight

BACKBONE = {"depths": [2, 1, 2, 1], "use_abs_pos_embed": True, "pretrain_img_size": 64}


def as_microsoft(weights):
    """The names, and the order within merged patches, of Microsoft's Swin repository."""
    out = {"head.weight": torch.zeros(10, 128), "norm.weight": torch.zeros(128)}
    for name, value in weights.items():
        if name.startswith("norm"):
            continue
        if "downsample" in name:
            channels = value.shape[-1] // 4
            parts = value.reshape(*value.shape[:-1], channels, 4)[..., [0, 2, 1, 3]]
            value = parts.transpose(-1, -2).reshape(value.shape)
        for ours, theirs in (
            ("stages", "layers"),
            ("attn.w_msa", "attn"),
            ("ffn.layers.0.0", "mlp.fc1"),
            ("ffn.layers.1", "mlp.fc2"),
            ("patch_embed.projection", "patch_embed.proj"),
        ):
            name = name.replace(ours, theirs)
        out[name] = value
    return out


def pretrained(path):
    return {"type": "Pretrained", "checkpoint": str(path)}


@pytest.fixture
def trained():
    torch.manual_seed(0)
    return small_swin("SparseViT", **BACKBONE)


FORMS = {
    "microsoft": (True, lambda w: {"model": as_microsoft(w)}),
    "microsoft-bare": (True, as_microsoft),
    "backbone-alone": (True, lambda w: {"state_dict": w}),
    "detector": (False, lambda w: {"state_dict": _detector(w), "meta": {"epoch": 36}}),
    "detector-converting": (True, lambda w: {"state_dict": _detector(w)}),
    "ddp": (False, lambda w: {"state_dict": {f"module.{k}": v for k, v in _detector(w).items()}}),
}


def _detector(weights):
    return {"neck.weight": torch.zeros(3), **{f"backbone.{k}": v for k, v in weights.items()}}


@pytest.mark.parametrize("form", FORMS)
def test_init_cfg_loads_every_form(form, trained, tmp_path):
    convert, write = FORMS[form]
    weights = trained.state_dict()
    path = tmp_path / "weights.pth"
    torch.save(write(weights), path)
    fresh = small_swin(
        "SparseViT",
        convert_weights=convert,
        init_cfg=pretrained(path),
        **BACKBONE,
    )
    fresh.init_weights()
    got = fresh.state_dict()
    checked = [k for k in weights if not (form.startswith("microsoft") and k.startswith("norm"))]
    assert len(checked) > 50
    assert not [k for k in checked if not torch.equal(got[k], weights[k])]


def test_a_file_for_another_window_and_image_size_is_resized(trained, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": as_microsoft(trained.state_dict())}, path)
    larger = small_swin(
        "SparseViT",
        convert_weights=True,
        init_cfg=pretrained(path),
        **{**BACKBONE, "window_size": 12, "pretrain_img_size": 96},
    )
    larger.init_weights()
    for name in ("absolute_pos_embed", "stages.0.blocks.0.attn.w_msa.relative_position_bias_table"):
        old, new = trained.get_parameter(name), larger.get_parameter(name)
        assert new.shape != old.shape
        assert new.mean().item() == pytest.approx(old.mean().item(), abs=0.05)
    index = larger.stages[0].blocks[0].attn.w_msa.relative_position_index
    assert index.max() == 23 * 23 - 1
    with torch.no_grad():
        assert all(out.isfinite().all() for out in larger(torch.randn(1, 3, 96, 96)))


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"conv1.weight": torch.zeros(3)}, "no weight has a matching name"),
        ({"patch_embed.projection.bias": torch.zeros(96)}, r"\(96,\), not \(16,\)"),
    ],
    ids=["another-model", "another-size"],
)
def test_a_file_of_something_else_is_refused(weights, says, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": weights}, path)
    sparse = small_swin("SparseViT", init_cfg=pretrained(path))
    before = {k: v.clone() for k, v in sparse.state_dict().items()}
    with pytest.raises(UserError, match=f"not fit this SparseViT.*{says}"):
        sparse.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in sparse.state_dict().items())


def test_an_init_cfg_without_a_checkpoint_is_refused():
    sparse = small_swin("SparseViT", init_cfg={"type": "Pretrained"})
    with pytest.raises(UserError, match="does not name a checkpoint"):
        sparse.init_weights()


def test_random_weights_have_the_spread_of_swins():
    sparse = small_swin("SparseViT", use_abs_pos_embed=True, pretrain_img_size=64)
    sparse.init_weights()
    assert sparse.stages[0].blocks[0].ffn.layers[1].weight.std().item() == pytest.approx(
        0.02, rel=0.2
    )
    assert sparse.absolute_pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
    assert (sparse.stages[0].blocks[0].norm1.weight == 1).all()
    assert (sparse.stages[0].blocks[0].ffn.layers[1].bias == 0).all()


def test_a_weight_that_is_no_grid_is_returned_as_it_is():
    odd = torch.zeros(12, 3)
    assert fit_weight(odd, torch.zeros(169, 3)) is odd
    assert fit_weight(torch.zeros(4, 5), torch.zeros(4, 6)).shape == (4, 5)
