"""RoIAlign against loops over RoIs, bins and samples that are written from the definition."""

import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.ops import mmcv_ext
from sparsevit.ops.mmcv_ext import roi_align as ours
from sparsevit.ops.mmcv_ext.roi_geometry import roi_axes

mmcv_ext.install()
ops = importlib.import_module("mmcv.ops")

MODES = ("avg", "max")


def hat(position, size):
    """Bilinear weights of all pixels of an axis; None outside of the map."""
    if position < -1 or position > size:
        return None
    position = min(max(position, 0), size - 1)
    return np.maximum(0, 1 - np.abs(np.arange(size) - float(position)))


def reference(features, rois, bins, scale, ratio, aligned, mode, real=np.float32):
    """Per output element the weights of all pixels: returns (outputs, weights), both float64.

    Positions are computed in ``real``, in compiled mmcv's order: whether a sample at the very edge
    of the map counts depends on the last bit.
    """
    channels, height, width = features.shape[1:]
    outputs = np.zeros((len(rois), channels, *bins))
    weights = np.zeros((len(rois), channels, *bins, height, width))
    for n, (image, *box) in enumerate(rois):
        corners = [real(v) * real(scale) - real(0.5 if aligned else 0) for v in box]
        start = [corners[1], corners[0]]
        sides = [corners[3] - corners[1], corners[2] - corners[0]]
        if not aligned:
            sides = [max(side, real(1)) for side in sides]
        step = [side / real(b) for side, b in zip(sides, bins, strict=True)]
        grid = [ratio or math.ceil(np.float32(length)) for length in step]

        def place(axis, bin_index, sample, start=start, step=step, grid=grid):
            middle = real(sample + 0.5) * step[axis] / real(grid[axis])
            return start[axis] + real(bin_index) * step[axis] + middle

        for by in range(bins[0]):
            for bx in range(bins[1]):
                found, heights = [], []
                for iy in range(grid[0]):
                    y = hat(place(0, by, iy), height)
                    for ix in range(grid[1]):
                        x = hat(place(1, bx, ix), width)
                        heights.append(place(0, by, iy))
                        outside = y is None or x is None
                        found.append(np.zeros((height, width)) if outside else np.outer(y, x))
                for c in range(channels):
                    values = [(w * features[int(image), c]).sum() for w in found]
                    if mode == "avg":
                        share = sum(found) / len(found) if found else 0
                    else:
                        share = found[int(np.argmax(values))] if found else 0
                    weights[n, c, by, bx] = share
                    outputs[n, c, by, bx] = (share * features[int(image), c]).sum()
                    if mode == "max" and not found:
                        outputs[n, c, by, bx] = -10000
                    # -1 stands for "no sample" in mmcv, so that a largest one there passes nothing.
                    if mode == "max" and found and heights[int(np.argmax(values))] == -1:
                        weights[n, c, by, bx] = 0
    return outputs, weights


def reference_gradient(weights, rois, upstream, shape):
    gradient = np.zeros(shape)
    for n, roi in enumerate(rois):
        gradient[int(roi[0])] += (weights[n] * upstream[n][..., None, None]).sum(axis=(1, 2))
    return gradient


def check(rois, bins, scale, ratio, aligned, mode, dtype, seed=0, size=(9, 8)):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(2, 3, *size)).astype(np.float32)
    real = np.float64 if dtype == torch.float64 else np.float32
    expected, weights = reference(features, rois, bins, scale, ratio, aligned, mode, real)
    input = torch.tensor(features, dtype=dtype, requires_grad=True)
    layer = ops.RoIAlign(bins, scale, ratio, mode, aligned)
    output = layer(input, torch.tensor(rois, dtype=dtype).reshape(-1, 5))
    np.testing.assert_allclose(output.detach(), expected, atol=1e-4, rtol=1e-4)
    upstream = rng.normal(size=expected.shape)
    output.backward(torch.tensor(upstream, dtype=dtype))
    gradient = reference_gradient(weights, rois, upstream, features.shape)
    np.testing.assert_allclose(input.grad, gradient, atol=1e-4, rtol=1e-4)


