"""Boxes in 3D from the cameras around a car: BEVDet on nuScenes, and on scenes in its format."""

from sparsevit.tasks.bev.task import Bev

__all__ = ["Bev"]
