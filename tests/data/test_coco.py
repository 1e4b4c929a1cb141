"""A COCO file is summed up, or refused with what is wrong in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsevit.data.coco import check_annotations
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