ROIS = [
    [0, 3.3, 1.7, 21.9, 30.2],
    [1, 0, 0, 35.9, 35.9],
    [1, -13.1, -9.2, 12.6, 4.4],
    [0, 25.2, 20.1, 60.5, 70.3],
    [0, 10.4, 10.6, 10.9, 11.2],
    [1, 200, 200, 230, 240],
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_outputs_and_gradients_are_those_of_the_definition(mode, aligned, ratio):
    check(ROIS, (3, 2), 0.25, ratio, aligned, mode, torch.float32)


coordinate = st.integers(-40, 120).map(lambda quarter: quarter / 4)
extent = st.one_of(st.just(0.0), st.integers(0, 120).map(lambda quarter: quarter / 4))
roi = st.builds(
    lambda image, x, y, w, h: [image, x, y, x + w, y + h],
    st.integers(0, 1),
    coordinate,
    coordinate,
    extent,
    extent,
)


@settings(max_examples=60, deadline=None)
@given(
    rois=st.lists(roi, max_size=3),
    bins=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    scale=st.sampled_from([0.25, 0.5, 1.0]),
    ratio=st.integers(0, 2),
    aligned=st.booleans(),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 5),
)
def test_any_rois_agree_with_the_definition(rois, bins, scale, ratio, aligned, mode, seed):
    check(rois, bins, scale, ratio, aligned, mode, torch.float64, seed)


def test_a_roi_far_larger_than_its_map_agrees_with_the_definition():
    check([[0, -100, -30, 120, 190]], (2, 2), 1.0, 0, True, "avg", torch.float32, size=(5, 6))


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck_in_float64(mode):
    torch.manual_seed(0)
    input = torch.randn(2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.6, 1.1, 9.7, 10.3], [1, 2.3, 2.2, 7.9, 5.6]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: ops.roi_align(x, rois, (2, 3), 0.5, 0, mode, True), (input,)
    )


