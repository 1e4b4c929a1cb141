"""`sparsevit predict`: what it finds is what `evaluate` scores; nothing of the user's is lost."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sparsevit.data import media

OUT = ("--out", "drawn")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def photos(finished):
    """The validation images of the finished workspace."""
    return sorted((finished.path / "data").glob("*/val/*.png"))


def predicted(workspace, *words):
    done = tiny.run("predict", *words, "--workspace", workspace, "--json")
    assert done.code == 0, done.err
    return done.document


def told(done):
    return " ".join(line.strip("│ ") for line in done.err.splitlines())


def refused(*words):
    before = tiny.files(Path())
    done = tiny.run("predict", *words)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert tiny.files(Path()) == before
    return told(done)


def film(path, frames=5, size=(64, 48), rate=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 20 * number, np.uint8))
    writer.release()
    return path


def frames_of(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def test_what_is_found_in_the_validation_set_scores_as_evaluate_says(workspace):
    made = predicted(workspace, "--frames", 100, *OUT)
    assert len(made["images"]) == 6
    found = json.loads(Path("drawn/predictions.json").read_text(encoding="utf-8"))
    assert found == made["predictions"]
    (annotations,) = workspace.glob("data/*/annotations/instances_val.json")
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        scores = COCOeval(truth, truth.loadRes("drawn/predictions.json"), "segm")
        scores.params.imgIds = [image["id"] for image in made["images"]]
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    said = tiny.run("evaluate", "--workspace", workspace, "--json").document["metrics"]
    assert scores.stats[0] == pytest.approx(said["segm_mAP"], abs=1e-3)
    assert {one["name"] for one in found} <= {"circle", "triangle", "square"}


def test_images_that_are_given_are_prepared_as_those_of_the_dataset(workspace, photos):
    of_the_set = predicted(workspace, "--frames", 2)
    given = predicted(workspace, *photos[:2], *OUT)

    def plain(made):
        numbers = {image["id"]: Path(image["file"]).name for image in made["images"]}
        return [
            (numbers[one["image_id"]], one["label"], one["score"], one["bbox"])
            for one in made["predictions"]
        ]

    assert plain(given) == plain(of_the_set)
    assert [path.name for path in map(Path, given["files"])] == [
        *(f"{photo.stem}.png" for photo in photos[:2]),
        "predictions.json",
    ]
    # without --out they are the run's own
    folder = Path(of_the_set["out"])
    assert folder == workspace / "predict" / "run-001"
    assert {Path(path).parent for path in of_the_set["files"]} == {folder}
    runs = tiny.run("status", "--workspace", workspace, "--json").document["runs"]
    first, second = (set(run["outputs"]) for run in runs if run["phase"] == "predict")
    assert first == {"predictions", *(photo.stem for photo in photos[:2])}
    assert second == {"predictions"}


def test_dense_and_sparse_stand_side_by_side_with_what_was_skipped(workspace, photos):
    made = predicted(workspace, photos[0].parent, "--compare", "--windows", *OUT)
    assert made["dense_source"] == "pretrain run-001"
    assert all(image["milliseconds"] and image["dense_milliseconds"] for image in made["images"])
    alone = predicted(workspace, photos[0], "--out", "one")
    both, one = (cv2.imread(f"{folder}/{photos[0].stem}.png") for folder in ("drawn", "one"))
    assert both.shape[1] > 1.8 * both.shape[0]
    assert one.shape[:2] == (64, 64)
    assert alone["dense_milliseconds"] is None
    assert cv2.imread(f"drawn/{photos[0].stem}.windows.png") is not None


def test_the_table_says_how_much_was_found_and_how_fast(workspace, photos):
    done = tiny.run("predict", photos[0], "--compare", "--workspace", workspace)
    assert done.code == 0, done.err
    for words in ("dense ms", "median", "pretrain run-001", "pictures and predictions.json"):
        assert words in done.out


def test_a_video_comes_back_as_a_video(workspace):
    made = predicted(workspace, film("in.mp4"), "--frames", 3, "--compare", *OUT)
    assert [image["frame"] for image in made["images"]] == [0, 1, 2]
    frames, rate = frames_of("drawn/in.mp4")
    assert (len(frames), rate) == (3, 10)
    assert made["frames_per_second"] > 0


def test_a_video_that_ends_early_is_used_as_far_as_it_goes(workspace, monkeypatch):
    film("in.mp4", 4)

    capture = cv2.VideoCapture

    class Longer:
        def __init__(self, source):
            self._capture = capture(source)

        def __getattr__(self, name):
            return getattr(self._capture, name)

        def get(self, what):
            return 9.0 if what == cv2.CAP_PROP_FRAME_COUNT else self._capture.get(what)

    monkeypatch.setattr(cv2, "VideoCapture", Longer)
    done = tiny.run("predict", "in.mp4", "--workspace", workspace, *OUT)
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    assert done.code == 0, done.err
    assert "in.mp4 ends after 4 frames; its header says 9" in told(done)
    assert len(frames_of("drawn/in.mp4")[0]) == 4


class Camera:
    """OpenCV's capture, of a camera that gives black frames; is interrupted after the third."""

    taken = 0

    def __init__(self, source):
        assert source == 3

    def isOpened(self):
        return True

    def release(self):
        pass

    def get(self, what):
        return -1.0

    def read(self):
        Camera.taken += 1
        if Camera.taken > 3:
            raise KeyboardInterrupt
        return True, np.zeros((48, 64, 3), np.uint8)


