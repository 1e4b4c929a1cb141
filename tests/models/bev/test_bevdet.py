"""BEVDet as a model of mmengine's: its modes, a step of training, and what it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from bev_scene import cameras_around, small_bevdet
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from sparsevit.errors import UserError
from sparsevit.models.bev import Cameras
from sparsevit.models.forms import exported
from sparsevit.sparsity.handle import SparsityHandle

SIZE = (64, 128)
MAPS = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
PARTS = ["heatmap", "xy", "z", "whl", "yaw", "vel"]


def build(**swin):
    torch.manual_seed(0)
    return MODELS.build(small_bevdet(**swin))


def samples(batch=2, boxes=((10, 5, 0, 2, 4, 1.5, 0.3, 1, 0), (-20, 5, 0, 0.6, 0.7, 1.8, 2, 0, 1))):
    """A batch as a data loader gives it."""
    generator = np.random.default_rng(0)
    inputs, truths = [], []
    for _ in range(batch):
        imgs = generator.integers(0, 256, (6, 3, *SIZE), dtype=np.uint8)
        cameras = {name: value[0] for name, value in cameras_around(6, SIZE).items()}
        inputs.append({"imgs": torch.from_numpy(imgs), **cameras})
        truth = DetDataSample()
        truth.gt_instances_3d = InstanceData(
            bboxes_3d=torch.tensor(boxes, dtype=torch.float32).view(-1, 9),
            labels_3d=torch.tensor([0, 8][: len(boxes)]),
        )
        truths.append(truth)
    return {"inputs": inputs, "data_samples": truths}


def test_raw_maps_come_by_task_and_name():
    model = build().eval()
    batch = model.data_preprocessor(samples())
    with torch.no_grad():
        tasks = model(batch["inputs"])
    assert [maps["heatmap"].shape[1] for maps in tasks] == [1, 2, 2, 1, 2, 2]
    for maps in tasks:
        assert {name: value.shape[1] for name, value in maps.items()} == {
            **MAPS,
            "heatmap": maps["heatmap"].shape[1],
        }
        assert {value.shape[-2:] for value in maps.values()} == {(32, 32)}


def test_images_are_normalised_and_all_else_is_left():
    model, data = build(), samples()
    batch = model.data_preprocessor(data)
    assert batch["data_samples"] is not None
    imgs = batch["inputs"]["imgs"]
    assert imgs.shape == (2, 6, 3, *SIZE)
    assert imgs.dtype == torch.float32
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    first = data["inputs"][0]
    torch.testing.assert_close(imgs[0], (first["imgs"].float() - mean) / std)
    assert torch.equal(batch["inputs"]["intrins"][1], first["intrins"])
    stacked = {name: torch.stack([one[name] for one in data["inputs"]]) for name in first}
    again = model.data_preprocessor({"inputs": stacked})
    assert torch.equal(again["inputs"]["imgs"], imgs)
    assert again["data_samples"] is None


def test_losses_come_by_task_and_part_and_training_lowers_them():
    model, data = build(), samples()
    model.init_weights()
    batch = model.data_preprocessor(data, training=True)
    losses = model(**batch, mode="loss")
    assert list(losses) == [f"task{i}.loss_{part}" for i in range(6) for part in PARTS]
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    # scores begin low, so that empty cells cost little
    assert losses["task0.loss_heatmap"] < 20
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]

    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        total = sum(model(**batch, mode="loss").values())
        total.backward()
        optimizer.step()
    assert total < sum(losses.values())


def test_a_scene_without_boxes_teaches_that_there_is_nothing():
    model = build()
    losses = model(**model.data_preprocessor(samples(1, boxes=())), mode="loss")
    assert losses["task0.loss_heatmap"] > 0
    assert losses["task0.loss_xy"] == 0
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_predictions_are_data_samples():
    model, data = build().eval(), samples()
    with torch.no_grad():
        found = model.test_step(data)
        alone = model.predict(model.data_preprocessor(samples())["inputs"])
    assert len(found) == len(alone) == 2
    for sample in found:
        boxes = sample.pred_instances_3d
        assert boxes.bboxes_3d.shape == (len(boxes), 9)
        assert boxes.labels_3d.dtype == torch.int64
        assert boxes.scores_3d.min() > 0.1
        assert sample.gt_instances_3d is not None
    assert torch.equal(alone[1].pred_instances_3d.bboxes_3d, found[1].pred_instances_3d.bboxes_3d)


def test_its_backbone_is_what_skips():
    model = build(pruning_ratios=0.5, rank_over="batch")
    names = SparsityHandle(model).space.names
    assert list(names) == [f"img_backbone.stages.{i}" for i in range(4)]
    assert model.img_backbone.rank_over == "batch"


class Exported(nn.Module):
    """All of the model but the boxes, its cameras an input or fixed."""

    def __init__(self, model, cameras=None):
        super().__init__()
        self.model = copy.copy(model)
        self.model._modules = {
            **model._modules,
            "img_backbone": exported(model.img_backbone),
        }
        self.cells = None if cameras is None else model.img_view_transformer.cells(cameras)

    def forward(self, imgs, *cameras):
        model = self.model
        if self.cells is None:
            return model({"imgs": imgs, **dict(zip(Cameras._fields, cameras, strict=True))})
        view = model.img_view_transformer
        seen = view.splat(*view.lift(model.image_encoder(imgs)), self.cells)
        return model.pts_bbox_head(model.bev_encoder(seen))


@pytest.mark.parametrize("fixed", [False, True], ids=["given cameras", "fixed cameras"])
def test_a_graph_computes_the_same(fixed):
    model = build(depths=[1, 1, 1, 1], pruning_ratios=0.3, rank_over="batch").eval()
    cameras = Cameras.of(cameras_around(6, SIZE))
    imgs = torch.randn(1, 6, 3, *SIZE)
    arguments = (imgs,) if fixed else (imgs, *cameras)
    whole = Exported(model, cameras if fixed else None).eval()
    program = torch.export.export(whole, arguments, strict=False).module()
    # other cameras, where they are given
    moved = cameras if fixed else cameras._replace(trans=cameras.trans + 3)
    other = torch.randn(1, 6, 3, *SIZE)
    with torch.no_grad():
        got = program(other) if fixed else program(other, *moved)
        expected = model({"imgs": other, **moved._asdict()})
    for maps, wanted in zip(got, expected, strict=True):
        for name, value in wanted.items():
            torch.testing.assert_close(maps[name], value, rtol=1e-4, atol=1e-5)


# --- mistakes -------------------------------------------------------------------------------------


def test_a_grid_that_is_not_the_targets_is_refused():
    cfg = small_bevdet()
    cfg["train_cfg"]["pts"]["grid_size"] = [128, 128, 40]
    model = MODELS.build(cfg)
    with pytest.raises(UserError, match=r"\(32, 32\).*\(16, 16\)"):
        model(**model.data_preprocessor(samples()), mode="loss")


def test_sides_that_are_no_multiple_of_the_stride_are_refused():
    model = build()
    with pytest.raises(UserError, match="FPN_LSS cannot join"):
        model.image_encoder(torch.randn(1, 2, 3, 80, 128))


def test_heads_that_make_no_box_are_refused():
    cfg = small_bevdet()
    del cfg["pts_bbox_head"]["common_heads"]["vel"]
    with pytest.raises(UserError, match="common_heads"):
        MODELS.build(cfg)


def test_a_kind_of_block_that_is_not_known_is_refused():
    with pytest.raises(UserError, match="block_type"):
        MODELS.build({"type": "ResNetForBEVDet", "numC_input": 8, "block_type": "Wide"})


# --- encoders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_type", ["Basic", "BottleNeck"])
def test_stages_halve_the_map_and_double_its_channels(block_type):
    described = {"type": "ResNetForBEVDet", "numC_input": 8, "block_type": block_type}
    encoder = MODELS.build(described)
    maps = encoder(torch.randn(2, 8, 16, 16))
    assert [tuple(one.shape) for one in maps] == [(2, 16, 8, 8), (2, 32, 4, 4), (2, 64, 2, 2)]
    some = MODELS.build({**described, "backbone_output_ids": [2], "with_cp": True})
    some.load_state_dict(encoder.state_dict())
    x = torch.randn(2, 8, 16, 16, requires_grad=True)
    (last,) = some(x)
    torch.testing.assert_close(last, encoder(x)[2])
    last.sum().backward()
    assert x.grad.abs().sum() > 0


def test_the_neck_has_a_lateral_convolution_where_one_is_wanted():
    neck = MODELS.build(
        {
            "type": "FPN_LSS",
            "in_channels": 24,
            "out_channels": 4,
            "lateral": 8,
            "scale_factor": 2,
            "input_feature_index": (0, 1),
        }
    )
    assert neck([torch.randn(2, 8, 4, 4), torch.randn(2, 16, 2, 2)]).shape == (2, 4, 8, 8)
    names = {name.rsplit(".", 1)[0] for name, _ in neck.named_parameters()}
    assert {"lateral_conv.0", "lateral_conv.1", "conv.3", "up2.1", "up2.4"} <= names
