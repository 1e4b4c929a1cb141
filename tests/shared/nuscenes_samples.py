"""Samples of made scenes as a model would give them back, and the metric that scores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from sparsevit.data.nuscenes.dataset import data_info
from sparsevit.data.nuscenes.made.spec import VERSION
from sparsevit.data.nuscenes.metric import NuScenesMetric
from sparsevit.data.nuscenes.names import CLASSES
from sparsevit.data.nuscenes.tables import Frame


def sample_of(frame: Frame, boxes: Any, scores: Any, labels: Any) -> dict[str, Any]:
    sample = DetDataSample(metainfo=data_info(frame, CLASSES))
    sample.pred_instances_3d = InstanceData(
        bboxes_3d=torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 9),
        scores_3d=torch.as_tensor(scores, dtype=torch.float32),
        labels_3d=torch.as_tensor(labels, dtype=torch.int64),
    )
    return sample.to_dict()


def metric_of(root: Path, **options: Any) -> NuScenesMetric:
    metric = NuScenesMetric(**options)
    where = {"data_root": str(root), "version": VERSION, "split": "val"}
    metric.dataset_meta = {"classes": CLASSES, "nuscenes": where}
    return metric


def truth(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    info = data_info(frame, CLASSES)
    boxes = info["gt_bboxes_3d"]
    return boxes, np.linspace(0.9, 0.5, len(boxes)), info["gt_labels_3d"]
