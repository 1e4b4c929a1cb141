"""Classification through the commands, and a whole classifier against mmpretrain's own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import scripts
import tiny
import torch

from sparsevit import sparsify
from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import TASKS, task_of, task_of_model
from sparsevit.tasks.classification.backends import as_test_step, prepare_classifier

SWIN = "mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py"
DISTILLED = (
    *("model.backbone.type=DistilledVisionTransformer", "model.head.type=DeiTClsHead"),
    *("train_cfg.max_iters=2", "default_hooks.checkpoint.interval=2"),
)


def written(folder, text):
    path = folder / "tiny.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return written(tmp_path_factory.mktemp("swin"), tiny.CLASSIFICATION)


@pytest.fixture(scope="module")
def deit(tmp_path_factory):
    return written(tmp_path_factory.mktemp("deit"), tiny.DEIT)


@pytest.fixture(scope="module")
def done(tmp_path_factory, config):
    """Every phase on the tiny config."""
    path = tmp_path_factory.mktemp("classified") / "workspace"
    documents = {}
    for words in (
        ["pretrain", config],
        ["adapt"],
        ["sensitivity", "--eval-images", "2", "--latency-seconds", "0.01"],
        ["search", *tiny.SEARCH],
        ["finetune"],
        ["evaluate"],
    ):
        ran = tiny.run(*words, "--workspace", path, "--json")
        assert ran.code == 0, ran.err
        documents[words[0]] = ran.document
    return path, documents


@pytest.fixture
def classifier(config):
    torch.manual_seed(0)
    model, _ = build_model(sparsify_config(load_config(config)))
    return model


def refused(problem, *words):
    ran = tiny.run(*words)
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    flat = " ".join(line.strip("│ ") for line in ran.err.splitlines())
    assert problem in flat, flat


# --- every phase ----------------------------------------------------------------------------------


def test_every_phase_scores_top_1_and_top_5(done):
    _, documents = done
    assert documents["search"]["metric"] == "top1"
    assert set(documents["pretrain"]["after"]["dense"]) == {"top1", "top5"}
    assert documents["evaluate"]["metrics"]["top5"] == 100
    assert documents["evaluate"]["task"] == "classification"
    shown = tiny.run("evaluate", "--workspace", done[0]).out
    assert "top-1" in shown
    assert "100.00" in shown


def test_evaluate_scores_each_class(done):
    found = done[1]["evaluate"]
    by_class = found["classes"]["top1"]
    assert len(by_class) == 5
    # as many images of each
    mean = sum(by_class.values()) / 5
    assert mean == pytest.approx(found["metrics"]["top1"], abs=0.01)


def test_of_many_classes_the_weakest_are_shown():
    top1 = {f"class {i}": float(100 - i) for i in range(50)} | {"none": float("nan")}
    columns, rows = TASKS["classification"].class_table({"top1": top1})
    assert columns[0] == "class, the 20 lowest of 51"
    assert [row[0] for row in rows] == [f"class {i}" for i in range(49, 29, -1)]


@pytest.mark.parametrize("more", [(), DISTILLED], ids=["deit", "distilled"])
def test_a_model_of_which_nothing_can_be_skipped_trains_and_is_scored(deit, tmp_path, more):
    set_ = [word for given in more for word in ("--set", given)]
    trained = tiny.run("pretrain", deit, *set_, "--workspace", tmp_path, "--json")
    assert trained.code == 0, trained.err
    assert set(trained.document["after"]["dense"]) == {"top1", "top5"}
    scored = tiny.run("evaluate", "--workspace", tmp_path, "--json")
    assert scored.document["metrics"] == trained.document["after"]["dense"]
    assert scored.document["sparsity"] == {}
    few = ("--batch-size", 1, "--warmup", 1, "--repeats", 1, "--json")
    timed = tiny.run("latency", "--scope", "classifier", "--workspace", tmp_path, *few)
    assert [row["name"] for row in timed.document["rows"]] == ["dense"]
    refused("cannot be made sparse", "search", *tiny.SEARCH, "--workspace", tmp_path)
    (tmp_path / "half.yaml").write_text("sparsity: {backbone.stages.0: 0.5}\n")
    file = ("--sparsity", tmp_path / "half.yaml")
    refused("no part that can be skipped", "evaluate", *file, "--workspace", tmp_path)


# in two processes detectors train in tests/cli/test_two_processes.py
@pytest.mark.slow
def test_two_processes_train_together(config, tmp_path):
    words = ("pretrain", config, "--devices", 2, "--workspace", tmp_path / "ws", "--json")
    trained = tiny.run_alone(*words, env=tiny.user_environment(), timeout=280)
    assert trained.code == 0, trained.err
    scored = tiny.run("evaluate", "--workspace", tmp_path / "ws", "--json")
    assert scored.document["metrics"] == trained.document["after"]["dense"]


# --- the backbone ---------------------------------------------------------------------------------


def small_swin(kind, **more):
    from mmpretrain.registry import MODELS

    task_of(load_config(SWIN)).registries()
    torch.manual_seed(0)
    arch = {"embed_dims": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}
    cfg = {"type": kind, "arch": arch, "out_indices": (1, 3), **more}
    model = MODELS.build(cfg)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.eval()
    return model


@pytest.mark.parametrize(
    ("size", "more"),
    [
        ((224, 224), {}),
        ((224, 320), {"use_abs_pos_embed": True}),
        ((256, 230), {}),
        ((64, 100), {"pad_small_map": True}),
        ((224, 224), {"pad_small_map": True}),
    ],
)
def test_at_ratio_0_the_backbone_and_a_sparsified_one_are_mmpretrains(size, more):
    swin = small_swin("SwinTransformer", **more)
    ours = small_swin("SparseViT", **more)
    ours.load_state_dict(swin.state_dict(), strict=True)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = swin(x)
        found = [ours(x), sparsify(swin)(x)]
    for maps in found:
        assert isinstance(maps, tuple)
        for one, other in zip(maps, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_map_smaller_than_a_window_is_refused_in_words():
    with pytest.raises(UserError, match="4x4 tokens is smaller than a window of 7x7") as caught:
        small_swin("SparseViT")(torch.zeros(1, 3, 64, 64))
    assert "pad_small_map" in caught.value.remedy


def test_mmpretrains_own_configs_are_known_and_made_sparse():
    cfg = load_config(SWIN)
    assert task_of(cfg).name == "classification"
    # mmengine's Runner finds a preprocessor beside the model
    assert cfg.model.data_preprocessor.num_classes == 1000
    sparse = sparsify_config(cfg)
    assert sparse.model.backbone.type == "SparseViT"
    assert "sparsevit.models.classification" in sparse.custom_imports["imports"]
    model, _ = build_model(sparse)
    assert len(SparsityHandle(model).space) == 6


# --- a whole classifier ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "ratio"),
    # ONNX Runtime is compared by the export below, and for segmentors, by the same code
    [("eager", 0.0), ("eager", 0.5), ("openvino", 0.5)],
)
def test_a_runtime_gives_what_mmpretrain_gives(classifier, backend, ratio):
    task = task_of_model(classifier)
    handle = SparsityHandle(classifier)
    handle.set(handle.space.uniform(ratio))
    batch = task.random_batch(2, (64, 96))
    with torch.no_grad():
        expected = [one.pred_score.clone() for one in classifier.test_step(batch)]
    images = classifier.data_preprocessor(batch, False)["inputs"]
    run = prepare_classifier(backend, classifier, images)
    found = as_test_step(classifier, run)(batch)
    for one, score in zip(found, expected, strict=True):
        assert torch.allclose(one.pred_score, score, atol=1e-5)
        assert one.pred_label == score.argmax()


def test_what_is_exported_is_described(done, tmp_path):
    out = tmp_path / "classifier.onnx"
    words = ("--scope", "classifier", "--out", out, "--workspace", done[0])
    ran = tiny.run("export", *words, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["outputs"] == {"logits": [1, 5]}
    assert max(ran.document["differences"].values()) < 1e-4
    described = ran.document["description"]
    assert described["num_classes"] == 5
    assert described["classes"] == ["circle", "cross", "ring", "square", "star"]
    assert described["input"]["channels"] == "RGB"
    made = next((done[0] / "data").glob("shapes-*/val/*/*.png"))
    image = scripts.resized(made, tmp_path / "wide.png", 120, 70)
    found = scripts.run_script(tmp_path / "classifier_onnx.py", image)
    assert found.code == 0, found.err
    trained = done[1]["finetune"]
    cfg = sparsify_config(load_config(trained["config"]))
    model, _ = build_model(cfg, Path(trained["checkpoint"]))
    expected = scripts.by_the_pipeline(cfg, model, image, (64, 64)).pred_score.numpy()
    assert found.found.argmax() == expected.argmax()
    assert found.found == pytest.approx(expected, abs=1e-3)
    likeliest = described["classes"][expected.argmax()]
    assert found.out.startswith(f"{expected.max():.3f}  {likeliest!r}\n")
    assert scripts.changed_pixels(image, tmp_path / "wide_found.png") > 0


def test_an_image_is_predicted_with_the_names_of_its_classes(done, tmp_path):
    workspace = shutil.copytree(done[0], tmp_path / "workspace")
    photo = next((workspace / "data").glob("*/val/*/*.png"))
    ran = tiny.run("predict", photo, "--workspace", workspace, "--json")
    assert ran.code == 0, ran.err
    found = ran.document["predictions"]
    assert sum(one["score"] for one in found) == pytest.approx(1, abs=1e-5)
    assert {one["name"] for one in found} == {"circle", "cross", "ring", "square", "star"}


def test_a_prediction_as_plain_data_and_drawn(classifier, tmp_path):
    task = TASKS["classification"]
    (sample,) = classifier.test_step(task.random_batch(1, (64, 64)))
    found = task.to_json(sample)
    assert [one["score"] for one in found] == sorted((o["score"] for o in found), reverse=True)
    assert {one["label"] for one in found} == set(range(5))
    pixels = torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()
    drawn = task.draw(sample, pixels, tmp_path / "drawn.png", {"classes": tuple("abcde")})
    assert drawn.stat().st_size > 500


# --- labelled images ------------------------------------------------------------------------------


@pytest.fixture
def root(done, tmp_path):
    (made,) = (done[0] / "data").glob("shapes-*")
    return shutil.copytree(made, tmp_path / "data")


def at(config, root, **changes):
    cfg = load_config(config)
    for split in ("train", "val"):
        cfg[f"{split}_dataloader"].dataset.data_root = str(root)
    for key, value in changes.items():
        cfg.val_dataloader.dataset[key] = value
    return cfg


def check(cfg, copies=None, splits=("train", "val")):
    return TASKS["classification"].check_data(cfg, splits, copies)


def test_a_made_dataset_is_accepted_as_folders_and_as_a_list(config, root):
    assert check(at(config, root)) == ()
    assert check(at(config, root, ann_file="meta/val.txt")) == ()


def test_a_folder_that_is_not_there_or_has_no_classes_is_named(config, root):
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        check(at(config, root, data_prefix="nowhere"))
    with pytest.raises(UserError, match=r"circle has no folder for a class"):
        check(at(config, root, data_prefix="val/circle"))
    with pytest.raises(UserError, match=r"no file .*val.txt"):
        check(at(config, root, ann_file="val.txt"))


def test_splits_of_other_classes_are_refused(config, root):
    (root / "val/ring").rename(root / "val/oval")
    cfg = at(config, root)
    for split in ("train", "val"):
        cfg[f"{split}_dataloader"].dataset.metainfo = None
    with pytest.raises(UserError, match="different classes: oval, ring in one of them only"):
        check(cfg)
    shutil.rmtree(root / "val/oval")
    with pytest.raises(UserError, match=r"has 4 folders of classes, and .* names 5"):
        check(at(config, root))


@pytest.mark.parametrize("key", ["head", "data_preprocessor"])
def test_another_number_of_classes_is_refused(config, root, key):
    cfg = at(config, root)
    cfg.model[key].num_classes = 7
    with pytest.raises(UserError, match=rf"model.{key}.num_classes is 7.* 5 classes") as caught:
        check(cfg)
    assert f"model.{key}.num_classes=5" in caught.value.remedy


def test_top_5_of_fewer_classes_is_refused_in_words(config, root):
    for split in ("train", "val"):
        for name in ("ring", "star"):
            shutil.rmtree(root / split / name)
    cfg = at(config, root)
    for split in ("train", "val"):
        cfg[f"{split}_dataloader"].dataset.metainfo = {"classes": ("circle", "cross", "square")}
    cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = 3
    with pytest.raises(UserError, match="asks for the top-5 accuracy, and there are 3") as caught:
        check(cfg)
    assert "val_evaluator.topk=[1]" in caught.value.remedy


def test_a_list_with_a_label_that_is_no_class_is_refused(config, root):
    listed = root / "meta/val.txt"
    listed.write_text(listed.read_text().replace(" 4\n", " 9\n"))
    with pytest.raises(UserError, match="has the label 9, and there are 5 classes"):
        check(at(config, root, ann_file="meta/val.txt"))
    listed.write_text("circle/000000.png zero\n")
    with pytest.raises(UserError, match="is no list of images and labels"):
        check(at(config, root, ann_file="meta/val.txt"))


def test_broken_images_are_refused_together_or_left_out(config, root, tmp_path):
    first, second, *rest = sorted((root / "val").rglob("*.png"))
    first.write_bytes(b"no image")
    second.write_bytes(second.read_bytes()[:-30])
    cfg = at(config, root)
    with pytest.raises(UserError, match=r"2 of 10 images .*is not an image.*; .*is cut") as caught:
        check(cfg)
    assert "--skip-broken" in caught.value.remedy
    (said,) = check(cfg, tmp_path / "copies", ("val",))
    assert said.startswith("left out: 2 of 10 images")
    listed = Path(cfg.val_dataloader.dataset.ann_file)
    assert len(listed.read_text().splitlines()) == len(rest)
    assert check(cfg) == ()


# --- own data -------------------------------------------------------------------------------------


def test_a_folder_of_class_folders_is_enough_to_train(root, tmp_path):
    own = tmp_path / "own"
    for name in ("circle", "cross", "star"):
        # one set, to be split by seed
        for split in ("train", "val"):
            shutil.copytree(root / split / name, own / name, dirs_exist_ok=True)
    few = ("train_cfg.max_iters=2", "default_hooks.checkpoint.interval=1")
    (tmp_path / "own.yaml").write_text("images: own\ntask: classification\nimage_size: 64x64\n")
    words = ("pretrain", "--data", tmp_path / "own.yaml", "--workspace", tmp_path / "ws")
    ran = tiny.run(*words, *(word for one in few for word in ("--set", one)), "--json")
    assert ran.code == 0, ran.err
    # of three classes there is no top-5
    assert set(ran.document["after"]["dense"]) == {"top1"}
    assert "named by their folders" in ran.err


@pytest.mark.parametrize("model", ["tiny", "small", "base"])
def test_every_part_of_a_config_follows_the_data(root, tmp_path, model):
    from sparsevit.phases.own import make_config

    made = make_config(root, model, workspace=tmp_path)
    cfg = load_config(made.config)
    assert check(cfg, splits=("train", "val", "test")) == ()
    assert cfg.model.head.num_classes == 5
    assert cfg.model.data_preprocessor.num_classes == 5
    assert {choice.chosen for choice in made.choices if choice.what == "image size"} == {"128x128"}


# --- what a user may get wrong --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["evaluate", "latency", "export"])
def test_the_scope_of_another_task_is_refused(done, command, tmp_path):
    more = ["--out", tmp_path / "model.onnx"] if command == "export" else []
    words = (command, "--workspace", done[0], "--scope", "segmentor", *more)
    refused("this config has a classifier", *words)


def test_without_mmpretrain_the_remedy_is_its_name(config, monkeypatch):
    cfg = load_config(config)
    for name in [name for name in sys.modules if name.startswith("mmpretrain")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mmpretrain.registry", None)
    with pytest.raises(UserError, match="needs mmpretrain") as caught:
        task_of(cfg)
    assert "sparsevit[all]" in caught.value.remedy
