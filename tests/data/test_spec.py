"""A spec takes what can be drawn and names what cannot."""

from __future__ import annotations

import pytest

from sparsevit.data.spec import (
    CLASSES,
    DatasetSpec,
    differences,
    parse_classes,
    parse_objects,
    parse_range,
    parse_size,
)
from sparsevit.errors import UserError


def test_there_are_at_least_six_classes() -> None:
    assert len(set(CLASSES)) == len(CLASSES) >= 6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train": 0}, "train images"),
        ({"val": -3}, "val images"),
        ({"train": 2.5}, "train images"),
        ({"train": True}, "train images"),
        ({"width": 31}, "width"),
        ({"height": 100_000}, "height"),
        ({"seed": -1}, "seed"),
        ({"objects": (3, 2)}, "smallest number of objects"),
        ({"objects": (0, 0)}, "largest number of objects"),
        ({"object_size": (2.0, 10.0)}, "2 to 10 px"),
        ({"object_size": "x"}, "'x', which is no range"),
        ({"object_size": (2.0,)}, "which is no range"),
        ({"object_size": (2.0, "x")}, "which is no range"),
        ({"object_size": (20.0, 300.0)}, "20 to 300 px"),
        ({"object_size": (float("nan"), 20.0)}, "nan to 20 px"),
        ({"classes": ()}, "No class"),
        ({"classes": ("circle", "ringg")}, "Did you mean ring?"),
        ({"classes": ("ring", "ring")}, "twice"),
        ({"masks": "bitmap"}, "masks 'bitmap'"),
        ({"image_format": "tiff"}, "image format 'tiff'"),
    ],
)
def test_a_value_out_of_range_is_named(change: dict, named: str) -> None:
    with pytest.raises(UserError, match=r".") as caught:
        DatasetSpec(**change)
    assert named in str(caught.value)
    assert caught.value.remedy


def test_default_object_sizes_grow_with_the_image() -> None:
    assert DatasetSpec().size_range() == (12, 48)
    assert DatasetSpec(width=448, height=600).size_range() == (24, 96)
    low, high = DatasetSpec(width=32, height=32).size_range()
    assert 6 <= low <= high <= 32


def test_differences_name_the_changed_entries_only() -> None:
    old, new = DatasetSpec().to_dict(), DatasetSpec(seed=3, masks="rle").to_dict()
    assert differences(old, new) == "seed 0 -> 3, masks mixed -> rle"
    assert differences(old, old) == ""


def test_option_texts_are_parsed() -> None:
    assert parse_size("224") == (224, 224)
    assert parse_size("320x200") == (320, 200)
    assert parse_objects("2:8") == (2, 8)
    assert parse_objects("5") == (5, 5)
    assert parse_range("7.5:12", "Object size") == (7.5, 12.0)
    assert parse_classes("ring, star") == ("ring", "star")


@pytest.mark.parametrize("text", ["", "a", "1x2x3", "22.5", "x", "--2"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "a:b", "1:2:3", "2.5:4", "nan", "inf"])
def test_a_text_that_is_no_count_range_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="Objects in an image"):
        parse_objects(text)
