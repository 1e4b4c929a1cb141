"""A user's own data is recognised by what it is, whatever its files are called."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

from sparsevit.data.make import make_dataset
from sparsevit.data.own import recognise
from sparsevit.data.spec import DatasetSpec
from sparsevit.errors import UserError

CLASSES = ("circle", "triangle", "square")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Boxes, masks and label maps: 8 images to train on, 4 to validate on."""
    root = tmp_path_factory.mktemp("made")
    size = {"width": 64, "height": 48, "object_size": (12, 24), "objects": (2, 4)}
    make_dataset(root, DatasetSpec(train=8, val=4, classes=CLASSES, labels=True, **size))
    return root


@pytest.fixture
def boxes(made, tmp_path):
    """The same as a user may have it: other names, all images in one folder."""
    root = tmp_path / "boxes"
    (root / "photographs").mkdir(parents=True)
    for split, name in (("train", "my_training_set"), ("val", "my_valid_set")):
        content = json.loads((made / f"annotations/instances_{split}.json").read_text())
        for image in content["images"]:
            old, image["file_name"] = image["file_name"], f"{split}_{image['file_name']}"
            shutil.copy(made / split / old, root / "photographs" / image["file_name"])
        write(root / f"{name}.json", content)
    return root


@pytest.fixture
def labels(made, tmp_path):
    """Images and label maps in folders of other names."""
    root = tmp_path / "labels"
    for split in ("train", "val"):
        shutil.copytree(made / split, root / split)
        shutil.copytree(made / "labels" / split, root / f"{split}annot")
    return root


def read(path):
    return json.loads(path.read_text())


def write(path, content):
    path.write_text(json.dumps(content))


def save(path, values, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8), **how).save(path)


def sizes_of(data):
    return {name: len(split.names) for name, split in data.splits.items()}


def refused(source, problem, remedy=""):
    with pytest.raises(UserError, match=problem) as caught:
        recognise(source)
    assert remedy in caught.value.remedy


# --- boxes ---------------------------------------------------------------------------------------


def test_coco_files_by_any_name_are_found_with_their_images(boxes):
    data = recognise(boxes)
    assert (data.task, data.classes, data.masks) == ("detection", CLASSES, True)
    assert sizes_of(data) == {"train": 8, "val": 4}
    assert {split.images for split in data.splits.values()} == {boxes / "photographs"}
    assert data.splits["train"].rewritten is None
    assert dict(data.sizes) == {(64, 48): 12}


@pytest.mark.parametrize(
    "place", ["train/_annotations.coco.json", "annotations/train2017.json", "coco-train.json"]
)
def test_a_split_is_told_from_the_name_of_a_file_or_its_folder(boxes, place):
    (boxes / place).parent.mkdir(exist_ok=True)
    (boxes / "my_training_set.json").rename(boxes / place)
    assert recognise(boxes).splits["train"].annotations == boxes / place


def test_images_are_found_wherever_the_names_lead(boxes):
    content = read(boxes / "my_training_set.json")
    for image in content["images"]:
        image["file_name"] = f"photographs/{image['file_name']}"
    (boxes / "annotations").mkdir()
    write(boxes / "annotations/train.json", content)
    (boxes / "my_training_set.json").unlink()
    assert recognise(boxes).splits["train"].images == boxes
    for image in content["images"]:
        image["file_name"] = str(boxes / image["file_name"])
    write(boxes / "annotations/train.json", content)
    assert recognise(boxes).splits["train"].images.is_relative_to(boxes)


def test_one_file_is_split_by_seed_always_alike(boxes, tmp_path):
    (boxes / "my_valid_set.json").unlink()
    first, second = recognise(boxes), recognise(boxes)
    assert sizes_of(first) == {"train": 6, "val": 2}
    assert not set(first.splits["train"].names) & set(first.splits["val"].names)
    assert first.splits["val"].names == second.splits["val"].names
    seeds = set()
    for seed in range(8):
        said = tmp_path / f"{seed}.yaml"
        said.write_text(f"annotations: {boxes}/my_training_set.json\nimages: {boxes}\nseed: {seed}")
        seeds.add(recognise(said).splits["val"].names)
    assert len(seeds) > 1


def test_what_training_needs_and_a_file_lacks_is_added_in_a_copy(boxes):
    path = boxes / "my_training_set.json"
    content = read(path)
    for note in content["annotations"]:
        del note["area"], note["iscrowd"]
    write(path, content)
    note = recognise(boxes).splits["train"].rewritten["annotations"][0]
    assert (note["area"], note["iscrowd"]) == (note["bbox"][2] * note["bbox"][3], 0)


