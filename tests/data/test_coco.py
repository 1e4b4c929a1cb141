"""A COCO file is summed up, or refused with what is wrong in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_api

from sparsevit.data.coco import _run_lengths, check_annotations, read_annotations
from sparsevit.data.make import make_dataset
from sparsevit.data.spec import DatasetSpec
from sparsevit.errors import UserError


def content(**changes: object) -> dict:
    good = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 64, "height": 48} for n in (1, 2)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            annotation(id=1, area=100, segmentation=[[1, 1, 11, 1, 11, 11, 1, 11]]),
            annotation(id=2, area=2000, segmentation={"counts": [3072], "size": [48, 64]}),
            annotation(id=3, area=9999, iscrowd=1, category_id=7),
        ],
    }
    return {**good, **changes}


def annotation(**changes: object) -> dict:
    return {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 10, 10], **changes}


def write(folder: Path, value: object) -> Path:
    path = folder / "instances.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_the_summary_counts_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    summary = check_annotations(path, classes=["cat"])
    assert (summary.images, summary.annotations, summary.empty_images) == (2, 3, 1)
    assert summary.categories == ("dog", "cat")
    assert summary.per_category == {"dog": 1, "cat": 2}
    assert (summary.small, summary.medium, summary.large) == (1, 1, 1)
    assert (summary.polygons, summary.rles, summary.crowds) == (1, 1, 1)


def test_a_made_dataset_passes_with_its_images(tmp_path: Path) -> None:
    spec = DatasetSpec(train=2, val=2, width=64, height=64)
    made = make_dataset(tmp_path, spec)
    summary = check_annotations(made.annotations["val"], tmp_path / "val", spec.classes)
    assert summary.images == 2
    assert summary.categories == spec.classes


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("{not json", "not valid JSON"),
        ("", "not valid JSON"),
        ("[]", "it is not an object"),
        ("{}", "no 'images' list"),
        (content(images=[]), "has no images"),
        (content(annotations=[]), "has no annotations"),
        (content(categories=[]), "has no categories"),
        (content(images=[{"id": 1}]), "file_name"),
        (content(images=[3]), "COCO's format"),
        (content(annotations=[{"id": 1}]), "category_id"),
        (content(annotations=[annotation(bbox=None)]), "COCO's format"),
        (content(annotations=[annotation(bbox=[1, 2])]), "COCO's format"),
        (content(annotations=[annotation(category_id=4)]), "category ids that are not"),
        (content(annotations=[annotation(image_id=9)]), "image ids that are not"),
        (content(categories=[{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]), "same category id"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, value: object, named: str) -> None:
    with pytest.raises(UserError) as caught:
        check_annotations(write(tmp_path, value))
    assert named in caught.value.problem
    assert caught.value.remedy


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid JSON"):
        check_annotations(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot read the annotation file"):
        check_annotations(tmp_path / "none.json")
    with pytest.raises(UserError, match="Cannot read"):
        check_annotations(tmp_path)


def test_classes_that_are_not_in_the_file_are_named_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 of 2 classes .*: dogs \(is it 'dog'\?\)"):
        check_annotations(write(tmp_path, content()), classes=["cat", "dogs"])


def test_missing_images_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    with pytest.raises(UserError, match="does not exist"):
        check_annotations(path, images=tmp_path / "nowhere")
    (tmp_path / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 2 images .* e\.g\. 2\.jpg"):
        check_annotations(path, images=tmp_path)
    assert check_annotations(path, images=tmp_path, sample=1).images == 2


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    assert check_annotations(path).categories == ("dog", "cat")
    write(tmp_path, content(categories=[{"id": 3, "name": "lynx"}, {"id": 7, "name": "wolf"}]))
    assert check_annotations(path).categories == ("lynx", "wolf")


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bbox": [NAN, 1, 2, 3]}, "four finite numbers"),
        ({"bbox": [0, 0, INF, 3]}, "four finite numbers"),
        ({"bbox": ["1", "2", "3", "4"]}, "four finite numbers"),
        ({"bbox": [10**400, 0, 1, 1]}, "four finite numbers"),
        ({"bbox": [5, 5, -3, 4]}, "negative width"),
        ({"area": NAN}, "no area"),
        ({"area": -1}, "no area"),
        ({"area": None}, "no area"),
        ({"iscrowd": 2}, "no iscrowd"),
        ({"iscrowd": "0"}, "no iscrowd"),
        ({"iscrowd": [1]}, "no iscrowd"),
        ({"segmentation": "abc"}, "neither a list of polygons nor RLE"),
        ({"segmentation": [[]]}, "three points"),
        ({"segmentation": [[1, 1]]}, "three points"),
        ({"segmentation": [[1, 1, 5, 5]]}, "three points"),
        ({"segmentation": [[1, 1, 5, 5, 9, 9, 3]]}, "three points"),
        ({"segmentation": [[NAN, 1, 5, 5, 9, 1]]}, "finite numbers"),
        ({"segmentation": [1, 1, 5, 5, 9, 1]}, "finite numbers"),
        ({"segmentation": [[9e6, 1, 5, 9e6, 9, 1]]}, "far out of the image"),
        ({"segmentation": {"size": [64, 48], "counts": [3072]}}, "of size"),
        ({"segmentation": {"size": [48, 64], "counts": [100, 2000000]}}, "add up to"),
        ({"segmentation": {"size": [48, 64], "counts": [5]}}, "add up to"),
        ({"segmentation": {"size": [48, 64], "counts": [-5, 3077]}}, "malformed"),
        ({"segmentation": {"size": [48, 64], "counts": [1.5, 3070.5]}}, "malformed"),
        ({"segmentation": {"size": [48, 64], "counts": "~~~~"}}, "malformed"),
        ({"segmentation": {"size": [48, 64], "counts": "ooo"}}, "malformed"),
        ({"segmentation": {"size": [48, 64], "counts": "P" * 12 + "1"}}, "malformed"),
        ({"segmentation": {"size": [48, 64]}}, "malformed"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(tmp_path: Path, changes: dict, says: str):
    path = write(tmp_path, content(annotations=[annotation(**changes), annotation(id=2)]))
    with pytest.raises(UserError, match=rf"1 of its 2 images .*1\.jpg: annotation 1 .*{says}"):
        check_annotations(path)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (content(annotations=[annotation(), annotation()]), "same annotation id"),
        (content(annotations=[annotation(id=None)]), "annotations.0. has None as id"),
        (content(annotations=[annotation(id=1.5)]), "has 1.5 as id"),
        (content(annotations=[annotation(), None]), "annotations.1. is not an object"),
        (content(images=[{"id": 1, "file_name": "a", "width": 0, "height": 5}]), "no width"),
        (content(images=[{"id": 1, "file_name": "a", "width": "5", "height": 5}]), "no width"),
        (content(images=[{"id": 1, "file_name": "a\0", "width": 5, "height": 5}]), "file_name"),
        (content(images=[{"id": 1, "file_name": "\ud800", "width": 5, "height": 5}]), "file_name"),
        (
            content(images=[{"id": 1, "file_name": "a", "width": 10**6, "height": 10**6}]),
            "more than",
        ),
        (
            content(
                images=[{"id": n, "file_name": "a", "width": 1, "height": 1} for n in (1, "b")]
            ),
            "some are strings",
        ),
        (content(categories=[{"id": n, "name": "cat"} for n in (3, 4)]), "several categories"),
        ('{"images": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        ('{"images": ' + "[" * 900 + "]" * 900 + "}", "nested too deeply"),
        ("9" * 5000, "not valid JSON"),
        ("\ufeff{}", "BOM"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_a_file_that_others_would_stumble_over_is_refused(tmp_path, value, says):
    with pytest.raises(UserError, match=says):
        check_annotations(write(tmp_path, value))


def test_a_named_pipe_and_a_device_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", "/dev/zero"):
        with pytest.raises(UserError, match="not a regular file"):
            check_annotations(path)


def test_compressed_run_lengths_are_read_as_pycocotools_writes_them() -> None:
    dice = np.random.default_rng(0)
    for shape in ((1, 1), (7, 5), (300, 200)):
        for share in (0.0, 0.01, 0.5, 1.0):
            drawn = np.asfortranarray((dice.random(shape) < share).astype(np.uint8))
            pixels = drawn.ravel(order="F")
            ends = np.flatnonzero(np.diff(pixels, prepend=0)).tolist()
            wanted = np.diff([0, *ends, pixels.size]).tolist()
            written = mask_api.encode(drawn)["counts"].decode()
            assert [n for n in _run_lengths(written) if n] == [n for n in wanted if n]


def test_what_an_annotation_needs_depends_on_its_use(tmp_path: Path) -> None:
    path = write(tmp_path, content(annotations=[annotation(segmentation=[])]))
    assert not read_annotations(path).faults
    for need in ("area", "iscrowd", "segmentation"):
        (fault,) = read_annotations(path, needs={need}).faults
        assert need in fault.what
        assert fault.category == 3
    path = write(tmp_path, content(annotations=[annotation(segmentation=[[1, 1]])]))
    assert not read_annotations(path, masks=False).faults
