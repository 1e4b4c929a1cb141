"""Semantic segmentation: a class for each pixel, by mmseg's encoder-decoders."""

from sparsevit.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation"]
