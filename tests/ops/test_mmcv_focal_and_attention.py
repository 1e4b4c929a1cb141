"""Focal losses and deformable attention through mmcv's own functions, against plain loops."""

import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.ops import mmcv_ext

mmcv_ext.install()
ops = importlib.import_module("mmcv.ops")
attention = importlib.import_module("mmcv.ops.multi_scale_deform_attn")

LEAST = float(np.finfo(np.float32).tiny)


def sigmoid_loss(x, positive, gamma, alpha):
    p = 1 / (1 + math.exp(-x))
    if positive:
        return -alpha * (1 - p) ** gamma * math.log(max(p, LEAST))
    return -(1 - alpha) * p**gamma * math.log(max(1 - p, LEAST))


def sigmoid_slope(x, positive, gamma, alpha, step=1e-6):
    up, down = (sigmoid_loss(x + s, positive, gamma, alpha) for s in (step, -step))
    return (up - down) / (2 * step)


def rows(rng, count, classes):
    # mmcv takes 1 - p as it is: in float32 the logarithm of a small one is right to few digits.
    logits = rng.normal(scale=2, size=(count, classes)).clip(-4, 4).astype(np.float32)
    return logits, rng.integers(0, classes + 1, size=count)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 5),
    classes=st.integers(1, 4),
    gamma=st.sampled_from([1.0, 1.5, 2.0]),
    alpha=st.sampled_from([0.25, 0.5, 0.9]),
    weighted=st.booleans(),
    seed=st.integers(0, 20),
)
def test_sigmoid_focal_loss_is_that_of_the_definition(count, classes, gamma, alpha, weighted, seed):
    rng = np.random.default_rng(seed)
    logits, target = rows(rng, count, classes)
    weight = torch.tensor(rng.random(classes), dtype=torch.float32) if weighted else None
    input = torch.tensor(logits, requires_grad=True)
    loss = ops.sigmoid_focal_loss(input, torch.tensor(target), gamma, alpha, weight, "none")
    loss.sum().backward()
    for n in range(count):
        background = target[n] == classes
        scale = 1.0 if weight is None or background else float(weight[target[n]])
        for c in range(classes):
            arguments = (float(logits[n, c]), target[n] == c, gamma, alpha)
            assert loss[n, c].item() == pytest.approx(scale * sigmoid_loss(*arguments), abs=1e-4)
            slope = scale * sigmoid_slope(*arguments)
            assert input.grad[n, c].item() == pytest.approx(slope, abs=1e-4)


def test_sigmoid_focal_loss_stays_finite_for_certain_predictions():
    input = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(input, torch.tensor([1]), 2.0, 0.25, None, "sum")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(input.grad).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_sigmoid_focal_loss_reduces_as_mmcv_does(reduction):
    logits, target = rows(np.random.default_rng(0), 6, 3)
    arguments = (torch.tensor(logits), torch.tensor(target), 2.0, 0.25, None)
    total = ops.sigmoid_focal_loss(*arguments, "none").sum()
    expected = total / 6 if reduction == "mean" else total
    torch.testing.assert_close(ops.sigmoid_focal_loss(*arguments, reduction), expected)


def test_sigmoid_focal_loss_takes_half_precision():
    logits, target = rows(np.random.default_rng(0), 6, 3)
    half = torch.tensor(logits).half()
    loss = ops.sigmoid_focal_loss(half, torch.tensor(target), 2.0, 0.25, None, "none")
    exact = ops.sigmoid_focal_loss(half.float(), torch.tensor(target), 2.0, 0.25, None, "none")
    assert torch.equal(loss, exact.half())


@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_focal_loss_and_gradient_are_those_of_the_definition(weighted):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(7, 4))
    target = torch.tensor([0, 1, 2, 3, -1, 1, 0])
    weight = torch.tensor([0.5, 2.0, 1.0, 0.1], dtype=torch.float64) if weighted else None
    input = torch.tensor(logits, requires_grad=True)
    ops.softmax_focal_loss(input, target, 2.0, 0.25, weight, "sum").backward()
    again = torch.tensor(logits, requires_grad=True)
    p = again.softmax(dim=1)
    expected = again.new_zeros(())
    for n, label in enumerate(target.tolist()):
        if label >= 0:
            scale = 1 if weight is None else weight[label]
            expected = expected - scale * 0.25 * (1 - p[n, label]) ** 2 * p[n, label].log()
    expected.backward()
    torch.testing.assert_close(input.grad, again.grad)


