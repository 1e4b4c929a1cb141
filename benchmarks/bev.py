"""BEVDet with Swin-T in every runtime: with mmdet's dense Swin in it and with ours, paired.

    python benchmarks/bev.py                        # writes benchmarks/results/bev.json
    python benchmarks/bev.py --models backbone --backends openvino --merge   # that row anew
    python benchmarks/bev.py --img-size 128x64 --rounds 3 --output -

fp32, six cameras, on drawn pictures, with random weights: the work does not depend on what is
found. Timed are the backbone on the six images, and the whole BEVDet, images and cameras in, the
head's maps out. Within a runtime one call of each in turn, the dense one in eager PyTorch always
among them. What differs from eager is not timed, and the exit code is 1 in the end. Then the parts
of a whole call in eager, timed from within, with the boxes that are decoded in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from shared.whole import Timed, measure, options

from sparsevit.data.spec import parse_size
from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.runner import build_model
from sparsevit.latency.backends import prepare
from sparsevit.tasks import TASKS
from sparsevit.tasks.bev.backends import BACKENDS, prepare_bevdet
from sparsevit.tasks.bev.export import difference
from sparsevit.tasks.pictures import pictures

CONFIG = "sparsevit::bevdet/bevdet_swin-t.py"
BACKBONE, WHOLE = "backbone", "BEVDet"
PICTURES = 3
PARTS = (
    ("preprocessing", "data_preprocessor", "forward"),
    ("backbone", "img_backbone", "forward"),
    ("neck", "img_neck", "forward"),
    ("lift and splat", "img_view_transformer", "forward"),
    ("BEV encoder", "img_bev_encoder_backbone", "forward"),
    ("BEV encoder", "img_bev_encoder_neck", "forward"),
    ("head", "pts_bbox_head", "forward"),
    ("boxes", "pts_bbox_head", "predict"),
)


def main() -> None:
    given = options(__doc__, (BACKBONE, WHOLE), tuple(BACKENDS), "704x256").parse_args()
    width, height = parse_size(given.img_size)
    settings = {"img_size": [height, width], "cameras": TASKS["bev"].views}
    measure("bev", given, subjects(given.models, height, width), settings)


def subjects(names: Sequence[str], height: int, width: int) -> Iterator[Timed]:
    models = Models(height, width)
    for name in names:
        if name == BACKBONE:
            yield Timed(name, Backbone(models))
        else:
            yield Timed(name, models, PARTS, models.batch)


class Models:
    """BEVDet with mmdet's Swin and with ours, the same random weights: images and cameras in, the
    head's maps out.

    Args:
        height, width: of an image.

    Attributes:
        batch: what ``test_step`` takes.
    """

    library = "mmdet"

    def __init__(self, height: int, width: int) -> None:
        size = f"[{height},{width}]"
        cfg = load_config(CONFIG, [f"model.img_view_transformer.data_config.input_size={size}"])
        self.dense: Any = build_model(cfg)[0]
        self.sparse: Any = build_model(sparsify_config(cfg))[0]
        self.sparse.load_state_dict(self.dense.state_dict())
        self.backbone = self.sparse.img_backbone
        bev = TASKS["bev"]
        shape = (bev.views, 3, height, width)
        batches = [
            bev.batch_of(pictures(self.dense, shape, seed).to(torch.uint8))
            for seed in range(PICTURES)
        ]
        self.batch = batches[0]
        self.inputs = [self.dense.data_preprocessor(one, False)["inputs"] for one in batches]

    def prepared(self, backend: str, model: Any) -> Callable[[Any], Any]:
        return prepare_bevdet(backend, model, self.inputs[0])

    def difference(self, found: Any, expected: Any) -> float:
        return max(
            difference(one[name], other[name])
            for one, other in zip(found, expected, strict=True)
            for name in other
        )


class Backbone:
    """The same models' backbones: the six images in, two maps out.

    Args:
        models: whose.
    """

    library = "mmdet"

    def __init__(self, models: Models) -> None:
        self.dense, self.sparse = models.dense.img_backbone, models.backbone
        self.backbone = models.backbone
        self.inputs = [one["imgs"].flatten(0, 1) for one in models.inputs]

    def prepared(self, backend: str, model: Any) -> Callable[[Any], Any]:
        return prepare(backend, model, self.inputs[0])

    def difference(self, found: Any, expected: Any) -> float:
        return max(difference(a, b) for a, b in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
