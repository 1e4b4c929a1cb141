"""Made images in folders of classes, and a user's own."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import tiny

from sparsevit.data.make import make_dataset, read_record
from sparsevit.data.own import recognise
from sparsevit.data.picture import draw_own
from sparsevit.data.spec import DatasetSpec
from sparsevit.errors import UserError
from sparsevit.phases.data import make_data, own_data, show_own, spec_of

NAMES = ("square", "circle", "star")
SPEC = DatasetSpec(
    train=6, val=3, width=48, height=40, objects=(1, 1), classes=NAMES, folders=True, seed=3
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "data"
    return make_dataset(root, SPEC)


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


# --- made -----------------------------------------------------------------------------------------


def test_each_class_has_as_many_images_in_a_folder_of_its_name(made):
    for split, count in (("train", 2), ("val", 1)):
        found = {one.name: len(list(one.iterdir())) for one in (made.root / split).iterdir()}
        assert found == dict.fromkeys(NAMES, count)


def test_the_list_counts_classes_by_name_as_folders_are_counted(made):
    lines = (made.root / "meta/train.txt").read_text().splitlines()
    assert lines[:3] == ["square/000000.png 1", "circle/000001.png 0", "star/000002.png 2"]


def test_every_image_has_its_one_shape(made):
    from sparsevit.data.scene import layout

    for index in range(SPEC.train):
        (item,) = layout(SPEC, "train", index)
        assert item.label == index % len(NAMES)
        assert item.visible.sum() > 40


def test_equal_specs_give_equal_files_and_an_interrupted_one_is_completed(made, tmp_path):
    before = contents(made.root)
    again = make_dataset(tmp_path / "again", SPEC)
    assert contents(again.root) == before
    shutil.rmtree(again.root / "val/star")
    record = json.loads((again.root / "dataset.json").read_text())
    (again.root / "dataset.json").write_text(json.dumps({**record, "complete": False}))
    (again.root / "train/star/.000002.png.12.tmp").write_bytes(b"half")
    done = make_dataset(again.root, SPEC)
    assert (done.state, done.painted) == ("completed", 1)
    assert contents(again.root) == before
    assert make_dataset(again.root, SPEC).state == "reused"
    assert done.digest == made.digest


def test_another_kind_is_not_replaced_and_other_classes_leave_no_empty_folder(tmp_path):
    make_dataset(tmp_path, SPEC)
    with pytest.raises(UserError, match="for classification, not for detection"):
        make_dataset(tmp_path, DatasetSpec(train=1, val=1), force=True)
    fewer = DatasetSpec(**{**vars(SPEC), "classes": NAMES[:2]})
    with pytest.raises(UserError, match="different options"):
        make_dataset(tmp_path, fewer)
    make_dataset(tmp_path, fewer, force=True)
    assert {one.name for one in (tmp_path / "val").iterdir()} == set(NAMES[:2])


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"objects": (2, 3)}, "--objects means nothing"),
        ({"masks": "rle"}, "--masks means nothing"),
        ({"classes": ("star",)}, "There is one class"),
        ({"object_size": (8.0, 20.0)}, "too small to be all"),
    ],
)
def test_what_means_nothing_for_classes_is_refused(chosen, says):
    with pytest.raises(UserError, match=says):
        spec_of("classification", chosen)


def test_the_command_counts_and_draws(tmp_path):
    words = ("--train", 4, "--val", 2, "--img-size", 32, "--classes", "ring,star")
    ran = tiny.run("data", "make", tmp_path / "d", "--task", "classification", *words, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["splits"]["train"] == {"images": 4, "classes": {"ring": 2, "star": 2}}
    assert read_record(tmp_path / "d")["spec"]["task"] == "classification"
    again = tiny.run("data", "make", tmp_path / "d", "--task", "classification", *words)
    assert "Already there" in again.out
    assert show_own(own_data(tmp_path / "d"), tmp_path / "shown.png", "train", 3).images == 3
    shown = tiny.run("data", "show", tmp_path / "d", "--out", tmp_path / "shown.png")
    assert shown.code == 0, shown.err
    assert make_data(tmp_path / "e", SPEC).splits["val"].images == 3


# --- own ------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """12 images of cats, dogs and elks, in no splits."""
    rng = np.random.default_rng(0)
    for name in ("elk", "cat", "dog"):
        for index in range(4):
            pixels = rng.integers(0, 255, (30, 40, 3), np.uint8)
            save(tmp_path / "own" / name / f"{name}_{index}.jpg", pixels)
    return tmp_path / "own"


def test_a_folder_for_each_class_is_split_by_seed(own):
    data = recognise(own)
    assert (data.task, data.classes) == ("classification", ("cat", "dog", "elk"))
    train, val = data.splits["train"], data.splits["val"]
    assert not set(train.names) & set(val.names)
    assert len(train.names) + len(val.names) == 12
    assert all(data.classes[i] in n for n, i in zip(train.names, train.labels, strict=True))
    assert recognise(own).splits == data.splits
    assert data.sizes == {(40, 30): 12}


def test_splits_are_folders_around_those_of_classes(own):
    for name in ("cat", "dog", "elk"):
        for split in ("training", "validation"):
            (own / split / name).mkdir(parents=True)
            for image in sorted((own / name).iterdir())[:2]:
                image.rename(own / split / name / image.name)
        shutil.rmtree(own / name)
    # an archive has one folder around all
    for root in (own, own.parent):
        data = recognise(root)
        assert {name: len(one.names) for name, one in data.splits.items()} == {
            "train": 6,
            "val": 6,
        }
        assert data.splits["val"].images == own / "validation"
    said = own.parent / "own.yaml"
    said.write_text("task: classification\nimages: own\n")
    assert recognise(said).splits == data.splits
    shutil.rmtree(own / "training/elk")
    with pytest.raises(UserError, match="no folder with images of elk; others have"):
        recognise(own)


def test_a_class_may_be_called_as_a_split(own):
    (own / "cat").rename(own / "train")
    assert recognise(own).classes == ("dog", "elk", "train")


def test_folders_that_are_named_for_other_things_are_no_classes(own):
    (own / "cat").rename(own / "images")
    with pytest.raises(UserError, match="no annotations that are known") as caught:
        recognise(own)
    assert "a folder of images for each class" in caught.value.remedy
    said = own.parent / "own.yaml"
    said.write_text("task: classification\nimages: own\nclasses: [images, elk]\n")
    data = recognise(said)
    assert data.classes == ("images", "elk")
    assert "dog" in next(one.chosen for one in data.said if one.what == "left out")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("classes: [cat, cow]", "no folder with images of cow"),
        ("classes: [cat]", "There is 1 class"),
        ("images: own/cat", "no data for classification"),
    ],
)
def test_a_yaml_file_that_does_not_fit_the_folders_is_refused(own, text, says):
    said = own.parent / "own.yaml"
    said.write_text(f"task: classification\n{text}\n" + ("" if "images" in text else "images: own"))
    with pytest.raises(UserError, match=says):
        recognise(said)


def test_one_folder_of_images_is_no_class(own):
    with pytest.raises(UserError, match="no annotations that are known"):
        recognise(own / "cat")


def test_a_broken_image_is_told_when_all_are_looked_at(own, tmp_path):
    (own / "cat/cat_0.jpg").write_bytes(b"no image")
    (fault,) = recognise(own, look=True).faults
    assert "cat_0.jpg" in fault
    shown = draw_own(recognise(own), [(255, 0, 0)] * 3, tmp_path / "sheet.png", 4)
    assert shown == 4
