"""The picture of kept windows."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sparsevit.methods.windows.picture import (
    dim_skipped,
    draw_kept_windows,
    kept_windows_figure,
    outlines,
    with_padding,
)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(60, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture
def kept():
    rng = np.random.default_rng(1)
    return {
        "backbone.stages.0": rng.random((8, 12)) > 0.6,
        "backbone.stages.1": np.ones((4, 6), bool),
        "backbone.stages.2_2": np.zeros((2, 3), bool),
    }


PIXELS = {"backbone.stages.0": 8, "backbone.stages.1": 16, "backbone.stages.2_2": 32}


def test_it_writes_a_png_and_makes_the_folder(image, kept, tmp_path):
    out = draw_kept_windows(image, kept, PIXELS, tmp_path / "new" / "kept.png")
    assert out == tmp_path / "new" / "kept.png"
    assert out.read_bytes().startswith(b"\x89PNG\r\n")
    height, width = matplotlib.image.imread(out).shape[:2]
    assert width > 3 * height / 2


def test_each_stage_has_its_picture_grid_outline_and_titles(image, kept):
    figure = kept_windows_figure(image, kept, PIXELS)
    assert len(figure.axes) == 3
    assert [ax.get_title() for ax in figure.axes] == [
        f"Stage 1: {1 - kept['backbone.stages.0'].mean():.0%} skipped",
        "Stage 2: 0% skipped",
        "Stage 3, pair 2: 100% skipped",
    ]
    for ax, (name, keep) in zip(figure.axes, kept.items(), strict=True):
        assert ax.texts[0].get_text() == f"{name}, {keep.sum()} of {keep.size} windows kept"
        np.testing.assert_array_equal(
            ax.images[0].get_array(), dim_skipped(image, keep, PIXELS[name])
        )
        grid, edge = (collection.get_segments() for collection in ax.collections)
        assert len(grid) == keep.sum()
        assert len(edge) == len(outlines(keep, PIXELS[name]))
        for segment in [*grid, *edge]:
            assert (segment >= 0).all()
            assert (segment <= (90, 60)).all()


def test_windows_with_padding_are_dotted_and_counted():
    keep = np.array([[True, False, True], [True, True, False]])
    np.testing.assert_array_equal(
        with_padding((2, 3), (64, 80), 32), [[False, False, True], [False, False, True]]
    )
    image = np.full((64, 80, 3), 200, np.uint8)
    (panel,) = kept_windows_figure(image, {"a": keep}, {"a": 32}).axes
    boxes = [patch.get_bbox().bounds for patch in panel.patches]
    assert boxes == [(64, 0, 16, 32), (64, 32, 16, 32)]
    assert panel.texts[1].get_text() == "dotted: windows with padding, 1 of 2 kept"


def test_where_nothing_is_padded_nothing_is_dotted():
    image = np.full((64, 96, 3), 200, np.uint8)
    (panel,) = kept_windows_figure(image, {"a": np.ones((2, 3), bool)}, {"a": 32}).axes
    assert not panel.patches
    assert len(panel.texts) == 1


def test_nothing_of_it_is_cut_off(image, kept):
    figure = kept_windows_figure(image, kept, PIXELS)
    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        for text in (ax.title, *ax.texts):
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize(("panels", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (6, 2, 3)])
def test_panels_fill_rows_evenly(image, panels, rows, columns):
    kept = {f"stages.{i}": np.ones((2, 3), bool) for i in range(panels)}
    figure = kept_windows_figure(image, kept, dict.fromkeys(kept, 32))
    corners = np.round([ax.get_position().min for ax in figure.axes], 6)
    assert len(np.unique(corners[:, 0])) == columns
    assert len(np.unique(corners[:, 1])) == rows


def test_kept_pixels_stay_and_skipped_ones_are_darker(image):
    keep = np.array([[True, False], [False, True]])
    drawn = dim_skipped(image, keep, 45)
    np.testing.assert_array_equal(drawn[:45, :45], image[:45, :45])
    np.testing.assert_array_equal(drawn[45:, 45:], image[45:, 45:])
    assert drawn[:45, 45:].mean() < 0.5 * image[:45, 45:].mean()
    assert drawn.shape == image.shape


def test_two_neighbours_share_one_outline():
    assert len(outlines(np.array([[True, True]]), 7)) == 6
    assert outlines(np.array([[True]]), 7).max() == 7


@given(arrays.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_outlines_are_the_edges_where_kept_meets_not_kept(keep):
    expected = set()
    for (y, x), is_kept in np.ndenumerate(np.pad(keep, 1)):
        for dy, dx in ((1, 0), (0, 1)):
            other = np.pad(keep, 2)[y + 1 + dy, x + 1 + dx]
            if is_kept == other:
                continue
            start = (x - 1 + dx, y - 1 + dy)
            expected.add((start, (start[0] + dy, start[1] + dx)))
    drawn = {tuple(map(tuple, segment)) for segment in outlines(keep, 1).tolist()}
    assert drawn == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((6, 9), np.uint8)}, "not uint8"),
        ({"image": np.zeros((6, 9, 3))}, "not uint8"),
        ({"kept": {}}, "no stage"),
        ({"kept": {"a": np.ones((2, 2))}}, "not bool"),
        ({"kept": {"b": np.ones((2, 2), bool)}}, "window_px has no 'b'"),
        ({"kept": {"a": np.ones((1, 1), bool)}}, "less than the image"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path):
    arguments = {"image": np.zeros((6, 9, 3), np.uint8), "kept": {"a": np.ones((2, 2), bool)}}
    with pytest.raises(ValueError, match=message):
        draw_kept_windows(**{**arguments, **change}, window_px={"a": 5}, out=tmp_path / "kept.png")
    assert not (tmp_path / "kept.png").exists()
