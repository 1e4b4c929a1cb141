"""Windows by index are the windows that rolling, padding and partitioning give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_forward import partition, shift_mask

from sparsevit.ops.windows import MASKED, region_masks, window_layout

CPU = torch.device("cpu")

sizes = st.integers(1, 40)
windows = st.integers(2, 8)


@settings(max_examples=150, deadline=None)
@given(height=sizes, width=sizes, window=windows, shifted=st.booleans())
def test_indices_are_where_roll_and_partition_bring_the_tokens(height, width, window, shifted):
    shift = window // 2 if shifted else 0
    layout = window_layout(height, width, (window, window), (shift, shift), CPU)
    places = torch.arange(height * width).view(1, height, width, 1)
    padded = F.pad(places, (0, 0, 0, -width % window, 0, -height % window), value=height * width)
    moved = partition(torch.roll(padded, (-shift, -shift), (1, 2)), window)[0, :, :, 0]
    assert torch.equal(layout.token_index_WN, moved)
    assert layout.num_windows == len(moved)
    assert layout.grid == (padded.shape[1] // window, padded.shape[2] // window)
    assert layout.padded == (padded.shape != places.shape)
    if layout.padded:
        assert torch.equal(layout.is_padding_WN, moved == height * width)


@given(height=sizes, width=sizes, window=windows, shifted=st.booleans())
def test_every_token_lies_in_exactly_one_window(height, width, window, shifted):
    shift = window // 2 if shifted else 0
    layout = window_layout(height, width, (window, window), (shift, shift), CPU)
    inside = layout.token_index_WN[layout.token_index_WN < height * width]
    assert torch.equal(inside.sort().values, torch.arange(height * width))


@settings(max_examples=150, deadline=None)
@given(rows=st.integers(1, 6), cols=st.integers(1, 6), window=windows, cut=st.integers(0, 5))
def test_four_masks_are_those_of_every_shifted_window(rows, cols, window, cut):
    # a map that is no multiple of the window is padded to one, and has its masks
    height, width = rows * window - min(cut, window - 1), cols * window
    shift = window // 2
    layout = window_layout(height, width, (window, window), (shift, shift), CPU)
    masks = layout.region_masks_KNN[layout.edge_kind_W]
    swins = shift_mask(rows * window, cols * window, window, shift)
    assert torch.equal(masks, torch.where(swins == -100, MASKED, 0.0))
    assert layout.num_edges == int(layout.edge_kind_W.gt(0).sum()) == rows + cols - 1


def test_a_plain_partition_has_no_masks():
    layout = window_layout(14, 14, (7, 7), (0, 0), CPU)
    assert layout.edge_kind_W is None
    assert layout.region_masks_KNN is None
    assert layout.num_edges == 0
    assert layout.is_padding_WN is None


def test_masks_are_zero_or_far_below_any_logit():
    masks = region_masks((7, 7), (3, 3), CPU)
    assert masks.shape == (4, 49, 49)
    assert set(masks.unique().tolist()) == {0.0, MASKED}
    # a weight of exactly 0, as denormal numbers are slow; Swin's own -100 leaves one
    assert torch.tensor([30.0, MASKED + 60]).softmax(0)[1] == 0
    assert torch.tensor(MASKED).half().isfinite()
    assert not masks[0].any()
    assert torch.equal(masks, masks.transpose(1, 2))


def test_a_layout_is_built_once_a_size():
    how = ((7, 7), (3, 3), CPU)
    assert window_layout(21, 35, *how) is window_layout(21, 35, *how)
    assert window_layout(21, 35, *how) is not window_layout(35, 21, *how)


@pytest.mark.parametrize("shift", [0, 3])
def test_a_layout_first_built_in_inference_mode_can_be_trained_with(shift):
    with torch.inference_mode():
        layout = window_layout(11, 13, (7, 7), (shift, shift), CPU)
    for name in ("token_index_WN", "is_padding_WN", "edge_kind_W", "region_masks_KNN"):
        tensor = getattr(layout, name)
        assert tensor is None or not tensor.is_inference(), name
