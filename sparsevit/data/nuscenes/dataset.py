"""Key frames of nuScenes as a dataset of mmdet's: six images, their cameras, and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset, ClassBalancedDataset

from sparsevit.data.nuscenes import geometry
from sparsevit.data.nuscenes.names import CAMERAS, CLASSES
from sparsevit.data.nuscenes.tables import Frame, read_frames


@DATASETS.register_module()
class NuScenesCameras(BaseDataset):
    """The key frames of a split, by time.

    What ``get_data_info`` gives of one: ``sample_token``, ``img_paths`` (6 files, in the order of
    ``CAMERAS``), ``img_path`` (the first of them), ``intrinsics`` (6, 3, 3), ``cam2lidar`` (6, 4,
    4), ``lidar2ego`` and ``ego2global`` (4, 4), ``gt_bboxes_3d`` (n, 9) float32 in the lidar's
    frame (:mod:`~sparsevit.data.nuscenes.geometry`), ``gt_labels_3d`` (n,) int64, -1 for what is no
    class, and ``annotations`` for the metric. Its metainfo has ``classes``, and under ``nuscenes``
    where it is from: ``data_root``, ``version``, ``split``.

    Args:
        data_root: with ``samples`` and the folder of tables.
        version: of the tables.
        split: ``train``, ``val``, or a name in the version's ``splits.json``.
        use_valid_flag: leave out boxes that neither lidar nor radar saw; else those that the lidar
            and the radar did not see stay too. The metric never counts them.
        pipeline, metainfo, indices, test_mode, lazy_init: as of mmengine's ``BaseDataset``;
            ``metainfo`` may name fewer ``classes``.

    Raises:
        UserError: see :func:`~sparsevit.data.nuscenes.tables.read_frames`.
    """

    METAINFO = {"classes": CLASSES}  # noqa: RUF012 - mmengine's own form

    def __init__(
        self,
        data_root: str,
        version: str = "v1.0-trainval",
        split: str = "train",
        use_valid_flag: bool = True,
        pipeline: Sequence[Any] = (),
        metainfo: dict[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.version, self.split, self.use_valid_flag = version, split, use_valid_flag
        where = {"data_root": str(data_root), "version": version, "split": split}
        super().__init__(
            data_root=str(data_root),
            pipeline=list(pipeline),
            metainfo={"nuscenes": where, **(metainfo or {})},
            indices=indices,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        frames = read_frames(Path(self.data_root), self.version, self.split)
        return [data_info(frame, self.metainfo["classes"], self.use_valid_flag) for frame in frames]

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels that a sample has, each once."""
        return sorted({int(one) for one in self.get_data_info(idx)["gt_labels_3d"] if one >= 0})


def data_info(frame: Frame, classes: Sequence[str], valid_only: bool = True) -> dict[str, Any]:
    """What :class:`NuScenesCameras` gives of a key frame."""
    notes = frame.annotations
    boxes = geometry.to_lidar(
        notes.centres,
        notes.sizes,
        notes.rotations,
        np.nan_to_num(notes.velocities),
        frame.ego2global @ frame.lidar2ego,
    )
    labels = [classes.index(name) if name in classes else -1 for name in notes.names]
    kept = notes.points > 0 if valid_only else np.ones(len(notes.names), bool)
    return {
        "sample_token": frame.token,
        "img_paths": [str(path) for path in frame.images],
        "img_path": str(frame.images[0]),
        "cameras": CAMERAS,
        "intrinsics": frame.intrinsics,
        "cam2lidar": frame.cam2lidar,
        "lidar2ego": frame.lidar2ego,
        "ego2global": frame.ego2global,
        "gt_bboxes_3d": boxes[kept].astype(np.float32),
        "gt_labels_3d": np.array(labels, np.int64)[kept],
        "annotations": notes,
    }


@DATASETS.register_module()
class CBGSDataset(ClassBalancedDataset):
    """Class-balanced resampling (Zhu et al., arXiv:1908.09492): each class in as many samples.

    A sample is drawn for each class that it has; draws repeat it. As many are drawn in all as the
    samples have classes.

    Args:
        dataset: to draw from, or its config. It has ``get_cat_ids``.
        seed: of the draw; every process draws the same.
        lazy_init: as of mmengine's datasets.
    """

    def __init__(self, dataset: Any, seed: int = 0, lazy_init: bool = False) -> None:
        self.seed = seed
        self._fully_initialized = False
        super().__init__(
            DATASETS.build(dataset) if isinstance(dataset, dict) else dataset,
            oversample_thr=0,
            lazy_init=lazy_init,
        )

    def full_init(self) -> None:
        if self._fully_initialized:
            return
        self.dataset.full_init()
        with_class: dict[int, list[int]] = {}
        for index in range(len(self.dataset)):
            for label in self.dataset.get_cat_ids(index):
                with_class.setdefault(label, []).append(index)
        self.repeat_indices = balanced(list(with_class.values()), self.seed)
        self._fully_initialized = True


def balanced(with_class: Sequence[Sequence[int]], seed: int) -> list[int]:
    """Draws as many samples of each class.

    Args:
        with_class: for each class that occurs, the samples that have it.
        seed: of the draw.
    """
    dice = np.random.RandomState(seed)
    share = sum(map(len, with_class)) // max(1, len(with_class))
    return [int(one) for samples in with_class for one in dice.choice(samples, share)]
