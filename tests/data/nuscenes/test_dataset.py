"""The registered dataset, class-balanced resampling, and a metric over processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from nuscenes_samples import metric_of, sample_of, truth

import sparsevit.data.nuscenes.registered  # noqa: F401
from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.dataset import balanced
from sparsevit.data.nuscenes.made.spec import VERSION
from sparsevit.data.nuscenes.names import CAMERAS, CLASSES
from sparsevit.data.nuscenes.tables import Frame, read_frames
from sparsevit.engine.datasets import UnusableImage, name_broken_images

DATA_CONFIG = {
    "cams": list(CAMERAS),
    "Ncams": 6,
    "input_size": (32, 64),
    "resize": (-0.06, 0.11),
    "rot": (-5.4, 5.4),
    "flip": True,
    "crop_h": (0.0, 0.0),
    "resize_test": 0.04,
}
TRAIN_PIPELINE = [
    {"type": "LoadMultiViewImageFromFiles_BEVDet", "is_train": True, "data_config": DATA_CONFIG},
    {"type": "GlobalRotScaleTrans", "translation_std": [0, 0, 0], "update_img2lidar": True},
    {"type": "RandomFlip3D", "sync_2d": False, "update_img2lidar": True},
    {"type": "ObjectRangeFilter", "point_cloud_range": [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]},
    {"type": "ObjectNameFilter", "classes": CLASSES},
    {"type": "Pack3DDetInputs"},
]


@pytest.fixture(autouse=True)
def _in_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def described(root: Path, split: str = "val", **more: Any) -> dict[str, Any]:
    where = {"data_root": str(root), "version": VERSION, "split": split}
    return {"type": "NuScenesCameras", **where, "pipeline": TRAIN_PIPELINE, **more}


def test_a_loader_gives_lists_by_sample(root: Path) -> None:
    loader = Runner.build_dataloader(
        {
            "batch_size": 2,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "collate_fn": {"type": "collate_samples"},
            "dataset": {"type": "CBGSDataset", "dataset": described(root, "train")},
        }
    )
    batch = next(iter(loader))
    assert len(batch["inputs"]) == len(batch["data_samples"]) == 2
    assert batch["inputs"][0]["imgs"].shape == (6, 3, 32, 64)
    assert batch["data_samples"][0].bev_augmentation.shape == (4, 4)


def test_the_dataset_has_what_the_tables_have(root: Path, frames: tuple[Frame, ...]) -> None:
    dataset = DATASETS.build(described(root))
    assert len(dataset) == len(frames)
    assert dataset.metainfo["classes"] == CLASSES
    assert dataset.metainfo["nuscenes"]["version"] == VERSION
    info, frame = dataset.get_data_info(3), frames[3]
    kept = frame.annotations.points > 0
    assert info["sample_token"] == frame.token
    assert list(info["gt_labels_3d"]) == [
        CLASSES.index(name) for name, k in zip(frame.annotations.names, kept, strict=True) if k
    ]
    lidar2global = frame.ego2global @ frame.lidar2ego
    centres, sizes, _, velocities = geometry.to_global(info["gt_bboxes_3d"], lidar2global)
    np.testing.assert_allclose(centres, frame.annotations.centres[kept], atol=1e-3)
    np.testing.assert_allclose(sizes, frame.annotations.sizes[kept], atol=1e-6)
    expected = np.nan_to_num(frame.annotations.velocities[kept])
    np.testing.assert_allclose(velocities, expected, atol=1e-4)


def test_hidden_boxes_are_left_out_unless_asked_for(root: Path) -> None:
    seen, all_boxes = (
        sum(len(d.get_data_info(i)["gt_labels_3d"]) for i in range(len(d)))
        for d in (DATASETS.build(described(root, use_valid_flag=flag)) for flag in (True, False))
    )
    assert seen < all_boxes


def test_fewer_classes_and_fewer_samples(root: Path) -> None:
    few = DATASETS.build(described(root, metainfo={"classes": ("car",)}, indices=[1, 4]))
    assert len(few) == 2
    assert {label for i in range(2) for label in few.get_data_info(i)["gt_labels_3d"]} == {-1, 0}
    assert few.get_cat_ids(0) == [0]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_on_the_way_is_named(root: Path, tmp_path: Path, workers: int) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    broken = next((copy / "samples" / "CAM_BACK").glob("made-val-*"))
    broken.write_bytes(broken.read_bytes()[:300])
    loader = Runner.build_dataloader(
        {
            "batch_size": 1,
            "num_workers": workers,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "collate_samples"},
            "dataset": described(copy),
        }
    )
    name_broken_images(loader.dataset)
    with pytest.raises(UnusableImage) as raised:
        list(loader)
    assert raised.value.problem == f"{broken} is not an image that can be read."


def test_every_class_is_drawn_as_often() -> None:
    drawn = balanced([[0, 1, 2, 3, 4, 5, 6, 7], [3], [5, 6, 7]], seed=0)
    assert len(drawn) == 12
    assert drawn[4:8] == [3, 3, 3, 3]
    assert set(drawn[8:]) <= {5, 6, 7}
    assert drawn == balanced([[0, 1, 2, 3, 4, 5, 6, 7], [3], [5, 6, 7]], seed=0)


def _score(rank: int, port: int, root: Path, answers: Any) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2"
    )
    torch.distributed.init_process_group("gloo")
    metric = metric_of(root, collect_device="gpu")
    found = read_frames(root, VERSION, "val")
    for frame in found[rank::2]:
        metric.process(None, [sample_of(frame, *truth(frame))])
    values = metric.evaluate(len(found))
    if rank == 0:
        answers.put(values["NuScenes/mAP"])
    torch.distributed.destroy_process_group()


def test_two_processes_score_together(root: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [
        context.Process(target=_score, args=(rank, port, root, answers)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    assert answers.get(timeout=60) == pytest.approx(1.0)
    for process in processes:
        process.join(60)
