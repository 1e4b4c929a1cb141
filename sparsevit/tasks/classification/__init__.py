"""Image classification: a class for each image, by mmpretrain's classifiers."""

from sparsevit.tasks.classification.task import Classification

__all__ = ["Classification"]
