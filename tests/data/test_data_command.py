"""`sparsevit data` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sparsevit.cli.data import app
from sparsevit.errors import UserError
from sparsevit.phases.data import default_root, latest_root, make_data, show_data

SMALL = ["--train", "2", "--val", "2", "--img-size", "64x48", "--objects", "1:3"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_make_prints_one_json_document_and_show_draws_it(tmp_path: Path) -> None:
    root = tmp_path / "data"
    made = run("make", str(root), *SMALL, "--json")
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout)
    assert document["state"] == "made"
    assert document["spec"]["width"] == 64
    assert document["splits"]["val"]["images"] == 2
    out = tmp_path / "picture.png"
    shown = run("show", str(root), "--out", str(out), "--images", "3", "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == {"out": str(out), "images": 2}
    assert cv2.imread(str(out)).shape[2] == 3


@pytest.mark.parametrize("name", ["\ud800", "\x1b[31mred\x07", "\u732b"])
def test_show_draws_a_name_that_no_font_has(
    tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    root = tmp_path / "data"
    assert run("make", str(root), *SMALL).exit_code == 0
    file = root / "annotations" / "instances_val.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["categories"][0]["name"] = name
    file.write_text(json.dumps(document), encoding="utf-8")
    shown = run("show", str(root), "--split", "val", "--out", str(tmp_path / "out.png"))
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "out.png").is_file()
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_make_renders_a_table_and_says_what_was_there(tmp_path: Path) -> None:
    assert "Made" in run("make", str(tmp_path), *SMALL).stdout
    again = run("make", str(tmp_path), *SMALL)
    assert "Already there" in again.stdout
    assert "polygons" in again.stdout


def test_the_folder_is_that_of_the_workspace_if_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARSEVIT_WORKSPACE", raising=False)
    assert default_root() == Path("work_dirs/data/shapes")
    assert run("make", *SMALL, "--workspace", str(tmp_path / "w")).exit_code == 0
    assert (tmp_path / "w" / "data" / "shapes" / "dataset.json").is_file()


def test_show_takes_the_dataset_of_the_workspace_that_was_made_last(tmp_path: Path) -> None:
    assert latest_root(tmp_path) == tmp_path / "data" / "shapes"
    for name in ("shapes", "shapes-of-the-demo"):
        root = tmp_path / "data" / name
        assert run("make", str(root), *SMALL).exit_code == 0
        assert latest_root(tmp_path) == root
    shown = run("show", "--workspace", str(tmp_path), "--out", str(tmp_path / "a.png"))
    assert shown.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--train", "0"], "number of train images"),
        (["--img-size", "big"], "Image size 'big'"),
        (["--img-size", "-5"], "image width"),
        (["--objects", "many"], "Objects in an image"),
        (["--objects", "5:2"], "smallest number of objects"),
        (["--object-size", "1:4"], "do not fit"),
        (["--classes", "cat"], "no class 'cat'"),
        (["--masks", "bits"], "masks 'bits'"),
        (["--format", "gif"], "image format 'gif'"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    result = run("make", str(tmp_path / "data"), *SMALL, *arguments)
    assert isinstance(result.exception, UserError)
    assert named in str(result.exception)
    assert not (tmp_path / "data").exists()


def test_another_dataset_asks_for_force(tmp_path: Path) -> None:
    run("make", str(tmp_path), *SMALL)
    refused = run("make", str(tmp_path), *SMALL, "--seed", "9")
    assert isinstance(refused.exception, UserError)
    assert "--force" in refused.exception.remedy
    assert run("make", str(tmp_path), *SMALL, "--seed", "9", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"root": "nowhere"}, "no dataset at"),
        ({"split": "test"}, "no split 'test'"),
        ({"images": 0}, "0 images"),
        ({"out": "picture.docx"}, "not a picture file"),
        ({"out": "missing/folder/picture.png"}, "Cannot write"),
    ],
)
def test_show_refuses_what_it_cannot_draw(tmp_path: Path, changes: dict, named: str) -> None:
    run("make", str(tmp_path / "data"), *SMALL)
    arguments = {"root": "data", "out": "picture.png", "split": "val", "images": 1, **changes}
    arguments["root"] = tmp_path / arguments["root"]
    arguments["out"] = tmp_path / arguments["out"]
    with pytest.raises(UserError) as caught:
        show_data(**arguments)
    assert named in str(caught.value)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    run("make", str(tmp_path), *SMALL)
    (tmp_path / "val" / "000000.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"000000\.png is not an image"):
        show_data(tmp_path, tmp_path / "picture.png")


def test_make_data_has_defaults_for_all_but_the_folder(tmp_path: Path) -> None:
    from sparsevit.data.spec import DatasetSpec

    result = make_data(tmp_path, DatasetSpec(train=1, val=1))
    assert result.painted == 2
    assert result.splits["train"].categories == DatasetSpec().classes


def test_the_command_imports_nothing_heavy_before_it_runs() -> None:
    code = (
        "import sys, sparsevit.cli.data, sparsevit.phases.data;"
        "print({'torch', 'numpy', 'cv2', 'pycocotools', 'matplotlib'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_val2017.json", "val2017"),
        ("val.json", "images"),
        ("val/_annotations.coco.json", "val"),
        ("val.json", "."),
    ],
)
def test_show_draws_datasets_of_other_layouts(
    tmp_path: Path, annotations: str, images: str
) -> None:
    made = tmp_path / "made"
    run("make", str(made), *SMALL)
    root = tmp_path / "root"
    for target in (root / annotations, root / images / "a"):
        target.parent.mkdir(parents=True, exist_ok=True)
    (made / "annotations/instances_val.json").rename(root / annotations)
    for image in (made / "val").iterdir():
        image.rename(root / images / image.name)
    out = tmp_path / "picture.png"
    assert show_data(root, out).images == 2
    assert show_data(root / annotations, out).images == 2
    assert show_data(root / annotations, out, image_dir=root / images).images == 2


def test_show_asks_for_the_images_where_it_does_not_find_them(tmp_path: Path) -> None:
    run("make", str(tmp_path / "made"), *SMALL)
    path = tmp_path / "elsewhere" / "val.json"
    path.parent.mkdir()
    (tmp_path / "made/annotations/instances_val.json").rename(path)
    with pytest.raises(UserError, match=r"images of .* are not found") as caught:
        show_data(path, tmp_path / "picture.png")
    assert "--image-dir" in caught.value.remedy


def test_a_folder_of_other_things_gets_the_right_advice_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no dataset at") as caught:
        show_data(tmp_path, tmp_path / "picture.png")
    assert "data make" not in caught.value.remedy.partition(".")[0]
    with pytest.raises(UserError, match="not a dataset made by sparsevit"):
        make_data(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 2)])
def test_show_draws_images_of_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((height, width), np.uint16))
    box = [0, 0, width, height]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "$x^"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": box},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": box}
            | {"segmentation": {"size": [height, width], "counts": [0, height * width]}},
        ],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    assert show_data(tmp_path, tmp_path / "picture.png").images == 1
    assert max(cv2.imread(str(tmp_path / "picture.png")).shape) < 2000


def test_a_named_pipe_is_not_written_to(tmp_path: Path) -> None:
    run("make", str(tmp_path / "made"), *SMALL)
    os.mkfifo(tmp_path / "picture.png")
    with pytest.raises(UserError, match="not a regular file"):
        show_data(tmp_path / "made", tmp_path / "picture.png")