def test_a_category_without_objects_is_no_class(boxes):
    for path in boxes.glob("*.json"):
        content = read(path)
        content["categories"].insert(0, {"id": 99, "name": "shapes"})
        write(path, content)
    data = recognise(boxes)
    assert data.classes == CLASSES
    assert ("left out", "shapes") in {(one.what, one.chosen) for one in data.said}


def test_masks_that_are_boxes_are_not_learned(boxes):
    for path in boxes.glob("*.json"):
        content = read(path)
        for note in content["annotations"]:
            x, y, w, h = note["bbox"]
            note["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        write(path, content)
    assert not recognise(boxes).masks


def test_images_to_test_elsewhere_are_left_alone(boxes):
    content = read(boxes / "my_valid_set.json")
    write(boxes / "test.json", {**content, "annotations": []})
    assert set(recognise(boxes).splits) == {"train", "val"}


def test_files_that_disagree_on_classes_are_refused(boxes):
    content = read(boxes / "my_valid_set.json")
    content["categories"][0]["name"] = "disc"
    write(boxes / "my_valid_set.json", content)
    refused(boxes, "disagree on classes: circle, disc", "the same categories")
    content["categories"][0]["name"] = "circle"
    content["categories"].reverse()
    write(boxes / "my_valid_set.json", content)
    refused(boxes, "the same in another order", "classes: ")


def test_two_files_of_one_split_are_refused(boxes):
    shutil.copy(boxes / "my_training_set.json", boxes / "train.json")
    refused(boxes, "2 annotation files for train", "YAML")


def test_a_file_that_is_broken_is_not_passed_over(boxes):
    (boxes / "my_valid_set.json").write_text("{")
    refused(boxes, "not valid JSON")


def test_images_that_are_missing_are_counted(boxes):
    (boxes / "photographs/train_000002.png").unlink()
    refused(boxes, "1 of 8 images looked up")


# --- label maps ----------------------------------------------------------------------------------


def test_images_and_label_maps_are_paired_by_name(labels):
    data = recognise(labels)
    assert data.task == "segmentation"
    assert data.classes == tuple(f"class_{n}" for n in range(4))
    assert sizes_of(data) == {"train": 8, "val": 4}
    one = data.splits["val"]
    assert (one.images, one.annotations) == (labels / "val", labels / "valannot")
    assert sum(one.amounts.values()) == 4 * 64 * 48


def test_label_maps_may_have_an_end_of_their_own_and_lie_beside_their_images(labels, tmp_path):
    root = tmp_path / "beside"
    shutil.copytree(labels / "train", root)
    for path in (labels / "trainannot").iterdir():
        shutil.copy(path, root / f"{path.stem}_mask.png")
    data = recognise(root)
    assert data.suffixes == (".png", "_mask.png")
    assert sizes_of(data) == {"train": 6, "val": 2}


def test_folders_below_may_be_nested_alike(labels, tmp_path):
    root = tmp_path / "nested"
    for split in ("train", "val"):
        for path in (labels / split).iterdir():
            town = root / "images" / split / ("a" if int(path.stem) % 2 else "b")
            town.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, town)
            town = root / "gt" / split / town.name
            town.mkdir(parents=True, exist_ok=True)
            shutil.copy(labels / f"{split}annot" / path.name, town)
    data = recognise(root)
    assert sizes_of(data) == {"train": 8, "val": 4}
    assert {name.split("/")[0] for name in data.splits["train"].names} == {"a", "b"}


def test_what_has_no_partner_is_left_out_and_counted(labels):
    (labels / "trainannot/000000.png").unlink()
    (labels / "val/000001.png").rename(labels / "val/000001.bmp")
    data = recognise(labels)
    assert sizes_of(data) == {"train": 7, "val": 3}
    assert [one.chosen for one in data.said[:2]] == ["1 images", "1 label maps"]


def test_a_palette_holds_numbers_of_classes(labels):
    for path in labels.glob("*annot/*"):
        picture = Image.open(path).convert("P")
        picture.putpalette([(7 * n) % 256 for n in range(768)])
        picture.save(path)
    assert len(recognise(labels).classes) == 4


@pytest.mark.parametrize(
    ("names", "classes", "void"),
    [
        ("a\nb\nc\nd\n", ("a", "b", "c", "d"), 255),
        ("a\nb\nc\nvoid\n", ("a", "b", "c"), 3),
        ("void\nb\nc\nd", ("b", "c", "d"), 0),
    ],
)
def test_a_list_of_classes_names_them_and_what_is_void(labels, names, classes, void):
    (labels / "classes.txt").write_text(names)
    data = recognise(labels)
    assert (data.classes, data.void, data.faults) == (classes, void, ())
    assert set(data.splits["train"].amounts) == set(classes)


