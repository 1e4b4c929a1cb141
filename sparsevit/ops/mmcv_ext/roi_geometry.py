"""Where RoIAlign samples: positions, bilinear taps and pooling weights along one axis.

RoIAlign (He et al., 2017, arXiv 1703.06870) cuts a RoI into bins, takes a regular grid of bilinear
samples in each bin and averages them, or takes the largest. Along an axis, bin ``b`` of a RoI
samples at::

    start + b * bin + (i + 0.5) * bin / grid        i = 0 .. grid - 1

A sample outside ``[-1, size]`` counts as zero; one within a pixel of the border is moved onto it.
Everything is separable in y and x, which is what makes the average a pair of matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Samples of a bin handled at once: bounds the memory that a RoI far larger than its map asks for.
SAMPLES_AT_ONCE = 32


@dataclass(frozen=True)
class Taps:
    """The two pixels that a sample reads along an axis, and the share of each (one shape)."""

    low: Tensor
    high: Tensor
    weight_low: Tensor
    weight_high: Tensor
    inside: Tensor


def bilinear_taps(positions: Tensor, size: int) -> Taps:
    """Bilinear interpolation along an axis of ``size`` pixels at float positions of any shape.

    Weights are 0 where the position is outside ``[-1, size]`` (or NaN).
    """
    inside = (positions >= -1) & (positions <= size)
    clamped = torch.where(inside, positions, torch.zeros_like(positions)).clamp(min=0, max=size - 1)
    low = clamped.to(torch.int64)
    fraction = clamped - low
    keep = inside.to(positions.dtype)
    return Taps(
        low=low,
        high=(low + 1).clamp(max=size - 1),
        weight_low=(1 - fraction) * keep,
        weight_high=fraction * keep,
        inside=inside,
    )


@dataclass(frozen=True)
class Axis:
    """n RoIs along one axis of the map, in pixels of the map.

    start, bin_size: (n,) floats. grid: (n,) int64, samples of a bin (0: the RoI is empty).
    bins: of the output. size: of the map.
    """

    start: Tensor
    bin_size: Tensor
    grid: Tensor
    bins: int
    size: int

    def positions(self, samples: Tensor) -> Tensor:
        """Positions of the given samples: (s,) or (n, s) int64 -> (n, bins, s)."""
        bins = torch.arange(self.bins, device=self.start.device, dtype=self.start.dtype)
        bin_start = self.start[:, None] + bins * self.bin_size[:, None]
        middle = (samples.to(self.start.dtype) + 0.5) * self.bin_size[:, None]
        grid = self.grid.clamp(min=1).to(self.start.dtype)
        return bin_start[:, :, None] + (middle / grid[:, None])[:, None, :]

    def average_weights(self) -> Tensor:
        """What each pixel adds to the mean of each bin: (n, bins, size), mostly zeros."""
        n = self.start.numel()
        weights = self.start.new_zeros(n * self.bins * self.size)
        first_pixel = torch.arange(n * self.bins, device=self.start.device) * self.size
        first_pixel = first_pixel.view(n, self.bins, 1)
        share = 1 / self.grid.clamp(min=1).to(self.start.dtype)
        most = int(self.grid.max()) if n else 0
        for first in range(0, most, SAMPLES_AT_ONCE):
            last = min(first + SAMPLES_AT_ONCE, most)
            samples = torch.arange(first, last, device=self.start.device)
            taps = bilinear_taps(self.positions(samples), self.size)
            taken = (share[:, None] * (samples < self.grid[:, None]))[:, None, :]
            # index_put_ adds in a fixed order on every device; scatter_add_ does not on CUDA.
            for pixel, weight in ((taps.low, taps.weight_low), (taps.high, taps.weight_high)):
                index = (first_pixel + pixel).flatten()
                weights.index_put_((index,), (weight * taken).flatten(), accumulate=True)
        return weights.view(n, self.bins, self.size)


def roi_axes(
    rois: Tensor,
    bins: tuple[int, int],
    map_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Axis, Axis]:
    """The y and the x axis of RoIs (n, 5), float: image, x1, y1, x2, y2 in pixels of the image.

    The order of the operations is compiled mmcv's, so that the same sizes round to the same grid.
    """
    scale = torch.tensor(spatial_scale, dtype=torch.float32).item()
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    axes = []
    for axis, low, high in ((0, 1, 3), (1, 0, 2)):
        length = corners[:, high] - corners[:, low]
        if not aligned:
            length = length.clamp(min=1)
        bin_size = length / bins[axis]
        if sampling_ratio > 0:
            grid = torch.full_like(length, sampling_ratio, dtype=torch.int64)
        else:
            grid = bin_size.float().ceil().nan_to_num(0, 0, 0).clamp(min=0).to(torch.int64)
        axes.append(Axis(corners[:, low], bin_size, grid, bins[axis], map_size[axis]))
    return axes[0], axes[1]


def check_rois(rois: Tensor, images: int, aligned: bool) -> list[int]:
    """The number of RoIs of each image.

    Raises:
        IndexError: a RoI names an image that is not there.
        RuntimeError: on CPU and aligned, a RoI of negative size, which compiled mmcv refuses too.
    """
    counts = torch.bincount(rois[:, 0].to(torch.int64).clamp(min=-1) + 1, minlength=images + 1)
    per_image = counts.tolist()
    if per_image[0] or len(per_image) > images + 1:
        raise IndexError(f"A RoI refers to an image outside this batch of {images}.")
    if not aligned or rois.device.type != "cpu":
        return per_image[1:]
    if not bool(((rois[:, 3] >= rois[:, 1]) & (rois[:, 4] >= rois[:, 2])).all()):
        raise RuntimeError(
            "RoIAlign with aligned=True got a RoI of negative size, or one with NaN."
        )
    return per_image[1:]
