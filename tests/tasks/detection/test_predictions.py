"""What a detector finds, as COCO has it and as a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as masks

from sparsevit.tasks.detection import Detection

META = {"classes": ("circle", "square"), "palette": [(255, 0, 0), (0, 255, 0)]}


@pytest.fixture
def sample():
    found = torch.zeros(2, 40, 60, dtype=torch.bool)
    found[0, 5:15, 10:30] = True
    found[1, 20:30, 40:50] = True
    return DetDataSample(
        metainfo={"img_id": 7},
        pred_instances=InstanceData(
            bboxes=torch.tensor([[10.0, 5.0, 30.0, 15.0], [40.0, 20.0, 50.0, 30.0]]),
            scores=torch.tensor([0.9, 0.6]),
            labels=torch.tensor([1, 0]),
            masks=found,
        ),
    )


def test_as_json_boxes_have_a_width_and_masks_are_run_lengths(sample):
    first, second = Detection().to_json(sample)
    assert (first["image_id"], first["bbox"], first["label"]) == (7, [10, 5, 20, 10], 1)
    assert second["score"] == pytest.approx(0.6)
    decoded = masks.decode(first["segmentation"])
    assert np.array_equal(decoded, sample.pred_instances.masks[0].numpy())
    del sample.pred_instances.masks
    assert "segmentation" not in Detection().to_json(sample)[0]


def test_a_picture_shows_what_was_found_where_it_is(sample, tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    out = Detection().draw(sample, pixels, tmp_path / "found.png", META)
    drawn = np.asarray(Image.open(out).convert("RGB"))
    assert drawn.any()
    # nothing was found there
    assert not drawn[34:, :30].any()
