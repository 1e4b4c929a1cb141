"""RoIAlign in PyTorch, called as ``mmcv._ext`` is: results go into tensors that the caller made.

The average of a bin is ``Wy @ features @ Wx.T`` with one row of weights a bin. On a CPU each RoI is
multiplied with its own crop, read in place from a channels-last map: a matrix product touches every
pixel of the crop once, where sampling touches it four times or more. On other devices one product
an image does all RoIs over the whole map: more arithmetic, but no loop that waits for the host.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import torch
from torch import Tensor

from sparsevit.ops.mmcv_ext.arithmetic import exact_arithmetic, one_thread, working_dtype
from sparsevit.ops.mmcv_ext.roi_geometry import (
    Axis,
    Taps,
    bilinear_taps,
    check_rois,
    roi_axes,
)

POOL_MAX, POOL_AVERAGE = 0, 1
# RoIs whose weights are held at once.
ROIS_AT_ONCE = 512
# Floats that the whole-map route may hold between its two products (256 MiB in float32).
FLOATS_BETWEEN = 1 << 26


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign of N maps into ``output``.

    Args:
        input: (N, C, H, W), any float dtype; computed in float32 (float64 for float64).
        rois: (n, 5): image, x1, y1, x2, y2 in pixels of the image.
        output: (n, C, aligned_height, aligned_width), written.
        argmax_y, argmax_x: as output, written where pool_mode is 0: where the largest sample lies
            on the map, -1 where a bin has none.
        spatial_scale: pixels of the map per pixel of the image.
        sampling_ratio: samples of a bin along an axis; 0 takes ceil(bin size).
        pool_mode: 0 for the largest sample, 1 for the average.
        aligned: shift by half a pixel, and leave small RoIs small.

    Raises:
        RuntimeError: on CPU, a RoI of negative size with ``aligned``.
        IndexError: a RoI of an image that is not there.
    """
    if rois.size(0) == 0:
        return
    with exact_arithmetic(input):
        dtype = working_dtype(input)
        rois = rois.to(dtype)
        map_size = (input.size(2), input.size(3))
        bins = (aligned_height, aligned_width)
        for image, rows in _by_image(rois, input.size(0), aligned):
            features_HWC = input[image].permute(1, 2, 0).to(dtype).contiguous()
            y, x = roi_axes(rois[rows], bins, map_size, spatial_scale, sampling_ratio, aligned)
            if pool_mode == POOL_MAX:
                _pool_largest(features_HWC, y, x, rows, output, argmax_y, argmax_x)
                continue
            for part in _parts(rows.numel()):
                y_part, x_part = _slice(y, part), _slice(x, part)
                if input.device.type == "cpu":
                    _pool_crops(features_HWC, y_part, x_part, rows[part], output)
                else:
                    pool_map(features_HWC, y_part, x_part, rows[part], output)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds the gradient to ``grad_input`` (N, C, H, W); other arguments as forward's."""
    if rois.size(0) == 0:
        return
    with exact_arithmetic(grad_output):
        dtype = working_dtype(grad_output)
        rois = rois.to(dtype)
        map_size = (grad_input.size(2), grad_input.size(3))
        bins = (aligned_height, aligned_width)
        for image, rows in _by_image(rois, grad_input.size(0), aligned):
            grad_HWC = grad_output.new_zeros((*map_size, grad_input.size(1)), dtype=dtype)
            if pool_mode == POOL_MAX:
                _spread_largest(grad_output, argmax_y, argmax_x, rows, grad_HWC)
                grad_input[image] += grad_HWC.permute(2, 0, 1).to(grad_input.dtype)
                continue
            y, x = roi_axes(rois[rows], bins, map_size, spatial_scale, sampling_ratio, aligned)
            for part in _parts(rows.numel()):
                y_part, x_part = _slice(y, part), _slice(x, part)
                if grad_output.device.type == "cpu":
                    _spread_crops(grad_output, y_part, x_part, rows[part], grad_HWC)
                else:
                    spread_map(grad_output, y_part, x_part, rows[part], grad_HWC)
            grad_input[image] += grad_HWC.permute(2, 0, 1).to(grad_input.dtype)


def _by_image(rois: Tensor, images: int, aligned: bool) -> Iterator[tuple[int, Tensor]]:
    """Each image that has RoIs, with their rows in order."""
    counts = check_rois(rois, images, aligned)
    order = torch.sort(rois[:, 0], stable=True).indices
    for image, rows in enumerate(order.split(counts)):
        if rows.numel():
            yield image, rows