def random_rois(count, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    size = torch.rand(count, 2, generator=generator) * side / 2
    image = torch.randint(0, 2, (count, 1), generator=generator)
    return torch.cat([image, corner, corner + size], dim=1)


def test_whole_map_products_equal_the_crops():
    # The route of other devices, which a CPU can run as well.
    torch.manual_seed(0)
    rois = random_rois(40, 60)
    y, x = roi_axes(rois, (7, 5), (16, 18), 0.25, 0, True)
    features, rows = torch.randn(16, 18, 8), torch.arange(40)
    by_crop, by_map = torch.zeros(40, 8, 7, 5), torch.zeros(40, 8, 7, 5)
    ours._pool_crops(features, y, x, rows, by_crop)
    ours.pool_map(features, y, x, rows, by_map)
    torch.testing.assert_close(by_map, by_crop, atol=1e-5, rtol=1e-5)
    upstream = torch.randn_like(by_crop)
    grad_crop, grad_map = torch.zeros_like(features), torch.zeros_like(features)
    ours._spread_crops(upstream, y, x, rows, grad_crop)
    ours.spread_map(upstream, y, x, rows, grad_map)
    torch.testing.assert_close(grad_map, grad_crop, atol=1e-4, rtol=1e-5)


def test_more_rois_than_a_block_come_out_in_their_order():
    torch.manual_seed(0)
    rois = random_rois(ours.ROIS_AT_ONCE + 70, 60)
    input = torch.randn(2, 4, 16, 16)
    together = ops.roi_align(input, rois, (2, 2), 0.25, 0, "avg", True)
    for row in (0, 1, ours.ROIS_AT_ONCE - 1, ours.ROIS_AT_ONCE, ours.ROIS_AT_ONCE + 69):
        alone = ops.roi_align(input, rois[row : row + 1], (2, 2), 0.25, 0, "avg", True)
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("mode", MODES)
def test_no_rois_give_an_empty_output_and_no_gradient(mode):
    input = torch.randn(1, 2, 4, 4, requires_grad=True)
    output = ops.roi_align(input, torch.zeros(0, 5), (2, 2), 1.0, 0, mode, True)
    output.sum().backward()
    assert output.shape == (0, 2, 2, 2)
    assert not input.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_once_at_the_end(dtype):
    torch.manual_seed(0)
    rois = random_rois(20, 60).to(dtype)
    input = torch.randn(2, 8, 16, 16).to(dtype).requires_grad_()
    exact_input = input.detach().float().requires_grad_()
    output = ops.roi_align(input, rois, (3, 3), 0.25, 0, "avg", True)
    exact = ops.roi_align(exact_input, rois.float(), (3, 3), 0.25, 0, "avg", True)
    assert output.dtype == dtype
    assert torch.equal(output, exact.to(dtype))
    upstream = torch.randn_like(output)
    output.backward(upstream)
    exact.backward(upstream.float())
    assert torch.equal(input.grad, exact_input.grad.to(dtype))


@pytest.mark.parametrize("mode", MODES)
def test_autocast_does_not_lower_the_precision(mode):
    torch.manual_seed(0)
    input, rois = torch.randn(2, 32, 40, 40), random_rois(8, 150)
    plain = ops.roi_align(input, rois, (7, 7), 0.25, 0, mode, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ops.roi_align(input, rois, (7, 7), 0.25, 0, mode, True)
    assert torch.equal(plain, inside)


def set_by_torch(value):
    torch.set_float32_matmul_precision({"bf16": "medium", "ieee": "highest"}[value])


def set_by_backend(value):
    torch.backends.mkldnn.matmul.fp32_precision = value


SETTERS = [set_by_torch]
if hasattr(torch.backends.mkldnn, "matmul"):
    SETTERS.append(set_by_backend)


@pytest.mark.parametrize("set_precision", SETTERS)
def test_fast_products_elsewhere_do_not_lower_the_precision(set_precision):
    torch.manual_seed(0)
    input, rois = torch.randn(2, 64, 60, 60), random_rois(8, 200)
    plain = ops.roi_align(input, rois, (7, 7), 0.25, 0, "avg", True)
    product = torch.randn(128, 128)
    set_precision("bf16")
    try:
        lowered = product @ product
        fast = ops.roi_align(input, rois, (7, 7), 0.25, 0, "avg", True)
        lowered_after = product @ product
    finally:
        set_precision("ieee")
    assert torch.equal(plain, fast)
    assert torch.equal(lowered, lowered_after)


def test_thread_count_stays_and_changes_no_bit():
    torch.manual_seed(0)
    rois = random_rois(30, 60)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            input = torch.ones(2, 8, 16, 16).mul_(torch.arange(16)).requires_grad_()
            output = ops.roi_align(input, rois, (3, 3), 0.25, 0, "avg", True)
            output.square().sum().backward()
            assert torch.get_num_threads() == threads
            results.append((output.detach(), input.grad))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_channels_last_features_are_read_as_they_lie():
    torch.manual_seed(0)
    input, rois = torch.randn(2, 8, 16, 16), random_rois(9, 60)
    last = input.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        ops.roi_align(last, rois, (3, 3), 0.25, 0, "avg", True),
        ops.roi_align(input, rois, (3, 3), 0.25, 0, "avg", True),
    )


def test_a_roi_of_negative_size_is_refused_when_aligned():
    rois = torch.tensor([[0, 5.0, 5.0, 2.0, 9.0]])
    with pytest.raises(RuntimeError, match="negative size"):
        ops.roi_align(torch.ones(1, 1, 8, 8), rois, (2, 2), 1.0, 0, "avg", True)


@pytest.mark.parametrize("image", [-1, 2])
def test_a_roi_of_an_image_that_is_not_there_is_refused(image):
    rois = torch.tensor([[image, 1.0, 1.0, 2.0, 2.0]])
    with pytest.raises(IndexError, match="outside this batch of 2"):
        ops.roi_align(torch.ones(2, 1, 8, 8), rois, (2, 2), 1.0, 0, "avg", True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", MODES)
def test_cuda_agrees_with_the_cpu(mode):
    torch.manual_seed(0)
    results = []
    input, rois = torch.randn(2, 16, 40, 40), random_rois(60, 150)
    for device in ("cpu", "cuda"):
        leaf = input.detach().to(device).requires_grad_()
        output = ops.roi_align(leaf, rois.to(device), (7, 7), 0.25, 0, mode, True)
        output.square().sum().backward()
        results.append((output.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-3, rtol=1e-4)
