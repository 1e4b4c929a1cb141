"""Checks of a BEVDet config against its data, before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sparsevit.data.images import image_fault
from sparsevit.data.nuscenes.names import CLASSES
from sparsevit.data.nuscenes.tables import Frame, check_images, read_frames
from sparsevit.errors import UserError
from sparsevit.tasks.own import kind, nested

_SPLIT, _VERSION = "train", "v1.0-trainval"


def check_data(cfg: Any, splits: Sequence[str], *, leave_out: bool) -> tuple[str, ...]:
    """See :meth:`sparsevit.tasks.Task.check_data`. Datasets other than nuScenes' are not looked at.

    Args:
        cfg: the config; where samples are left out, its datasets are changed.
        splits: which.
        leave_out: samples with a broken image, rather than refuse them.

    Raises:
        UserError: tables are missing or damaged, a split is empty, an image is missing or broken,
            the head has other classes, or the pipeline makes images that the model does not take.
    """
    said = []
    for split in splits:
        key = f"{split}_dataloader.dataset"
        loader = cfg.get(f"{split}_dataloader") or {}
        for dataset in nested(loader.get("dataset")):
            if kind(dataset) != "NuScenesCameras":
                continue
            _check_classes(cfg, dataset, key)
            _check_size(cfg, dataset, key)
            where = (dataset.get("version", _VERSION), dataset.get("split", _SPLIT))
            frames = read_frames(dataset["data_root"], *where)
            if not leave_out:
                check_images(frames)
                continue
            whole = [i for i, frame in enumerate(frames) if _fault(frame) is None]
            if not whole:
                check_images(frames)
            if len(whole) < len(frames):
                dataset["indices"] = whole
                first = next(filter(None, map(_fault, frames)))
                said.append(
                    f"left out: {len(frames) - len(whole)} of {len(frames)} samples of the split "
                    f"{where[1]} of {dataset['data_root']}, of which an image cannot be used "
                    f"({first})"
                )
    return tuple(said)


def is_type(value: Any, name: str) -> bool:
    """Whether a part of a config is of a type, with a scope or without."""
    return isinstance(value, dict) and kind(value) == name


def _fault(frame: Frame) -> str | None:
    """What is wrong with the first image of a sample that cannot be decoded."""
    faults = ((path, image_fault(path, whole=True)) for path in frame.images)
    return next((f"{path} {wrong}" for path, wrong in faults if wrong), None)


def _check_classes(cfg: Any, dataset: Any, key: str) -> None:
    found = list((dataset.get("metainfo") or {}).get("classes", CLASSES))
    unknown = [name for name in found if name not in CLASSES]
    if unknown:
        raise UserError(
            f"{key}.metainfo.classes has {unknown[0]!r}, which is no class of nuScenes.",
            f"Its classes are: {', '.join(CLASSES)}.",
        )
    tasks = (cfg.model.get("pts_bbox_head") or {}).get("tasks") or []
    wanted = [name for task in tasks for name in task["class_names"]]
    if wanted and wanted != found:
        raise UserError(
            f"The head's tasks are for the classes {', '.join(wanted)}, in this order, and {key} "
            f"has {', '.join(found)}.",
            f"Set {key}.metainfo.classes, or the class_names of model.pts_bbox_head.tasks.",
        )


def _check_size(cfg: Any, dataset: Any, key: str) -> None:
    view = cfg.model.get("img_view_transformer") or {}
    wanted = (view.get("data_config") or {}).get("input_size")
    for size in _sizes(dataset.get("pipeline")):
        if wanted is not None and tuple(size) != tuple(wanted):
            raise UserError(
                f"{key}.pipeline makes images of {tuple(size)} (height, width), and the model is "
                f"for {tuple(wanted)}.",
                "Give both the same data_config.input_size.",
            )


def _sizes(pipeline: Any) -> Iterator[Sequence[int]]:
    for step in pipeline or ():
        size = (step.get("data_config") or {}).get("input_size")
        if size is not None:
            yield size
