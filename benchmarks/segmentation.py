"""UPerNet and Mask2Former with Swin-T in every runtime: mmseg's dense models and ours, paired.

    python benchmarks/segmentation.py               # writes benchmarks/results/segmentation.json
    python benchmarks/segmentation.py --models UPerNet --backends openvino --merge   # that row anew
    python benchmarks/segmentation.py --img-size 256x128 --rounds 3 --output -

fp32, on images of the generated dataset, with random weights: a segmentor's work does not depend on
what it finds. Timed are the backbone, which both models share, and each whole segmentor, images in,
logits of every pixel out. Within a runtime one call of each in turn, mmseg's dense one in eager
PyTorch always among them. What differs from eager is not timed, and the exit code is 1 in the end.
Then the parts of each segmentor in eager, timed from within, with what comes before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from shared.segmentors import SEGMENTORS, Segmentors
from shared.whole import Timed, measure, options

from sparsevit.data.spec import parse_size
from sparsevit.latency.backends import prepare
from sparsevit.tasks.logits import compare
from sparsevit.tasks.segmentation.backends import BACKENDS, prepare_segmentor

BACKBONE = "backbone"


def main() -> None:
    parser = options(__doc__, (BACKBONE, *SEGMENTORS), tuple(BACKENDS), "1024x512")
    parser.add_argument("--batch-size", type=int, default=1)
    given = parser.parse_args()
    width, height = parse_size(given.img_size)
    shape = (given.batch_size, 3, height, width)
    settings = {"img_size": [height, width], "batch_size": given.batch_size}
    measure("segmentation", given, subjects(given.models, shape), settings)


def subjects(names: Sequence[str], shape: tuple[int, int, int, int]) -> Iterator[Timed]:
    for name in names:
        if name == BACKBONE:
            yield Timed(name, Backbone(Segmentors(next(iter(SEGMENTORS.values())), shape)))
        else:
            models = Segmentors(SEGMENTORS[name], shape)
            yield Timed(name, Whole(models), models.kind.parts, models.batch)


class Backbone:
    """What is timed: images in, feature maps out.

    Args:
        models: whose backbones.
    """

    library = "mmseg"

    def __init__(self, models: Segmentors) -> None:
        self.dense, self.sparse = models.dense.backbone, models.sparse.backbone
        self.backbone, self.inputs = self.sparse, models.images

    def prepared(self, backend: str, model: Any) -> Callable[[torch.Tensor], Any]:
        return prepare(backend, model, self.inputs[0])

    def difference(self, found: Any, expected: Any) -> float:
        pairs = zip(found, expected, strict=True)
        return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


class Whole:
    """What is timed: images in, logits of every pixel out.

    Args:
        models: mmseg's and ours.
    """

    library = "mmseg"

    def __init__(self, models: Segmentors) -> None:
        self.dense, self.sparse = models.dense, models.sparse
        self.backbone, self.inputs = models.sparse.backbone, models.images

    def prepared(self, backend: str, model: Any) -> Callable[[torch.Tensor], Any]:
        return prepare_segmentor(backend, model, self.inputs[0])

    def difference(self, found: Any, expected: Any) -> float:
        return compare(found, expected).logits


if __name__ == "__main__":
    main()
