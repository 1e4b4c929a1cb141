"""Weights of every form that is met load into the model they are of, and into no other."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from torch import nn

import sparsevit.models  # noqa: F401
from sparsevit.engine.checkpoint import load_weights, read_checkpoint, write_weights
from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.errors import UserError


def build(part):
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(part)


def detector(kind="SparseViT", classes=80, depths=(2, 2, 2, 2), seed=0, embed=24):
    """A small Mask R-CNN with a Swin, built from mmdet's own config."""
    cfg = load_config("mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py")
    if kind == "SparseViT":
        cfg = sparsify_config(cfg)
    channels = [embed * 2**i for i in range(4)]
    cfg.model.backbone.update(
        embed_dims=embed, depths=list(depths), num_heads=[1, 2, 4, 8], init_cfg=None
    )
    cfg.model.neck.update(in_channels=channels, out_channels=16)
    cfg.model.rpn_head.update(in_channels=16, feat_channels=16)
    roi = cfg.model.roi_head
    roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = 16
    roi.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=classes)
    roi.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=classes)
    torch.manual_seed(seed)
    return build(cfg.model)


@pytest.fixture(scope="module")
def dense():
    """What mmdet itself trains."""
    model = detector("SwinTransformer", seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


@pytest.fixture(scope="module")
def fresh():
    return detector()


@pytest.fixture
def sparse(fresh):
    return copy.deepcopy(fresh)


def as_microsoft(state):
    """Microsoft's names and layouts for the weights of mmdet's Swin backbone."""
    out = OrderedDict()
    for name, value in state.items():
        if name.startswith("norm"):
            continue
        if "downsample" in name and value.ndim and value.shape[-1] % 4 == 0:
            c = value.shape[-1] // 4
            # mmdet unfolds (channel, place), Microsoft concatenates places, two of them swapped
            value = value.reshape(*value.shape[:-1], c, 4).transpose(-1, -2)
            value = value[..., [0, 2, 1, 3], :].reshape(*value.shape[:-2], 4 * c)
        for mmdet, microsoft in (
            ("stages", "layers"),
            ("attn.w_msa", "attn"),
            ("ffn.layers.0.0", "mlp.fc1"),
            ("ffn.layers.1", "mlp.fc2"),
            ("patch_embed.projection", "patch_embed.proj"),
        ):
            name = name.replace(mmdet, microsoft)
        out[name] = value
    return out


def same(model, other, but=()):
    ours, theirs = model.state_dict(), other.state_dict()
    return all(torch.equal(ours[n], theirs[n]) for n in ours if not n.startswith(tuple(but)))


# --- forms ---------------------------------------------------------------------------------------


FORMS = {
    "mmengine": lambda s: {
        "meta": {"mmengine_version": "0.10.8", "epoch": 12, "iter": 1, "cfg": "model = dict()"},
        "state_dict": s,
        "message_hub": {},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        "param_schedulers": [],
    },
    # as published for mmdet 3.x: stripped of all but the weights and how they came about
    "mmengine published": lambda s: {
        "meta": {"dataset_meta": {"CLASSES": ("person",), "PALETTE": [(220, 20, 60)]}},
        "state_dict": s,
    },
    # as mmdet 2.x saves them, and so as the paper's released ones are
    "mmdet 2.x": lambda s: {
        "meta": {
            "env_info": "sys.platform: linux\nMMDetection: 2.28.2",
            "config": "_base_ = []\n",
            "seed": 1,
            "exp_name": "mask_rcnn_sparsevit_saa.py",
            "epoch": 12,
            "iter": 87948,
            "mmcv_version": "1.7.1",
            "time": "Mon Mar  6 10:00:00 2023",
            "hook_msgs": {},
            "mmdet_version": "2.28.2",
            "CLASSES": ("person", "bicycle"),
            "PALETTE": [(220, 20, 60), (119, 11, 32)],
        },
        "state_dict": s,
        "optimizer": {"state": {}, "param_groups": []},
    },
    "plain": lambda s: s,
    "plain in model": lambda s: {"model": s, "epoch": 3},
    "mmengine of DDP": lambda s: {
        "meta": {"mmengine_version": "0.10.8"},
        "state_dict": OrderedDict((f"module.{n}", v) for n, v in s.items()),
        "message_hub": {},
    },
    "mmdet 2.x with averages": lambda s: {
        "meta": {"mmdet_version": "2.28.2"},
        "state_dict": {**s, **{f"ema_{n.replace('.', '_')}": -v for n, v in s.items()}},
    },
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_mmdets_swin_loads_whole(tmp_path, dense, sparse, form, legacy):
    path = tmp_path / "dense.pth"
    torch.save(FORMS[form](dense.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    report = load_weights(sparse, path, strict=True)
    assert report.complete
    assert report.unexpected == ()
    assert form.startswith(report.source_form)
    assert same(sparse, dense)


def test_safetensors_load_whole(tmp_path, dense, sparse):
    save_file(dict(dense.state_dict()), tmp_path / "dense.safetensors")
    report = load_weights(sparse, tmp_path / "dense.safetensors", strict=True)
    assert report.source_form == "safetensors"
    assert same(sparse, dense)


def test_files_without_computed_buffers_load_whole(tmp_path, dense, sparse):
    state = {n: v for n, v in dense.state_dict().items() if "relative_position_index" not in n}
    state["backbone.stages.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    report = load_weights(sparse, tmp_path / "w.pth", strict=True)
    assert report.unexpected == ()
    assert same(sparse, dense)


@pytest.mark.parametrize("nested", [False, True], ids=["classifier", "detector"])
def test_microsofts_swin_loads_into_the_backbone(tmp_path, dense, sparse, nested):
    state = as_microsoft(dense.backbone.state_dict())
    if nested:
        state = {f"backbone.{n}": v for n, v in state.items()}
    else:
        state |= {"norm.weight": torch.zeros(192), "head.weight": torch.zeros(1000, 192)}
    torch.save({"state_dict" if nested else "model": state}, tmp_path / "swin.pth")
    report = load_weights(sparse, tmp_path / "swin.pth")
    in_backbone = [n for n in report.missing if n.startswith("backbone.")]
    assert all(n.startswith("backbone.norm") for n in in_backbone)
    assert same(sparse.backbone, dense.backbone, but=["norm"])
    assert not same(sparse, dense)


def test_a_detectors_backbone_and_a_backbone_alone_fit_each_other(tmp_path, dense, sparse):
    torch.save(dense.state_dict(), tmp_path / "detector.pth")
    torch.save(dense.backbone.state_dict(), tmp_path / "backbone.pth")
    alone = copy.deepcopy(sparse.backbone)
    assert load_weights(alone, tmp_path / "detector.pth").complete
    assert same(alone, dense.backbone)
    report = load_weights(sparse, tmp_path / "backbone.pth")
    assert not any(n.startswith("backbone.") for n in report.missing)
    assert same(sparse.backbone, dense.backbone)


def test_full_size_swin_t_has_the_names_of_mmdets_and_of_the_papers(tmp_path):
    base = load_config("swin/mask_rcnn_swin-t_3x.py")
    base.model.backbone.init_cfg = None
    ours = load_config("sparsevit/sparsevit_cfg2_35ms.py")
    dense_names = build(base.model).state_dict()
    report_model = build(ours.model)
    write_weights(tmp_path / "swin_t.pth", dense_names, {"mmdet_version": "2.28.2"})
    report = load_weights(report_model, tmp_path / "swin_t.pth", strict=True)
    assert report.complete
    assert report.unexpected == ()
    assert list(report_model.state_dict()) == list(dense_names)


# --- another model -------------------------------------------------------------------------------


def test_another_number_of_classes_leaves_the_heads_and_says_so(tmp_path, dense):
    torch.save(dense.state_dict(), tmp_path / "coco.pth")
    other = detector(classes=6)
    before = copy.deepcopy(other.roi_head.bbox_head.fc_cls.weight)
    report = load_weights(other, tmp_path / "coco.pth")
    assert sorted(entry.split(":")[0] for entry in report.mismatched) == [
        "roi_head.bbox_head.fc_cls.bias",
        "roi_head.bbox_head.fc_cls.weight",
        "roi_head.bbox_head.fc_reg.bias",
        "roi_head.bbox_head.fc_reg.weight",
        "roi_head.mask_head.conv_logits.bias",
        "roi_head.mask_head.conv_logits.weight",
    ]
    assert "81x32 in the file, 7x32 in the model" in str(report.mismatched)
    assert "6 left unchanged: the shape in the file differs" in report.summary()
    assert torch.equal(other.roi_head.bbox_head.fc_cls.weight, before)
    assert same(other.backbone, dense.backbone)
    with pytest.raises(UserError, match="does not cover the whole model"):
        load_weights(other, tmp_path / "coco.pth", strict=True)


@pytest.mark.parametrize(
    "other",
    [{"embed": 32}, {"depths": (2, 2, 6, 2)}, {"depths": (1, 1, 1, 1)}],
    ids=["wider", "deeper", "shallower"],
)
def test_weights_of_another_swin_are_refused_and_nothing_is_changed(tmp_path, dense, other):
    torch.save(dense.state_dict(), tmp_path / "small.pth")
    model = detector(**other)
    before = copy.deepcopy(model)
    with pytest.raises(UserError, match="is for a different model"):
        load_weights(model, tmp_path / "small.pth")
    assert same(model, before)


def test_weights_of_something_else_are_refused(tmp_path, sparse):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(UserError, match=r"it has 0 of the \d+ backbone weights"):
        load_weights(sparse, tmp_path / "linear.pth")


def test_a_position_table_of_another_window_is_resized(tmp_path):
    torch.manual_seed(0)
    small = {"type": "SparseViT", "embed_dims": 8, "depths": [2, 2], "num_heads": [1, 2]}
    small |= {"strides": (4, 2), "out_indices": (0, 1)}
    seven, four = build(small), build({**small, "window_size": 4})
    torch.save(seven.state_dict(), tmp_path / "seven.pth")
    assert load_weights(four, tmp_path / "seven.pth").complete


# --- reading and writing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({"optimizer": {"lr": 0.1}}, "no weights (it has optimizer)"),
        ({}, "it has nothing"),
        ({"state_dict": {}}, "no weights"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError) as refused:
        read_checkpoint(tmp_path / "w.pth")
    assert says in refused.value.problem


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_written_weights_read_back_with_their_meta(tmp_path, name):
    weight = torch.randn(4, 6)
    state = {"a": weight[:, ::2], "b": weight, "c": weight.half(), "n": torch.tensor(3)}
    path = write_weights(tmp_path / "new" / "folder" / name, state, {"epoch": 3, "by": ["x"]})
    read = read_checkpoint(path)
    assert read["meta"] == {"epoch": 3, "by": ["x"]}
    assert all(torch.equal(read["state_dict"][n], v) for n, v in state.items())
    assert all(read["state_dict"][n].dtype == v.dtype for n, v in state.items())
    assert os.listdir(path.parent) == [name]


def test_a_slice_is_written_without_what_it_was_cut_from(tmp_path):
    whole = torch.zeros(1_000_000)
    path = write_weights(tmp_path / "w.pth", {"w": whole[:10]})
    assert path.stat().st_size < 10_000


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_weights(tmp_path / "w.pth", {"w": torch.ones(2)})

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match="No space left"):
        write_weights(path, {"w": torch.zeros(2)})
    monkeypatch.undo()
    assert torch.equal(read_checkpoint(path)["state_dict"]["w"], torch.ones(2))
    assert os.listdir(tmp_path) == ["w.pth"]
