"""`sparsevit data` on scenes, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner, Result

from sparsevit.cli.data import app
from sparsevit.errors import UserError
from sparsevit.phases.data import default_root, latest_root

SMALL = ["--task", "bev", "--train", "1", "--val", "2", "--img-size", "64x36", "--objects", "5:9"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_scenes_are_made_and_shown(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "picture.png"
    made = run("make", str(root), *SMALL, "--json")
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout)
    assert (document["state"], document["painted"], document["version"]) == (
        "made",
        18,
        "v1.0-made",
    )
    assert document["splits"]["val"]["samples"] == 2
    again = run("make", str(root), *SMALL)
    assert "Already there" in again.stdout
    assert "traffic_cone" in again.stdout
    shown = run("show", str(root), "--out", str(out), "--images", "3", "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == {"out": str(out), "images": 12}
    assert cv2.imread(str(out)).shape[2] == 3


def test_scenes_have_a_folder_of_their_own_in_the_workspace(tmp_path: Path) -> None:
    assert run("make", *SMALL, "--workspace", str(tmp_path)).exit_code == 0
    assert default_root(tmp_path, "bev") == latest_root(tmp_path) == tmp_path / "data/scenes"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--masks", "rle"], "--masks means nothing for --task bev"),
        (["--object-size", "8:12"], "--object-size means nothing"),
        (["--classes", "circle"], "no class 'circle'"),
        (["--train", "0"], "number of train samples"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    failed = run("make", str(tmp_path / "a"), "--task", "bev", *arguments)
    assert isinstance(failed.exception, UserError)
    assert said in str(failed.exception)