@pytest.mark.parametrize("most", [2, None])
def test_a_camera_runs_until_it_is_stopped_and_what_was_seen_stays(workspace, monkeypatch, most):
    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "taken", 0)
    limit = () if most is None else ("--frames", most)
    done = tiny.run("predict", "3", *limit, "--workspace", workspace, *OUT)
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    assert done.code == (130 if most is None else 0), done.err
    folder = Path("drawn")
    assert len(frames_of(folder / "camera3.mp4")[0]) == (most or 3)
    assert json.loads((folder / "predictions.json").read_text(encoding="utf-8"))


def test_an_exported_file_finds_what_the_model_finds(workspace, photos, kept_detector):
    words = ("--scope", "detector", "--format", "kept", "--out", "whole.kept")
    done = tiny.run("export", "--workspace", workspace, *words)
    assert done.code == 0, done.err
    by_file = predicted(workspace, photos[0], "--exported", "whole.kept")
    assert by_file["scope"] == "detector"
    eager = predicted(workspace, photos[0], "--scope", "detector")
    assert by_file["sparsity"] == eager["sparsity"]
    assert len(by_file["predictions"]) == len(eager["predictions"]) > 0
    for one, other in zip(by_file["predictions"], eager["predictions"], strict=True):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
    cv2.imwrite("wide.png", np.zeros((40, 80, 3), np.uint8))
    words = ("wide.png", "--exported", "whole.kept", "--workspace", workspace)
    done = tiny.run("predict", *words)
    assert done.code == 2
    assert "takes images of 64x64, and the test pipeline makes this one 64x32" in told(done)
    assert "--img-size 64x32" in told(done)
    with_ratios = ("--exported", "whole.kept", "--dense", "--workspace", workspace)
    assert "at the sparsity that it was exported at" in refused(photos[0], *with_ratios)
    in_another = ("--exported", "whole.kept", "--backend", "compile", "--workspace", workspace)
    assert "what executes the model" in refused(photos[0], *in_another)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "There is no file"),
        (lambda path: path.write_bytes(b"x"), "is not beside it"),
        (lambda path: (path.write_bytes(b"x"), sidecar(path, {"a": 1})), "not a description"),
        (lambda path: (path.write_bytes(b"x"), sidecar(path, [])), "not a description"),
        (lambda path: (path.write_bytes(b"x"), sidecar(path, batch=4)), "one by one"),
        (lambda path: (path.write_bytes(b"x"), sidecar(path)), "cannot be loaded"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(workspace, photos, make, says):
    pytest.importorskip("onnxruntime")
    make(Path("whole.onnx"))
    done = tiny.run("predict", photos[0], "--exported", "whole.onnx", "--workspace", workspace)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert says in told(done)


def sidecar(path, document=None, batch=1):
    knobs = dict.fromkeys((f"backbone.stages.{name}" for name in ("0", "1", "2_1", "2_2", "3")), 0)
    ours = {
        "scope": "backbone",
        "format": "onnx",
        "sparsity": knobs,
        "input": {"shape": [batch, 3, 64, 64]},
        "checkpoint": {"digest": "sha256:0"},
    }
    text = json.dumps(ours if document is None else document)
    path.with_name(path.name + ".json").write_text(text, encoding="utf-8")


def test_nothing_that_is_there_is_overwritten(workspace, photos):
    photo = Path("cat.png")
    photo.write_bytes(photos[0].read_bytes())
    words = ("cat.png", "--out", ".", "--workspace", workspace)
    assert "cat.png is already there" in refused(*words)
    predicted(workspace, "cat.png", *OUT)
    assert "is already there, and 1 more" in refused("cat.png", *OUT, "--workspace", workspace)
    before = Path("drawn/cat.png").stat().st_mtime_ns
    predicted(workspace, "cat.png", *OUT, "--force")
    assert Path("drawn/cat.png").stat().st_mtime_ns > before


def test_images_of_one_name_have_pictures_of_their_own(workspace, photos):
    for folder in ("a", "b", "c"):
        Path(folder).mkdir()
        Path(folder, "cat.png").write_bytes(photos[0].read_bytes())
    made = predicted(workspace, "a", "b", "c", *OUT)
    assert [Path(path).name for path in made["files"][:-1]] == [
        *("cat.png", "cat-png.png", "cat-png-2.png")
    ]


def broken(name, content=b"nothing"):
    Path(name).write_bytes(content)
    return name


@pytest.mark.parametrize(
    ("make", "words", "says"),
    [
        (None, ["nowhere.png"], "There is no nowhere.png"),
        (lambda: Path("empty").mkdir(), ["empty"], "has no images"),
        (lambda: broken("x.png"), ["x.png"], "is not an image that can be read"),
        (lambda: broken("x.png", b""), ["x.png"], "is empty"),
        (lambda: broken("x.mp4"), ["x.mp4"], "cannot be opened as a video"),
        (lambda: Path("x.mp4").mkdir(), ["x.mp4"], "has no images"),
        (lambda: broken("notes.txt"), ["notes.txt"], "is not an image that can be read"),
        (None, ["7"], "There is no camera 7"),
        (None, ["99999999999999999999"], "Cameras are counted from 0"),
        (None, ["x" * 5000], "cannot be read"),
        (None, ["~nobody-here/x.png"], "There is no ~nobody-here/x.png"),
        (None, ["--min-score", "2"], "--min-score"),
        (None, ["--frames", "0"], "--frames"),
        (None, ["--checkpoint", "nowhere.pth"], "nowhere.pth is not a file"),
        (None, ["--config", "nowhere.py"], "nowhere.py"),
        (None, ["--scope", "segmentor"], "--scope"),
        (lambda: broken("file"), ["--out", "file"], "Nothing can be written to file"),
        (lambda: broken("file"), ["--out", "file/in"], "Nothing can be written to file/in"),
    ],
)
def test_mistakes_are_told_with_what_to_do(workspace, make, words, says):
    if make is not None:
        make()
    before = tiny.files(Path())
    done = tiny.run("predict", *words, "--workspace", workspace)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert says in told(done)
    assert tiny.files(Path()) == before


def test_broken_images_are_left_out_where_that_is_asked(workspace, photos):
    Path("some").mkdir()
    Path("some/good.png").write_bytes(photos[0].read_bytes())
    broken("some/bad.png")
    words = ("some", *OUT, "--workspace", workspace)
    assert "bad.png is not an image that can be read" in refused(*words)
    done = tiny.run("predict", *words, "--skip-broken")
    assert done.code == 0, done.err
    assert "left out: some/bad.png" in told(done)
    broken("some/good.png")
    assert "2 images cannot be used" in refused("some", "--skip-broken", "--workspace", workspace)


def test_without_weights_it_says_what_to_do():
    assert "needs trained weights" in refused("--workspace", "new")


def test_there_is_no_window_without_a_display(workspace, photos, monkeypatch):
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    words = (photos[0], "--show", "--workspace", workspace)
    assert "no display here" in refused(*words)


def test_a_stream_is_given_to_opencv_as_it_is(monkeypatch):
    opened = []

    class Capture(Camera):
        def __init__(self, source):
            opened.append(source)

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    (one,) = media.find_media(["rtsp://host/live"], False, print)
    assert (one.name, one.live, one.rate) == ("stream", True, None)
    assert opened == ["rtsp://host/live"]
