"""What others publish: mmseg's checkpoints, Swin's first weights, Cityscapes in its folders."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tiny
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from sparsevit.engine.checkpoint import load_weights
from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.tasks.segmentation import labels

CITYSCAPES = """\
_base_ = "sparsevit::swin/mask2former_swin-t_cityscapes.py"
data_root = {root!r}
model = dict(
    data_preprocessor=dict(size=(64, 128)),
    backbone=dict(embed_dims=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8], init_cfg=None),
    decode_head=dict(
        in_channels=[16, 32, 64, 128],
        num_queries=10,
        pixel_decoder=dict(encoder=dict(num_layers=1)),
        transformer_decoder=dict(num_layers=1),
        train_cfg=dict(num_points=128),
    ),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomCrop", crop_size=(64, 128), cat_max_ratio=0.75),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=val_pipeline),
)
train_cfg = dict(max_iters=1, val_interval=1)
"""
RELEASED = {
    "mask2former_sparsevit-t_cityscapes": (
        "mask2former/mask2former_swin-t_8xb2-90k_cityscapes-512x1024"
    ),
    "upernet_sparsevit-t_ade20k": (
        "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512"
    ),
}


SMALL = (
    *("model.backbone.embed_dims=16", "model.backbone.num_heads=[1,2,4,8]"),
    "model.decode_head.in_channels=[16,32,64,128]",
)
SMALLER = {
    "mask2former_sparsevit-t_cityscapes": (),
    "upernet_sparsevit-t_ade20k": (
        *("model.decode_head.channels=16", "model.auxiliary_head.in_channels=64"),
        "model.auxiliary_head.channels=16",
    ),
}


@pytest.mark.parametrize("ours", RELEASED)
def test_a_released_checkpoint_covers_our_model(ours, tmp_path):
    # as many layers as are released, in fewer channels
    small = (*SMALL, *SMALLER[ours])
    theirs = load_config(f"mmseg::{RELEASED[ours]}.py", small)
    theirs.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmseg"):
        weights = MODELS.build(theirs.model).state_dict()
    # the form of mmseg's model zoo
    file = tmp_path / "released.pth"
    torch.save({"meta": {"mmseg_version": "1.0.0", "iter": 90000}, "state_dict": weights}, file)
    model, _ = build_model(sparsify_config(load_config(ours, small)))
    report = load_weights(model, file, strict=True)
    assert report.complete
    assert not report.unexpected
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_released_swin_is_what_a_segmentor_starts_from(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(tiny.SEGMENTATION, encoding="utf-8")
    cfg = sparsify_config(load_config(path))
    given = build_model(cfg)[0].backbone.state_dict()
    file = tmp_path / "swin.pth"
    torch.save({"model": microsofts(given)}, file)
    cfg.model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(file)}
    cfg.model.backbone.convert_weights = True
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(cfg.model)
    model.init_weights()
    found = model.backbone.state_dict()
    # a classifier has no norms of feature maps
    backbone = [name for name in given if not name.startswith("norm")]
    assert all(torch.equal(found[name], given[name]) for name in backbone)


def microsofts(weights):
    """mmseg's names and layouts -> those of the Swin repository."""
    names = {
        "stages.": "layers.",
        "attn.w_msa.": "attn.",
        "ffn.layers.0.0.": "mlp.fc1.",
        "ffn.layers.1.": "mlp.fc2.",
        "patch_embed.projection": "patch_embed.proj",
    }
    found = {}
    for name, value in weights.items():
        if name.startswith("norm"):
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if "downsample" in name:
            # four neighbours: one after the other there, interleaved here
            shape, rows = value.shape, value.reshape(-1, value.shape[-1])
            value = rows.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]].transpose(1, 2).reshape(shape)
        found[name] = value.clone()
    return found


# --- Cityscapes -----------------------------------------------------------------------------------


@pytest.fixture
def cityscapes(tmp_path):
    """Two cities of one image each, as Cityscapes has them, and a config for them."""
    root = tmp_path / "cityscapes"
    rng = np.random.default_rng(0)
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "munster")):
        stem = f"{city}_000000_000019"
        image = root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
        label_map = root / "gtFine" / split / city / f"{stem}_gtFine_labelTrainIds.png"
        classes = rng.integers(0, 19, (4, 8), np.uint8)
        classes[0] = 255
        for path, pixels in (
            (image, rng.integers(0, 256, (64, 128, 3), np.uint8)),
            (label_map, classes.repeat(16, 0).repeat(16, 1)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    config = tmp_path / "config.py"
    config.write_text(CITYSCAPES.format(root=str(root)), encoding="utf-8")
    return root, config


def test_cityscapes_in_its_folders_is_trained_on_and_scored(cityscapes, tmp_path):
    _, config = cityscapes
    ran = tiny.run("pretrain", config, "--workspace", tmp_path / "workspace", "--json")
    assert ran.code == 0, ran.err
    assert set(ran.document["after"]["dense"]) == {"aAcc", "mIoU", "mAcc"}


@pytest.mark.parametrize(("left", "says"), [("labelIds.png", "cityscapes.py"), ("x.png", "Add")])
def test_cityscapes_without_the_numbers_to_train_on_says_how_they_are_made(cityscapes, left, says):
    root, config = cityscapes
    (label_map,) = (root / "gtFine/val").rglob("*.png")
    label_map.rename(label_map.with_name(f"munster_000000_000019_gtFine_{left}"))
    with pytest.raises(UserError, match="1 of 1 images have no label map") as caught:
        labels.check_data(load_config(config), ["val"])
    assert says in caught.value.remedy
