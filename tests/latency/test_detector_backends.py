"""Every backend finds in an image what eager mmdet finds in it."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_detector
from sparsevit.errors import UserError
from sparsevit.latency.backends.detector import as_test_step, prepare_detector

SIZE = (96, 128)


def lively(cfg: Config, seed: int = 0):
    """A detector that finds things: weights so large that scores and boxes differ."""
    torch.manual_seed(seed)
    model, _ = build_detector(cfg)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                continue
            if p.ndim > 1:
                p.normal_(0, 1.3 * p[0].numel() ** -0.5)
            elif name.endswith("bias"):
                p.normal_(0, 0.1)
        model.rpn_head.rpn_reg.weight.mul_(0.3)
        model.roi_head.bbox_head.fc_reg.weight.mul_(2)
    return model


@pytest.fixture(scope="module")
def cfg(tiny_config):
    cfg = sparsify_config(load_config(tiny_config))
    cfg.model.test_cfg.rcnn.score_thr = 0.3
    cfg.model.test_cfg.rcnn.max_per_img = 12
    cfg.model.test_cfg.rpn.nms_pre = 60
    cfg.model.test_cfg.rpn.max_per_img = 50
    return cfg


@pytest.fixture(scope="module")
def detector(cfg):
    return lively(cfg)


def batch_of(count: int, size=SIZE, scale=(1.0, 1.0), seed=3):
    """A batch as mmdet's data loader gives it, of noisy pixels with some large shapes."""
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, *size), generator=generator)
    coarse = torch.randint(0, 256, (count, 3, 4, 5), generator=generator).float()
    pixels = (0.3 * pixels + 0.7 * torch.nn.functional.interpolate(coarse, size)).to(torch.uint8)
    original = tuple(round(side / by) for side, by in zip(size, reversed(scale), strict=True))
    samples = []
    for index in range(count):
        info = {"img_id": index, "img_shape": size, "ori_shape": original, "scale_factor": scale}
        samples.append(DetDataSample(metainfo=info))
    return {"inputs": list(pixels), "data_samples": samples}


def prepared_images(model, batch):
    data = model.data_preprocessor({**batch}, False)
    return data["inputs"]


def assert_same(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        got, wanted = a.pred_instances, b.pred_instances
        assert len(got) == len(wanted) > 3
        assert torch.equal(got.labels, wanted.labels)
        torch.testing.assert_close(got.bboxes, wanted.bboxes, atol=100 * tolerance, rtol=0)
        torch.testing.assert_close(got.scores, wanted.scores, atol=tolerance, rtol=0)
        assert ("masks" in got) == ("masks" in wanted)
        if "masks" in got:
            assert got.masks.shape == wanted.masks.shape
            assert (got.masks != wanted.masks).float().mean() < 1e-3
            assert wanted.masks.any()


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_eager_gives_what_mmdet_gives(ratio, detector):
    detector.backbone.pruning_ratios = ratio
    # 90 rows: the batch is padded to 96, and boxes must end at 90
    batch = batch_of(2, size=(90, 128), scale=(0.5, 0.45))
    with torch.no_grad():
        expected = [one.clone() for one in detector.test_step(batch_of(2, (90, 128), (0.5, 0.45)))]
    run = prepare_detector("eager", detector, prepared_images(detector, batch))
    detector.backbone.pruning_ratios = 0.2
    assert_same(as_test_step(detector, run)(batch), expected, 1e-6)


@pytest.mark.parametrize("key", ["rcnn", "rpn"])
def test_other_nms_is_refused(key, cfg):
    cfg = cfg.copy()
    cfg.model.test_cfg[key].nms = {"type": "soft_nms", "iou_threshold": 0.5}
    model, _ = build_detector(cfg)
    with pytest.raises(UserError, match=f"test_cfg.{key}.nms") as caught:
        prepare_detector("eager", model, torch.zeros(1, 3, *SIZE))
    assert "Mask R-CNN" in caught.value.remedy
