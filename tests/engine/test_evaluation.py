"""COCO metrics of a detector: of all images, of some, from memory and again."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sparsevit.engine import evaluation
from sparsevit.engine.config import load_config
from sparsevit.engine.datasets import provide_embedded
from sparsevit.engine.evaluation import Evaluation, split_of
from sparsevit.errors import UserError


class Clairvoyant(torch.nn.Module):
    """Predicts what is on an image, displaced a little, and misses every fourth object."""

    def __init__(self):
        super().__init__()
        self.batches = 0
        self.was_training = []

    def val_step(self, batch):
        self.batches += 1
        self.was_training.append(self.training)
        for sample in batch["data_samples"]:
            assert "pred_instances" not in sample, "what an earlier call predicted is still there"
            truth = sample.gt_instances
            boxes = truth.bboxes.tensor
            seen = [i for i in range(len(boxes)) if (sample.img_id + i) % 4]
            generator = torch.Generator().manual_seed(sample.img_id)
            sample.pred_instances = InstanceData(
                bboxes=boxes[seen] + 2 * torch.rand(len(seen), 4, generator=generator),
                labels=truth.labels[seen],
                scores=torch.rand(len(seen), generator=generator),
                masks=torch.from_numpy(truth.masks.to_ndarray()[seen]).bool().roll(1, -1),
            )
        return batch["data_samples"]


@pytest.fixture(scope="module")
def cfg(tiny_config, tmp_path_factory):
    cfg = load_config(tiny_config)
    provide_embedded(cfg, tmp_path_factory.mktemp("data"))
    return cfg


def by_pycocotools(cfg, image_ids):
    """bbox and mask AP of the clairvoyant on some images, without mmdet's metric."""
    whole = Evaluation(cfg)
    truth = COCO(cfg.val_evaluator.ann_file)
    categories = truth.getCatIds()
    found = {"bbox": [], "segm": []}
    for batch in whole.loader:
        for sample in Clairvoyant().val_step(batch):
            instances = sample.pred_instances
            for box, label, score, mask in zip(
                instances.bboxes, instances.labels, instances.scores, instances.masks, strict=True
            ):
                shared = {
                    "image_id": sample.img_id,
                    "category_id": categories[label],
                    "score": score.item(),
                }
                x, y, right, bottom = box.tolist()
                found["bbox"].append({**shared, "bbox": [x, y, right - x, bottom - y]})
                from pycocotools import mask as masks

                rle = masks.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
                found["segm"].append({**shared, "segmentation": rle})
    ap = {}
    for kind, results in found.items():
        judge = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), kind)
        judge.params.imgIds = image_ids
        judge.evaluate(), judge.accumulate(), judge.summarize()
        ap[kind] = judge.stats[:3]
    return ap


@pytest.mark.parametrize("images", [1, 3, 6, None])
def test_metrics_of_the_first_images_are_those_of_evaluating_them_alone(cfg, images):
    some = Evaluation(cfg, images)
    metrics = some(Clairvoyant())
    with contextlib.redirect_stdout(io.StringIO()):
        ids = COCO(cfg.val_evaluator.ann_file).getImgIds()[:images]
        expected = by_pycocotools(cfg, ids)
    assert some.num_images == (images or 6)
    for kind, stats in expected.items():
        got = [metrics[f"{kind}_mAP{suffix}"] for suffix in ("", "_50", "_75")]
        # mmdet rounds to three digits
        assert got == pytest.approx(stats, abs=6e-4)
        assert stats[0] > 0.1


def test_images_that_are_not_shown_do_not_count_as_missed(cfg):
    one = Evaluation(cfg, 1)(Clairvoyant())["bbox_mAP_50"]
    assert one > 2 * Evaluation(cfg)(Clairvoyant())["bbox_mAP_50"] / 6


def test_more_images_than_there_are_are_all(cfg):
    assert Evaluation(cfg, 1000).num_images == 6


def test_batches_from_memory_and_from_disk_score_the_same(cfg, monkeypatch):
    remembered = Evaluation(cfg)
    first, again = remembered(Clairvoyant()), remembered(Clairvoyant())
    monkeypatch.setattr(evaluation, "CACHE_LIMIT_BYTES", 0)
    read_again = Evaluation(cfg)
    assert read_again._cache is None
    assert first == again == read_again(Clairvoyant())
    assert first["segm_mAP"] > 0


