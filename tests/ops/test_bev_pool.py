"""Pooling of weighted pixels into cells, against sums in loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsevit.ops.bev_pool import plan_pooling, pool, pool_by_index


def sums_in_loops(weight, x, cell, num_cells):
    """Float64, point by point."""
    sums = torch.zeros(num_cells, x.shape[1], dtype=torch.float64)
    for q, row in enumerate(cell.tolist()):
        for d, k in enumerate(row):
            if k < num_cells:
                sums[k] += weight[q, d].double() * x[q].double()
    return sums


def gradients_in_loops(weight, x, cell, grad):
    """Float64, of the sums' product with ``grad``."""
    of_weight, of_x = torch.zeros_like(weight).double(), torch.zeros_like(x).double()
    for q, row in enumerate(cell.tolist()):
        for d, k in enumerate(row):
            if k < len(grad):
                of_weight[q, d] = grad[k].double() @ x[q].double()
                of_x[q] += weight[q, d].double() * grad[k].double()
    return of_weight, of_x


def case(pixels, depths, channels, num_cells, outside, seed):
    """Random weights and features, and cells of which a share is none."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(pixels, depths, generator=generator)
    x = torch.randn(pixels, channels, generator=generator)
    cell = torch.randint(num_cells, (pixels, depths), generator=generator)
    none = torch.rand(pixels, depths, generator=generator) < outside
    return weight, x, cell.masked_fill(none, num_cells)


cases = st.builds(
    case,
    pixels=st.integers(1, 12),
    depths=st.integers(1, 7),
    channels=st.integers(1, 5),
    num_cells=st.integers(1, 30),
    outside=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 999),
)


@settings(max_examples=60)
@given(cases)
def test_each_cell_has_the_sum_of_its_points(drawn):
    weight, x, cell = drawn
    num_cells = max(int(cell.max()), 1)
    expected = sums_in_loops(weight, x, cell, num_cells)
    for got in (
        pool(weight, x, plan_pooling(cell, num_cells)),
        pool_by_index(weight, x, cell, num_cells),
    ):
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(cases)
def test_gradients_are_those_of_the_sums(drawn):
    weight, x, cell = drawn
    num_cells = max(int(cell.max()), 1)
    grad = torch.randn(num_cells, x.shape[1], generator=torch.Generator().manual_seed(1))
    expected = gradients_in_loops(weight, x, cell, grad)
    weight.requires_grad_()
    x.requires_grad_()
    for sums in (
        pool(weight, x, plan_pooling(cell, num_cells)),
        pool_by_index(weight, x, cell, num_cells),
    ):
        got = torch.autograd.grad(sums, (weight, x), grad)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", ["weights", "features"])
def test_only_one_of_the_two_needs_a_gradient(wanted):
    weight, x, cell = case(6, 4, 3, 9, 0.3, 0)
    leaf = weight if wanted == "weights" else x
    leaf.requires_grad_()
    pool(weight, x, plan_pooling(cell, 9)).square().sum().backward()
    assert leaf.grad.abs().sum() > 0


def test_weights_and_features_may_lie_in_any_order():
    weight, x, cell = case(6, 4, 3, 9, 0.3, 0)
    plan = plan_pooling(cell, 9)
    expected = pool(weight, x, plan)
    turned = weight.t().contiguous().t().requires_grad_(), x.t().contiguous().t().requires_grad_()
    got = pool(*turned, plan)
    assert torch.equal(got, expected)
    got.sum().backward()
    assert turned[0].grad.shape == weight.shape


def test_the_same_bits_come_out_with_any_number_of_threads():
    weight, x, cell = case(500, 20, 16, 50, 0.3, 0)
    plan = plan_pooling(cell, 50)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = weight.clone().requires_grad_(), x.clone().requires_grad_()
            sums = pool(*leaves, plan)
            sums.square().sum().backward()
            results.append((sums.detach(), leaves[0].grad, leaves[1].grad))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_plan_lists_the_points_of_a_cell_in_their_order():
    cell = torch.tensor([[2, 0], [3, 2], [0, 3]])
    plan = plan_pooling(cell, 3)
    assert plan.point_P.tolist() == [1, 4, 0, 3]
    assert plan.pixel_P.tolist() == [0, 2, 0, 1]
    assert plan.start_K.tolist() == [0, 2, 2]