def test_a_label_beyond_the_classes_is_a_fault(labels):
    (labels / "classes.txt").write_text("a\nb\nc\n")
    data = recognise(labels)
    assert "has the label 3, beyond the 3 classes" in data.faults[0]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "is cut short"),
        (lambda path: save(path, np.zeros((8, 8))), "is 8x8 and its image 64x48"),
        (lambda path: save(path, np.zeros((48, 64, 3))), "is a colour picture"),
    ],
    ids=["cut", "size", "colours"],
)
def test_a_label_map_that_cannot_be_used_is_a_fault(labels, damage, says):
    damage(sorted((labels / "trainannot").iterdir())[3])
    (fault,) = recognise(labels).faults
    assert says in fault


def test_labels_that_number_no_classes_are_refused(labels):
    for value in (255, 128):
        for path in labels.glob("*annot/*"):
            save(path, value * (np.asarray(Image.open(path)) > 0))
        refused(labels, f"no numbers of classes counted from 0: 0, {value}", "0, 1, 2")


def test_label_maps_in_colour_are_refused(labels):
    for path in labels.glob("*annot/*"):
        save(path, np.zeros((48, 64, 3)))
    refused(labels, "are colour pictures", "one channel")


# --- what is said of data, and what is none ------------------------------------------------------


def test_label_maps_and_what_a_yaml_file_names_are_drawn(labels, tmp_path):
    said = tmp_path / "data.yaml"
    said.write_text(
        "task: segmentation\nimages: {train: labels/train, val: labels/val}\n"
        "annotations: {train: labels/trainannot, val: labels/valannot}\n"
    )
    for place in (labels, said):
        out = tmp_path / f"{place.name}.png"
        done = tiny.run("data", "show", place, "--out", out, "--images", 2, "--json")
        assert done.code == 0, done.err
        assert done.document["images"] == 2
        assert out.stat().st_size > 1000


def test_a_yaml_file_says_what_a_folder_does_not(labels, tmp_path):
    said = tmp_path / "data.yaml"
    said.write_text(
        "task: segmentation\nimages: {train: labels/val, val: labels/train}\n"
        "annotations: {train: labels/valannot, val: labels/trainannot}\n"
        "classes: [a, b, c]\nvoid: 3\nimage_size: 96x64\niterations: 90\n"
    )
    data = recognise(said)
    assert sizes_of(data) == {"train": 4, "val": 8}
    assert (data.classes, data.void, data.image_size) == (("a", "b", "c"), 3, (96, 64))
    assert data.iterations == 90


def test_boxes_and_images_may_lie_anywhere_that_a_yaml_file_says(made, tmp_path):
    said = tmp_path / "data.yaml"
    said.write_text(f"images: {made}\nannotations: {made}/annotations\nclasses: [square, circle]\n")
    data = recognise(said)
    assert data.classes == ("circle", "square")
    assert [split.images for split in data.splits.values()] == [made / "train", made / "val"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("taks: detection", "the key taks"),
        ("task: captions", "task is captions"),
        ("task: classification", "no data for classification"),
        ("images: nowhere", "which is not there"),
        ("images: [a]", "images is"),
        ("annotations: {dev: .}", "annotations is"),
        ("classes: [1, 2]", "classes is"),
        ("classes: [a, a]", "names the class a twice"),
        ("classes: []", "classes is"),
        ("image_size: large", "image_size is large"),
        ("image_size: 1000000", "image_size is"),
        ("iterations: 0", "iterations is 0"),
        ("void: -1", "void is"),
        ("seed: yes", "seed is"),
        ("- 1", "it is no mapping"),
        ("a: [", "not valid YAML"),
        ("task: detection", "no data for detection"),
    ],
)
def test_a_yaml_file_with_a_mistake_is_refused(tmp_path, text, says):
    said = tmp_path / "data.yaml"
    said.write_text(text)
    refused(said, says)


def test_a_folder_that_has_no_data_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "is not there", "folder of your data")
    refused(tmp_path, "has no image", "COCO")
    save(tmp_path / "a.png", np.zeros((8, 8, 3)))
    refused(tmp_path, "1 images and no annotations", "YAML")
    refused(tmp_path / "a.png", "a file, not a folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_never_waited_for(labels, tmp_path):
    for name in ("train.json", "classes.jpg", "mask.png", "a/pipe.png"):
        path = labels / name
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path)
    assert sizes_of(recognise(labels)) == {"train": 8, "val": 4}


def test_a_workspace_in_the_folder_is_not_data(boxes):
    inner = boxes / "work_dirs"
    inner.mkdir()
    (inner / "workspace.json").write_text("{}")
    shutil.copy(boxes / "my_training_set.json", inner / "train.json")
    assert sizes_of(recognise(boxes)) == {"train": 8, "val": 4}
