"""What is written as a mask decodes to the same pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_api

from sparsevit.data import masks

bitmaps = hnp.arrays(
    bool, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans()
).filter(np.any)


def decode(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    rle = mask_api.frPyObjects(segmentation, height, width)
    if isinstance(segmentation, list):
        rle = mask_api.merge(rle)
    return mask_api.decode(rle).astype(bool)


@given(
    bitmap=bitmaps,
    margins=st.tuples(*[st.integers(0, 4)] * 4),
    form=st.sampled_from(["polygon", "rle", "mixed"]),
)
@settings(deadline=None, max_examples=200)
def test_any_mask_decodes_to_the_same_pixels(bitmap: np.ndarray, margins: tuple, form: str) -> None:
    top, bottom, left, right = margins
    whole = np.pad(bitmap, ((top, bottom), (left, right)))
    entry = masks.encode(bitmap, left, top, whole.shape, form)
    np.testing.assert_array_equal(decode(entry["segmentation"], *whole.shape), whole)
    rle = mask_api.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert entry["area"] == mask_api.area(rle)
    assert entry["bbox"] == mask_api.toBbox(rle).tolist()


@given(bitmap=bitmaps)
@settings(deadline=None, max_examples=100)
def test_polygons_are_disjoint_and_of_whole_corners(bitmap: np.ndarray) -> None:
    loops = masks.polygons(bitmap)
    parts = [decode([[n for corner in loop for n in corner]], *bitmap.shape) for loop in loops]
    assert np.sum(parts, axis=0).max() == 1
    for loop in loops:
        assert len(loop) >= 4
        for (x, y), (u, v) in pairwise([*loop, loop[0]]):
            assert (x == u) != (y == v)


def test_mixed_form_uses_rle_only_where_one_polygon_is_not_enough() -> None:
    block = np.ones((5, 5), bool)
    ring = block.copy()
    ring[2, 2] = False
    halves = block.copy()
    halves[:, 2] = False
    forms = [
        type(masks.encode(m, 0, 0, (5, 5), "mixed")["segmentation"]) for m in (block, ring, halves)
    ]
    assert forms == [list, dict, dict]
    assert len(masks.encode(halves, 0, 0, (5, 5), "polygon")["segmentation"]) == 2


@pytest.mark.parametrize("fill", [True, False])
def test_run_lengths_begin_with_background_and_cover_the_image(fill: bool) -> None:
    mask = np.zeros((4, 6), bool)
    mask[0, 0] = fill
    counts = masks.run_lengths(mask)
    assert counts == ([0, 1, 23] if fill else [24])
