"""What is registered with mmdet for nuScenes; a config names this module in ``custom_imports``."""

from sparsevit.data.nuscenes.dataset import CBGSDataset, NuScenesCameras
from sparsevit.data.nuscenes.metric import NuScenesMetric
from sparsevit.data.nuscenes.transforms import (
    GlobalRotScaleTrans,
    LoadMultiViewImageFromFiles,
    ObjectNameFilter,
    ObjectRangeFilter,
    Pack3DDetInputs,
    RandomFlip3D,
    collate_samples,
)

__all__ = [
    "CBGSDataset",
    "GlobalRotScaleTrans",
    "LoadMultiViewImageFromFiles",
    "NuScenesCameras",
    "NuScenesMetric",
    "ObjectNameFilter",
    "ObjectRangeFilter",
    "Pack3DDetInputs",
    "RandomFlip3D",
    "collate_samples",
]