def _parts(count: int, size: int = ROIS_AT_ONCE) -> Iterator[slice]:
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def _slice(axis: Axis, part: slice | Tensor) -> Axis:
    return Axis(axis.start[part], axis.bin_size[part], axis.grid[part], axis.bins, axis.size)


# Average, RoI by RoI


def _touched(weights: Tensor) -> list[tuple[int, int]]:
    """First and past-the-last pixel that weights (n, bins, size) touch; (0, 0) if none."""
    touched = (weights != 0).any(dim=1).to(torch.int32)
    first = touched.argmax(dim=1)
    last = touched.size(1) - touched.flip(1).argmax(dim=1)
    last = torch.where(touched.sum(dim=1) > 0, last, first)
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _pool_crops(features_HWC: Tensor, y: Axis, x: Axis, rows: Tensor, output: Tensor) -> None:
    channels = features_HWC.size(2)
    # Pixels of a row lie side by side, so that a crop is a matrix with a stride: nothing is copied.
    features = features_HWC.flatten(1)
    with one_thread():
        weights_y, weights_x = y.average_weights(), x.average_weights()
        crops = zip(rows.tolist(), _touched(weights_y), _touched(weights_x), strict=True)
        for index, (row, (top, bottom), (left, right)) in enumerate(crops):
            if top == bottom or left == right:
                output[row] = 0
                continue
            crop = features[top:bottom, left * channels : right * channels]
            in_rows = torch.mm(weights_y[index, :, top:bottom], crop)
            across = weights_x[index, :, left:right].expand(y.bins, -1, -1)
            pooled = torch.bmm(across, in_rows.view(y.bins, right - left, channels))
            output[row].copy_(pooled.permute(2, 0, 1))


def _spread_crops(grad_output: Tensor, y: Axis, x: Axis, rows: Tensor, grad_HWC: Tensor) -> None:
    channels = grad_HWC.size(2)
    grad = grad_HWC.flatten(1)
    with one_thread():
        weights_y, weights_x = y.average_weights(), x.average_weights()
        crops = zip(rows.tolist(), _touched(weights_y), _touched(weights_x), strict=True)
        for index, (row, (top, bottom), (left, right)) in enumerate(crops):
            if top == bottom or left == right:
                continue
            pooled = grad_output[row].permute(1, 2, 0).to(grad.dtype).contiguous()
            across = weights_x[index, :, left:right].t().expand(y.bins, -1, -1)
            in_rows = torch.bmm(across, pooled).flatten(1)
            crop = grad[top:bottom, left * channels : right * channels]
            crop.addmm_(weights_y[index, :, top:bottom].t(), in_rows)


# Average, all RoIs of an image at once


def pool_map(features_HWC: Tensor, y: Axis, x: Axis, rows: Tensor, output: Tensor) -> None:
    """Average pooling of all RoIs over the whole map, on any device. Writes ``output[rows]``."""
    channels = features_HWC.size(2)
    for part in _parts(rows.numel(), _whole_map_rois(y.bins, x.size, channels)):
        weights_y, weights_x = _slice(y, part).average_weights(), _slice(x, part).average_weights()
        in_rows = weights_y.flatten(0, 1) @ features_HWC.flatten(1)
        in_rows = in_rows.view(-1, y.bins, x.size, channels)
        pooled = weights_x[:, None] @ in_rows
        output[rows[part]] = pooled.permute(0, 3, 1, 2).to(output.dtype)


def spread_map(grad_output: Tensor, y: Axis, x: Axis, rows: Tensor, grad_HWC: Tensor) -> None:
    """The gradient of :func:`pool_map`, added to ``grad_HWC`` in a fixed order."""
    channels = grad_HWC.size(2)
    for part in _parts(rows.numel(), _whole_map_rois(y.bins, x.size, channels)):
        weights_y, weights_x = _slice(y, part).average_weights(), _slice(x, part).average_weights()
        pooled = grad_output[rows[part]].permute(0, 2, 3, 1).to(grad_HWC.dtype)
        in_rows = weights_x.transpose(1, 2)[:, None] @ pooled
        in_rows = in_rows.flatten(2).flatten(0, 1)
        grad_HWC.flatten(1).addmm_(weights_y.flatten(0, 1).t(), in_rows)


