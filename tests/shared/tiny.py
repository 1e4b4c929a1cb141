"""A detector, a segmentor, classifiers and datasets that make a phase a matter of seconds; the
command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sparsevit.cli.main import main

CONFIG = """\
_base_ = "sparsevit::demo/mask_rcnn_swin_shapes.py"
classes = ("circle", "triangle", "square")
embedded_dataset = dict(
    train=8, val=6, width=64, height=64, objects=(2, 4), object_size=(12, 30), seed=0,
    classes=classes, _delete_=True,
)
model = dict(
    backbone=dict(embed_dims=8, depths=[2, 2, 4, 2], num_heads=[1, 1, 2, 4]),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=16, num_classes=3),
        mask_roi_extractor=dict(out_channels=8),
        mask_head=dict(in_channels=8, conv_out_channels=8, num_classes=3),
    ),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=20)),
)
resize = dict(type="Resize", scale=(64, 64), keep_ratio=True)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    resize,
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    resize,
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
metainfo = dict(classes=classes, _delete_=True)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline, metainfo=metainfo))
val_dataloader = dict(batch_size=2, dataset=dict(pipeline=test_pipeline, metainfo=metainfo))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=4)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
phases = dict(adapt=dict(train_cfg=dict(max_iters=4)), finetune=dict(train_cfg=dict(max_iters=2)))
"""

SEGMENTATION = """\
_base_ = "sparsevit::demo/upernet_swin_shapes.py"
classes = ("circle", "triangle", "square")
embedded_dataset = dict(
    train=8, val=6, width=64, height=64, objects=(2, 4), object_size=(12, 30), seed=0,
    classes=classes, labels=True, _delete_=True,
)
model = dict(
    backbone=dict(embed_dims=8, depths=[2, 2, 4, 2], num_heads=[1, 1, 2, 4]),
    decode_head=dict(
        in_channels=[8, 16, 32, 64],
        channels=8,
        num_classes=4,
        loss_decode=dict(class_weight=None),
    ),
)
resize = dict(type="Resize", scale=(64, 64), keep_ratio=True)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    resize,
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    resize,
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
metainfo = dict(
    classes=("background", *classes),
    palette=[[64, 64, 64], [230, 97, 1], [94, 60, 153], [27, 158, 119]],
    _delete_=True,
)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline, metainfo=metainfo))
val_dataloader = dict(batch_size=2, dataset=dict(pipeline=test_pipeline, metainfo=metainfo))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=4)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
phases = dict(adapt=dict(train_cfg=dict(max_iters=4)), finetune=dict(train_cfg=dict(max_iters=2)))
"""

_CLASSES = """\
_base_ = "sparsevit::demo/classifier_swin_shapes.py"
classes = ("circle", "cross", "ring", "square", "star")
embedded_dataset = dict(
    train=10, val=10, width=64, height=64, objects=(1, 1), seed=0, classes=classes, folders=True,
    _delete_=True,
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=64),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 64), keep_ratio=False),
    dict(type="PackInputs"),
]
metainfo = dict(classes=classes, _delete_=True)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline, metainfo=metainfo))
val_dataloader = dict(batch_size=2, dataset=dict(pipeline=test_pipeline, metainfo=metainfo))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=4)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
phases = dict(adapt=dict(train_cfg=dict(max_iters=4)), finetune=dict(train_cfg=dict(max_iters=2)))
"""

CLASSIFICATION = f"""\
{_CLASSES}
model = dict(
    data_preprocessor=dict(num_classes=5),
    backbone=dict(
        arch=dict(embed_dims=8, depths=[2, 2, 4, 2], num_heads=[1, 1, 2, 4], _delete_=True),
        img_size=64,
        pad_small_map=True,
    ),
    head=dict(num_classes=5, in_channels=64),
)
"""

DEIT = f"""\
{_CLASSES}
model = dict(
    data_preprocessor=dict(num_classes=5),
    backbone=dict(
        _delete_=True, type="VisionTransformer", img_size=64, patch_size=16,
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    ),
    neck=None,
    head=dict(_delete_=True, type="VisionTransformerClsHead", num_classes=5, in_channels=16),
)
"""
"""A classifier of which no window can be skipped."""

SPARSIFINER = f"""\
{_CLASSES}
custom_imports = dict(imports=["sparsevit.models", "sparsevit.models.sparsifiner_backbones"])
model = dict(
    data_preprocessor=dict(num_classes=5),
    backbone=dict(
        _delete_=True, type="SparsifinerDeiT", img_size=64, patch_size=8,
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        sparsifiner=dict(keep_rate=0.5, choices=[0, 0.5, 0.75], first_stage=0.5),
    ),
    neck=None,
    head=dict(_delete_=True, type="VisionTransformerClsHead", num_classes=5, in_channels=16),
)
"""
"""A classifier whose attention connects what predictors choose."""

BEV = """\
_base_ = "sparsevit::demo/bevdet_swin_scenes.py"
embedded_dataset = dict(train=4, val=3, width=128, height=72, objects=(10, 14))
data_config = dict(
    cams=["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"]
    + ["CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"],
    Ncams=6, input_size=(64, 128), src_size=(72, 128), resize=(0.0, 0.0), rot=(0.0, 0.0),
    flip=False, crop_h=(0.0, 0.0), resize_test=0.0,
)
reach, cell = 51.2, 3.2
grid = [-reach, reach, cell]
voxel_size = [cell / 8, cell / 8, 0.2]
model = dict(
    img_backbone=dict(embed_dims=8, depths=[2, 2, 4, 2], num_heads=[1, 1, 2, 4]),
    img_neck=dict(in_channels=32 + 64, out_channels=8),
    img_view_transformer=dict(
        grid_config=dict(xbound=grid, ybound=grid), data_config=dict(input_size=(64, 128)),
        numC_input=8, numC_Trans=8,
    ),
    img_bev_encoder_backbone=dict(numC_input=8, num_channels=[8, 8, 8]),
    img_bev_encoder_neck=dict(in_channels=16, out_channels=8),
    pts_bbox_head=dict(
        in_channels=8, share_conv_channel=8, separate_head=dict(head_conv=8),
        bbox_coder=dict(voxel_size=voxel_size[:2], max_num=20),
    ),
    train_cfg=dict(pts=dict(grid_size=[256, 256, 40], voxel_size=voxel_size)),
    test_cfg=dict(pts=dict(voxel_size=voxel_size[:2], pre_max_size=20, post_max_size=10)),
)
train_pipeline = [
    dict(type="LoadMultiViewImageFromFiles_BEVDet", is_train=True, data_config=data_config),
    dict(type="RandomFlip3D"),
    dict(type="ObjectRangeFilter", point_cloud_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]),
    dict(type="ObjectNameFilter"),
    dict(type="Pack3DDetInputs"),
]
test_pipeline = [
    dict(type="LoadMultiViewImageFromFiles_BEVDet", data_config=data_config),
    dict(type="Pack3DDetInputs"),
]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=2, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=3)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
phases = dict(adapt=dict(train_cfg=dict(max_iters=2)), finetune=dict(train_cfg=dict(max_iters=2)))
"""

# a search that ends in a second
SEARCH = (
    *("--min", "0", "--max", "10000", "--trials", "3"),
    *("--population", "2", "--parents", "2", "--latency-seconds", "0.01"),
)


# modules that stand in the way of libraries that a user need not have
NOT_INSTALLED = Path(__file__).with_name("not_installed")


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, what it printed on either stream."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; anything else on it is an error."""
        return json.loads(self.out)


