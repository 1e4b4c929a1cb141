"""Multi-scale deformable attention (Zhu et al., 2021) through mmcv's own PyTorch route.

mmcv takes that route by itself on a CPU. On CUDA it calls ``mmcv._ext``, which comes back to it
here, with a backward pass by autograd.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsevit.ops.mmcv_ext.arithmetic import exact_arithmetic, working_dtype


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """The attended values.

    Args:
        value: (batch, keys, heads, dims), keys of all levels one after another.
        value_spatial_shapes: (levels, 2) int64, height and width.
        value_level_start_index: (levels,); levels lie in order, so it follows from the shapes.
        sampling_locations: (batch, queries, heads, levels, points, 2), x and y in 0..1.
        attention_weights: (batch, queries, heads, levels, points).
        im2col_step: of the compiled op; no use here.

    Returns:
        (batch, queries, heads * dims), dtype of ``value``.
    """
    del value_level_start_index, im2col_step
    with exact_arithmetic(value):
        dtype = working_dtype(value)
        inputs = (value.to(dtype), sampling_locations.to(dtype), attention_weights.to(dtype))
        return _attend(inputs, value_spatial_shapes).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Adds to the gradients of value, locations and weights; other arguments as forward's."""
    del value_level_start_index, im2col_step
    with exact_arithmetic(value), torch.enable_grad():
        dtype = working_dtype(value)
        inputs = tuple(
            tensor.detach().to(dtype).requires_grad_()
            for tensor in (value, sampling_locations, attention_weights)
        )
        output = _attend(inputs, value_spatial_shapes)
        gradients = torch.autograd.grad(output, inputs, grad_output.to(dtype))
    for target, gradient in zip(
        (grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True
    ):
        target.add_(gradient.to(target.dtype))


def _attend(inputs: tuple[Tensor, ...], spatial_shapes: Tensor) -> Tensor:
    # Not at the top: mmcv.ops needs mmcv._ext, which this module is a part of.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    value, locations, weights = inputs
    # As plain numbers: iterating over the tensor would wait for the device at every level.
    shapes = spatial_shapes.tolist()
    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
