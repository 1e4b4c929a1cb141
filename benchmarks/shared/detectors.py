"""Mask R-CNN with Swin-T, dense and ours, and images of the generated dataset for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsevit.data.scene import layout, paint
from sparsevit.data.spec import DatasetSpec
from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.datasets import provide_embedded
from sparsevit.engine.quiet import quiet_libraries
from sparsevit.engine.runner import build_model

DENSE = "sparsevit::swin/mask_rcnn_swin-t_1x.py"
DATASET = "sparsevit::demo/mask_rcnn_swin_shapes.py"
# Standard deviation of a RoI's class scores before the softmax. Fresh heads score all classes
# alike, so that nothing passes the threshold and the mask head is never run.
SPREAD = 3.0


def build_pair() -> tuple[Any, Any]:
    """mmdet's detector and ours, of mmdet's own config, with the same random weights."""
    cfg = load_config(DENSE)
    dense, _ = build_model(cfg)
    sparse, _ = build_model(sparsify_config(cfg))
    sparse.load_state_dict(dense.state_dict())
    return dense, sparse


def spread_class_scores(detector: Any, batch: dict[str, Any]) -> None:
    """Scale the classifier so that its scores differ as a trained one's do.

    Then the heads after it have all the work that the test settings allow.
    """
    scores: list[Tensor] = []
    classifier = detector.roi_head.bbox_head.fc_cls
    with torch.no_grad():
        hook = classifier.register_forward_hook(lambda *told: scores.append(told[2]))
        detector.test_step(batch)
        hook.remove()
        classifier.weight.mul_(SPREAD / torch.cat(scores).std(dim=1).mean())


def spec(img_size: int, images: int) -> DatasetSpec:
    """The generated dataset at an image size; objects grow with it."""
    classes = tuple(load_config(DATASET).classes)
    return DatasetSpec(
        train=images,
        val=images,
        width=img_size,
        height=img_size,
        objects=(5, 9),
        classes=classes,
        seed=0,
    )


def test_batch(img_size: int, batch_size: int) -> dict[str, Any]:
    """What ``detector.test_step`` takes: uint8 images and what they are."""
    from mmdet.structures import DetDataSample

    described = spec(img_size, batch_size)
    inputs, samples = [], []
    for index in range(batch_size):
        image = paint(described, "val", index, layout(described, "val", index))
        inputs.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
        shape = (img_size, img_size)
        info = {"img_id": index, "img_shape": shape, "ori_shape": shape}
        samples.append(DetDataSample(metainfo={**info, "scale_factor": (1.0, 1.0)}))
    return {"inputs": inputs, "data_samples": samples}


def training_batch(folder: Path, img_size: int, batch_size: int) -> dict[str, Any]:
    """A batch of the demo's training dataloader, at another image size.

    Args:
        folder: where the dataset is made.
    """
    from mmengine.runner import Runner

    smallest, largest = spec(img_size, 1).size_range()
    cfg = load_config(
        DATASET,
        [
            f"embedded_dataset.train={max(batch_size, 4)}",
            "embedded_dataset.val=1",
            f"embedded_dataset.width={img_size}",
            f"embedded_dataset.height={img_size}",
            "embedded_dataset.objects=(5,9)",
            f"embedded_dataset.object_size=({smallest:.0f},{largest:.0f})",
            f"train_dataloader.batch_size={batch_size}",
        ],
    )
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform["type"] == "Resize":
            transform["scale"] = (img_size, img_size)
    provide_embedded(cfg, folder)
    with quiet_libraries():
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        batch: dict[str, Any] = next(iter(loader))
    return batch


def backbone_of(detector: nn.Module) -> Any:
    """The detector's backbone."""
    return detector.get_submodule("backbone")