def attention_inputs(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.tensor([[4, 5], [2, 3]])
    starts = torch.tensor([0, 20])

    def random(*size):
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    value = random(2, 26, 2, 3) - 0.5
    # Some outside of the map on each side.
    locations = random(2, 4, 2, 2, 3, 2) * 1.6 - 0.3
    weights = random(2, 4, 2, 2, 3)
    tensors = [tensor.to(dtype).requires_grad_() for tensor in (value, locations, weights)]
    return tensors[0], shapes, starts, tensors[1], tensors[2], 64


def reference_attention(value, shapes, starts, locations, weights):
    value, locations, weights = (t.detach().double().numpy() for t in (value, locations, weights))
    batch, queries, heads, levels, points, _ = locations.shape
    output = np.zeros((batch, queries, heads, value.shape[3]))
    for b, q, h, level, p in np.ndindex(batch, queries, heads, levels, points):
        height, width = shapes[level].tolist()
        start = int(starts[level])
        level_map = value[b, start : start + height * width, h].reshape(height, width, -1)
        x, y = locations[b, q, h, level, p] * [width, height] - 0.5
        along_y = np.maximum(0, 1 - np.abs(np.arange(height) - y))
        along_x = np.maximum(0, 1 - np.abs(np.arange(width) - x))
        sampled = np.einsum("y,x,yxc->c", along_y, along_x, level_map)
        output[b, q, h] += weights[b, q, h, level, p] * sampled
    return output.reshape(batch, queries, -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deformable_attention_is_that_of_the_definition(dtype):
    inputs = attention_inputs(dtype)
    output = attention.MultiScaleDeformableAttnFunction.apply(*inputs)
    np.testing.assert_allclose(output.detach(), reference_attention(*inputs[:5]), atol=1e-5)


def test_deformable_attention_has_the_gradients_of_the_definition():
    value, shapes, starts, locations, weights, step = attention_inputs()

    def attend(value, locations, weights):
        return attention.MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, step
        )

    assert torch.autograd.gradcheck(attend, (value, locations, weights))


def attend_with(module, function):
    torch.manual_seed(0)
    query = torch.randn(6, 2, 32, requires_grad=True)
    value = torch.randn(26, 2, 32, requires_grad=True)
    shapes = torch.tensor([[4, 5], [2, 3]])
    points = torch.rand(2, 6, 2, 2)
    output = function(module)(
        query,
        value=value,
        reference_points=points,
        spatial_shapes=shapes,
        level_start_index=torch.tensor([0, 20]),
    )
    output.square().sum().backward()
    return output.detach(), query.grad, value.grad


def test_the_layer_gives_the_same_through_the_extension_as_through_pytorch(monkeypatch):
    # The extension is what the layer calls on CUDA, and PyTorch's route what it takes on a CPU.
    module = ops.MultiScaleDeformableAttention(32, num_heads=4, num_levels=2, dropout=0.0)
    torch.nn.init.normal_(module.sampling_offsets.weight, std=0.3)
    by_pytorch = attend_with(module, lambda layer: layer)
    function = attention.MultiScaleDeformableAttnFunction
    original = attention.multi_scale_deformable_attn_pytorch

    def by_extension(value, shapes, locations, weights):
        if isinstance(shapes, list):  # The extension calls back with plain numbers.
            return original(value, shapes, locations, weights)
        return function.apply(value, shapes, torch.tensor([0, 20]), locations, weights, 64)

    monkeypatch.setattr(attention, "multi_scale_deformable_attn_pytorch", by_extension)
    for ours, theirs in zip(attend_with(module, lambda layer: layer), by_pytorch, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_deformable_attention_takes_half_precision():
    inputs = attention_inputs(torch.float16)
    output = attention.MultiScaleDeformableAttnFunction.apply(*inputs)
    output.sum().backward()
    assert output.dtype == torch.float16
    assert inputs[0].grad.dtype == torch.float16
    np.testing.assert_allclose(output.detach(), reference_attention(*inputs[:5]), atol=2e-3)
