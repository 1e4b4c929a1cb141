"""A dataset on disk: valid COCO, equal by seed, reused, completed, never made over other files."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import filelock
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from sparsevit.data.make import Dataset, annotation_file, make_dataset, read_record
from sparsevit.data.spec import DatasetSpec
from sparsevit.errors import UserError

SMALL = DatasetSpec(train=6, val=3, width=96, height=80, seed=2, objects=(2, 6))


def files_of(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".dataset.lock"
    }


def check_coco(dataset: Dataset) -> None:
    """Everything that a reader of COCO files relies on."""
    spec = dataset.spec
    for split, path in dataset.annotations.items():
        coco = COCO(str(path))
        assert len(coco.imgs) == spec.count(split)
        assert len(coco.anns) == len(coco.dataset["annotations"]) > 0
        assert [c["name"] for c in coco.cats.values()] == list(spec.classes)
        for image in coco.imgs.values():
            pixels = cv2.imread(str(dataset.root / split / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3)
            seen = np.zeros(pixels.shape[:2], int)
            for annotation in coco.imgToAnns[image["id"]]:
                assert annotation["category_id"] in coco.cats
                assert annotation["iscrowd"] == 0
                rle = coco.annToRLE(annotation)
                assert annotation["area"] == mask_api.area(rle) > 0
                assert annotation["bbox"] == mask_api.toBbox(rle).tolist()
                seen += mask_api.decode(rle)
            assert seen.max(initial=0) <= 1


@given(
    train=st.integers(1, 3),
    val=st.integers(1, 2),
    width=st.integers(32, 130),
    height=st.integers(32, 130),
    objects=st.tuples(st.integers(1, 3), st.integers(3, 9)),
    masks=st.sampled_from(["mixed", "polygon", "rle"]),
    image_format=st.sampled_from(["png", "jpg"]),
    classes=st.sampled_from([("ring",), ("star", "ring", "cross"), DatasetSpec().classes]),
)
@settings(deadline=None, max_examples=15)
def test_any_spec_gives_valid_coco(
    tmp_path_factory: pytest.TempPathFactory, **choices: object
) -> None:
    spec = DatasetSpec(**choices)  # type: ignore[arg-type]
    check_coco(make_dataset(tmp_path_factory.mktemp("any") / "data", spec))


@pytest.mark.parametrize(
    ("form", "expected"), [("polygon", {list}), ("rle", {dict}), ("mixed", {list, dict})]
)
def test_masks_have_the_form_asked_for(tmp_path: Path, form: str, expected: set) -> None:
    spec = replace(SMALL, masks=form, classes=("ring", "square"), objects=(4, 6))
    made = make_dataset(tmp_path, spec)
    content = json.loads(made.annotations["train"].read_text())
    assert {type(a["segmentation"]) for a in content["annotations"]} == expected


def test_equal_specs_give_equal_files_and_other_seeds_do_not(tmp_path: Path) -> None:
    first, second = (make_dataset(tmp_path / name, SMALL) for name in "ab")
    assert files_of(first.root) == files_of(second.root)
    assert first.digest == second.digest
    other = make_dataset(tmp_path / "c", replace(SMALL, seed=3))
    assert other.digest != first.digest


def test_a_larger_dataset_begins_with_the_smaller_one(tmp_path: Path) -> None:
    small = files_of(make_dataset(tmp_path / "small", SMALL).root)
    large = files_of(make_dataset(tmp_path / "large", replace(SMALL, train=9)).root)
    for name in small:
        if name.endswith(".png"):
            assert small[name] == large[name]


def test_the_same_spec_again_is_reused_without_writing(tmp_path: Path) -> None:
    make_dataset(tmp_path, SMALL)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = make_dataset(tmp_path, SMALL)
    assert (again.state, again.painted) == ("reused", 0)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_another_spec_needs_force_and_then_leaves_none_of_the_old_files(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a", SMALL)
    (tmp_path / "a" / "train" / "notes.txt").write_text("mine")
    other = replace(SMALL, train=2, image_format="jpg")
    before = files_of(tmp_path / "a")
    with pytest.raises(UserError, match="train 6 -> 2, image_format png -> jpg") as caught:
        make_dataset(tmp_path / "a", other)
    assert "--force" in caught.value.remedy
    assert files_of(tmp_path / "a") == before
    made = make_dataset(tmp_path / "a", other, force=True)
    check_coco(made)
    fresh = make_dataset(tmp_path / "b", other)
    assert set(files_of(made.root)) - set(files_of(fresh.root)) == {"train/notes.txt"}


def test_force_makes_the_same_spec_anew(tmp_path: Path) -> None:
    first = make_dataset(tmp_path, SMALL)
    again = make_dataset(tmp_path, SMALL, force=True)
    assert (again.state, again.painted, again.digest) == ("made", 9, first.digest)


class Stop(BaseException):
    """An interruption in the middle."""


def stop_after(images: int) -> object:
    def on_image(done: int, total: int) -> None:
        assert total == 9
        if done == images:
            raise Stop

    return on_image


@pytest.mark.parametrize("images", [1, 5, 6, 8])
def test_an_interrupted_generation_is_completed_with_equal_files(
    tmp_path: Path, images: int
) -> None:
    with pytest.raises(Stop):
        make_dataset(tmp_path / "a", SMALL, on_image=stop_after(images))  # type: ignore[arg-type]
    record = read_record(tmp_path / "a")
    assert record is not None
    assert record["complete"] is False
    finished = make_dataset(tmp_path / "a", SMALL)
    assert (finished.state, finished.painted) == ("completed", 9 - images)
    assert files_of(finished.root) == files_of(make_dataset(tmp_path / "b", SMALL).root)


def test_a_killed_generation_is_completed_with_equal_files(tmp_path: Path) -> None:
    code = (
        "import sys; from sparsevit.data.make import make_dataset;"
        "from sparsevit.data.spec import DatasetSpec;"
        "make_dataset(sys.argv[1], DatasetSpec(train=5000, val=3, width=96, height=80))"
    )
    root = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", code, str(root)]) as process:
        deadline = time.monotonic() + 60
        while not (root / "train" / "000005.png").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    written = len(list((root / "train").glob("0*.png")))
    assert 5 < written < 5000
    (root / "train" / ".000900.png.1.tmp").write_bytes(b"half an image")
    for path in (root / "train").glob("0*.png"):
        assert cv2.imread(str(path)) is not None
    spec = DatasetSpec(train=written + 4, val=3, width=96, height=80)
    # the record's counts are brought down to keep the test short; all else stays as it was left
    record = json.loads((root / "dataset.json").read_text())
    record["spec"]["train"] = spec.train
    (root / "dataset.json").write_text(json.dumps(record))
    finished = make_dataset(root, spec)
    assert (finished.state, finished.painted) == ("completed", 4 + 3)
    assert files_of(root) == files_of(make_dataset(tmp_path / "fresh", spec).root)


@pytest.mark.parametrize(
    "lost", ["train/000002.png", "val/000000.png", "annotations/instances_val.json"]
)
def test_a_lost_file_is_made_again(tmp_path: Path, lost: str) -> None:
    before = files_of(make_dataset(tmp_path, SMALL).root)
    (tmp_path / lost).unlink()
    assert make_dataset(tmp_path, SMALL).state == "completed"
    assert files_of(tmp_path) == before


def test_a_changed_annotation_file_is_made_again(tmp_path: Path) -> None:
    before = files_of(make_dataset(tmp_path, SMALL).root)
    annotation_file(tmp_path, "val").write_text("{}")
    make_dataset(tmp_path, SMALL)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "train", "dataset.json"])
def test_a_folder_with_other_files_is_refused_and_left_as_it_is(
    tmp_path: Path, force: bool, name: str
) -> None:
    (tmp_path / name).write_text('{"name": "someone else\'s"}')
    before = files_of(tmp_path)
    with pytest.raises(UserError, match="not a dataset made by sparsevit"):
        make_dataset(tmp_path, SMALL, force=force)
    assert files_of(tmp_path) == before


def test_a_root_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="Cannot write the dataset"):
            make_dataset(root, SMALL)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        filelock.FileLock(tmp_path / ".dataset.lock"),
        pytest.raises(UserError, match="Another process is writing"),
    ):
        make_dataset(tmp_path, SMALL)


def test_interrupted_before_its_first_folder_it_can_be_made_again(tmp_path, monkeypatch):
    spec = DatasetSpec(train=1, val=1, width=32, height=32)
    mkdir = Path.mkdir

    def interrupted(path, *args, **how):
        mkdir(path, *args, **how)
        if path.name == "annotations":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_dataset(tmp_path / "data", spec)
    assert make_dataset(tmp_path / "data", spec).painted == 2