@contextlib.contextmanager
def timed_briefly() -> Iterator[None]:
    """Timings of two calls, made once: enough where what they come to does not matter."""
    from sparsevit.latency import clock, paired, relative, timer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relative, "LEAST_TURNS", 2)
        patch.setattr(relative, "SETTLED_MS", 0)
        for module in (paired, timer):
            patch.setattr(module, "LEAST_REPEATS", 2)
        for again in (clock.believable, clock.steadiest):
            patch.setattr(again, "__defaults__", (0,))
        patch.setitem(clock.steadiest_of_paired.__kwdefaults__, "again", 0)
        yield


def run(*words: object) -> Outcome:
    """A command through the entry point, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def run_until(written: int, module: ModuleType, writer: str, *words: object) -> Outcome:
    """Run a command that is interrupted as soon as it has written so many results.

    Args:
        written: how many.
        module: of the phase.
        writer: name of its function that writes a file of all of them.
    """
    write = getattr(module, writer)

    def write_some(path: Path, results: Sized) -> None:
        write(path, results)
        if len(results) == written:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, writer, write_some)
        return run(*words)


def start(*words: object, **how: Any) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sparsevit.cli.main", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def run_alone(*words: object, timeout: float = 120, **how: Any) -> Outcome:
    """A command in a process of its own, to its end."""
    process = start(*words, **how)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Outcome(process.returncode, out, err)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and what is in it; lock files aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def user_environment(**more: str) -> dict[str, str]:
    """The environment of a user who set nothing and has no transformers."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPARSEVIT_")}
    return without_transformers({**kept, "OMP_NUM_THREADS": "1", **more})


def without_transformers(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which it is not found: mmdet takes seconds to import it where it is."""
    paths = (str(NOT_INSTALLED), environment.get("PYTHONPATH", ""))
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