def _whole_map_rois(bins: int, width: int, channels: int) -> int:
    return max(1, min(ROIS_AT_ONCE, FLOATS_BETWEEN // (bins * width * channels)))


# The largest sample

# Bins times channels of a block of RoIs, of which four are held at once: what a core's cache takes.
LARGEST_AT_ONCE = 1 << 18


def _pool_largest(
    features_HWC: Tensor,
    y: Axis,
    x: Axis,
    rows: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
) -> None:
    channels = features_HWC.size(2)
    # RoIs of like size share a block, so that few wait for the largest one.
    order = torch.sort(y.grid * x.grid, stable=True).indices
    with one_thread():
        for part in _parts(rows.numel(), max(1, LARGEST_AT_ONCE // (y.bins * x.bins * channels))):
            block = order[part]
            found = _largest_samples(features_HWC, _slice(y, block), _slice(x, block))
            for target, values in zip((output, argmax_y, argmax_x), found, strict=True):
                target[rows[block]] = values.permute(0, 3, 1, 2).to(target.dtype)


def _largest_samples(features_HWC: Tensor, y: Axis, x: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """The largest sample of each bin, and its y and x (-1: none): three of (n, bins, bins, C).

    RoIs come with fewest samples first. Samples are taken in the order that decides between equal
    ones, one of every bin at a time.
    """
    height, width, channels = features_HWC.shape
    pixels = features_HWC.view(height * width, channels)
    # What compiled mmcv starts from, and so returns for a bin without samples.
    floor = -10000.0 if pixels.device.type == "cpu" else torch.finfo(torch.float32).min
    largest = pixels.new_full((y.start.numel(), y.bins, x.bins, channels), floor)
    winner = torch.full_like(largest, -1)
    counts = (y.grid * x.grid).tolist()
    for sample in range(counts[-1]):
        active = slice(bisect_right(counts, sample), None)
        y_part, x_part = _slice(y, active), _slice(x, active)
        row, column = sample // x_part.grid, sample % x_part.grid
        taps_y = bilinear_taps(y_part.positions(row[:, None]), height)
        taps_x = bilinear_taps(x_part.positions(column[:, None]).transpose(1, 2), width)
        value = torch.zeros_like(largest[active])
        for pixel, weight in _corners(taps_y, taps_x, width):
            read = pixels.index_select(0, pixel.flatten()).view_as(value)
            value.addcmul_(read, weight[..., None])
        winner[active].masked_fill_(value > largest[active], sample)
        largest[active].copy_(torch.maximum(largest[active], value))
    at = winner.clamp(min=0).to(torch.int64)
    columns = x.grid.clamp(min=1)[:, None, None, None]
    at_y = torch.where(winner < 0, -1, _positions_of(y, at // columns, 1))
    at_x = torch.where(winner < 0, -1, _positions_of(x, at % columns, 2))
    return largest, at_y, at_x


def _positions_of(axis: Axis, samples: Tensor, dim: int) -> Tensor:
    """Positions of samples (n, bins, bins, C), each of the bin that its index in ``dim`` names."""
    by_bin = samples.movedim(dim, 1)
    found = [
        axis.positions(by_bin[:, index].flatten(1))[:, index].view_as(by_bin[:, index])
        for index in range(axis.bins)
    ]
    return torch.stack(found, dim=dim)


def _corners(y: Taps, x: Taps, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The four pixels of each sample, as y * width + x, with their weights, in mmcv's order."""
    for row, weight_row in ((y.low, y.weight_low), (y.high, y.weight_high)):
        for column, weight_column in ((x.low, x.weight_low), (x.high, x.weight_high)):
            yield row * width + column, weight_row * weight_column


def _spread_largest(
    grad_output: Tensor, argmax_y: Tensor, argmax_x: Tensor, rows: Tensor, grad_HWC: Tensor
) -> None:
    height, width, channels = grad_HWC.shape
    grad = grad_HWC.view(-1)
    channel = torch.arange(channels, device=grad.device)[:, None, None]
    with one_thread():
        for part in _parts(rows.numel(), max(1, LARGEST_AT_ONCE // grad_output[0].numel())):
            block = rows[part]
            at_y, at_x = argmax_y[block].to(grad.dtype), argmax_x[block].to(grad.dtype)
            taps_y, taps_x = bilinear_taps(at_y, height), bilinear_taps(at_x, width)
            # mmcv marks a bin without a sample by y = -1, and passes a sample there nothing.
            passed = grad_output[block].to(grad.dtype) * (at_y != -1)
            for pixel, weight in _corners(taps_y, taps_x, width):
                index = (pixel * channels + channel).flatten()
                grad.index_put_((index,), (passed * weight).flatten(), accumulate=True)