def test_images_are_decoded_once(cfg, monkeypatch):
    scored = Evaluation(cfg)
    read = []
    one = type(scored.loader.dataset).__getitem__
    monkeypatch.setattr(
        type(scored.loader.dataset), "__getitem__", lambda s, i: read.append(i) or one(s, i)
    )
    for _ in range(3):
        scored(Clairvoyant())
    assert sorted(read) == list(range(6))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_size_changes_the_batches_alone(cfg, batch_size):
    model = Clairvoyant()
    metrics = Evaluation(cfg, batch_size=batch_size)(model)
    assert model.batches == -(-6 // batch_size)
    assert metrics == Evaluation(cfg)(Clairvoyant())


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_scored_in_evaluation_mode_and_given_back_as_it_was(cfg, training):
    model = Clairvoyant().train(training)
    Evaluation(cfg, 1)(model)
    assert model.was_training == [False]
    assert model.training is training


def test_nothing_is_said_on_stdout(cfg, capfd):
    Evaluation(cfg, 2)(Clairvoyant())
    assert capfd.readouterr().out == ""


def test_a_model_that_finds_nothing_scores_zero(cfg):
    class Blind(Clairvoyant):
        def val_step(self, batch):
            for sample in super().val_step(batch):
                sample.pred_instances = sample.pred_instances[:0]
            return batch["data_samples"]

    metrics = Evaluation(cfg)(Blind())
    assert metrics["bbox_mAP"] == metrics["segm_mAP"] == 0


def test_the_test_set_stands_in_where_there_is_no_validation_set(cfg):
    cfg = copy.deepcopy(cfg)
    cfg.val_dataloader = cfg.val_evaluator = None
    assert Evaluation(cfg).num_images == 6
    cfg.test_dataloader = None
    with pytest.raises(UserError, match="no validation set"):
        Evaluation(cfg)


def test_the_given_config_is_not_changed(cfg):
    before = copy.deepcopy(cfg.to_dict())
    Evaluation(cfg, 2, batch_size=1)
    assert all(a == b for a, b in itertools.zip_longest(before.items(), cfg.to_dict().items()))


def test_names_keep_their_prefix_only_where_two_would_be_the_same(cfg):
    alone = Evaluation(cfg, 2)(Clairvoyant())
    cfg = copy.deepcopy(cfg)
    boxes = {**cfg.val_evaluator, "metric": "bbox"}
    both = {**cfg.val_evaluator, "metric": ["bbox", "segm"], "prefix": "again"}
    cfg.val_evaluator = [boxes, both]
    found = Evaluation(cfg, 2)(Clairvoyant())
    assert found["coco/bbox_mAP"] == found["again/bbox_mAP"] == alone["bbox_mAP"]
    assert found["segm_mAP"] == alone["segm_mAP"]
    assert "bbox_mAP" not in found


class Padding(torch.nn.Module):
    """Pads images to multiples of 32, as detectors do."""

    def data_preprocessor(self, batch, training):
        height, width = batch["inputs"][0].shape[-2:]
        return {"inputs": torch.zeros(1, 3, -(-height // 32) * 32, -(-width // 32) * 32)}


@pytest.mark.parametrize(
    ("scale", "expected"),
    [((64, 64), {(64, 64)}), ((70, 40), {(64, 64)}), ((200, 100), {(128, 128)})],
)
def test_the_size_of_images_is_that_of_padded_batches(cfg, scale, expected):
    changed = copy.deepcopy(cfg)
    for step in changed.val_dataloader.dataset.pipeline:
        if step["type"] == "Resize":
            step["scale"] = scale
    assert Evaluation(changed).image_sizes(Padding()) == expected


def test_of_images_of_two_sizes_a_batch_is_as_high_and_as_wide_as_any(cfg, monkeypatch):
    found = Evaluation(cfg)
    dataset = found.loader.dataset
    shapes = {0: (32, 96), 1: (64, 32)}

    def sized(number):
        return {"inputs": torch.zeros(3, *shapes[number % 2])}

    monkeypatch.setattr(type(dataset), "__getitem__", lambda self, number: sized(number))
    monkeypatch.setattr(dataset, "get_data_info", lambda number: {"height": number, "width": 1})
    assert found.image_sizes(Padding()) == {(32, 96), (64, 32), (64, 96), (32, 32)}
    monkeypatch.setattr(
        type(dataset),
        "__getitem__",
        lambda self, number: {"inputs": torch.zeros(3, 32 * (1 + number), 32)},
    )
    assert found.image_sizes(Padding()) == frozenset()


def test_ap_by_class_is_that_of_pycocotools_and_changes_no_other_metric(cfg):
    plain = Evaluation(cfg)(Clairvoyant())
    found = Evaluation(cfg, by_class=True)
    assert found(Clairvoyant()) == plain
    classes = found.classes()
    assert list(classes) == ["bbox_mAP", "segm_mAP"]
    assert list(classes["bbox_mAP"]) == list(found.loader.dataset.metainfo["classes"])
    for metric, scores in classes.items():
        # the mean over classes is the metric; each is rounded to three decimals
        assert np.nanmean([*scores.values()]) == pytest.approx(plain[metric], abs=1.5e-3)
    assert classes["bbox_mAP"] != classes["segm_mAP"]
    assert Evaluation(cfg).classes() == {}


@pytest.mark.parametrize(
    ("changes", "split", "said"),
    [
        ({"test_dataloader": None}, "test", "sets no test_dataloader"),
        ({"test_evaluator": None}, "test", "sets no test_evaluator"),
        ({"val_dataloader": None}, "val", "--split test"),
        ({"val_dataloader": None, "test_dataloader": None}, None, "no validation set"),
        ({}, "train", "Use val or test"),
    ],
)
def test_a_split_that_the_config_has_not_is_refused(cfg, changes, split, said):
    changed = copy.deepcopy(cfg)
    for name, value in changes.items():
        changed[name] = value
    with pytest.raises(UserError) as refused:
        split_of(changed, split)
    assert said in f"{refused.value.problem} {refused.value.remedy}"
