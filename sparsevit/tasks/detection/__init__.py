"""Detection: boxes, labels and masks of objects, by mmdet's two-stage detectors."""

from sparsevit.tasks.detection.task import Detection

__all__ = ["Detection"]
