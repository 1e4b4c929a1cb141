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

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from shared.record import account, destination, merged, write
from shared.segmentors import SEGMENTORS, Segmentors
from shared.whole import in_parts, in_runtime

from sparsevit.data.spec import parse_size
from sparsevit.errors import UserError
from sparsevit.latency.backends import prepare
from sparsevit.tasks.logits import compare
from sparsevit.tasks.segmentation.backends import BACKENDS, prepare_segmentor

BACKBONE = "backbone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = (BACKBONE, *SEGMENTORS)
    parser.add_argument("--models", nargs="+", default=list(models), choices=models)
    parser.add_argument("--backends", nargs="*", default=list(BACKENDS), choices=list(BACKENDS))
    parser.add_argument("--img-size", default="1024x512", metavar="WxH")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--merge", action="store_true", help="keep other rows of the file")
    parser.add_argument("--output", help="JSON file, or - for none")
    arguments = parser.parse_args()
    width, height = parse_size(arguments.img_size)
    torch.manual_seed(0)
    told = account()
    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    wrong: list[str] = []
    for name in arguments.models:
        models = Segmentors(
            SEGMENTORS[next(iter(SEGMENTORS)) if name == BACKBONE else name],
            (arguments.batch_size, 3, height, width),
        )
        subject = Backbone(models) if name == BACKBONE else Whole(models)
        for backend in arguments.backends:
            row = f"{name} {backend}"
            try:
                results[row] = in_runtime(row, backend, subject, arguments.rounds, wrong)
            except UserError as error:
                left_out[row] = str(error)
                print(f"{row}: left out. {error}", flush=True)
        if name != BACKBONE:
            results[f"{name} parts"] = in_parts(
                name, subject, models.kind.parts, models.batch, arguments.rounds
            )
    result: dict[str, Any] = {
        **told,
        "img_size": [height, width],
        "batch_size": arguments.batch_size,
        "left_out": left_out,
        "results": results,
    }
    file = destination("segmentation", arguments.output)
    if arguments.merge and file.exists():
        result = merged(json.loads(file.read_text()), result, ("img_size", "batch_size"))
    write("segmentation", result, arguments.output)
    if wrong:
        raise SystemExit("Not timed:\n" + "\n".join(wrong))


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
