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
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from shared.parts import at_ratios, parts_of, shares, split_in_turn
from shared.record import account, destination, interleave, merged, summary, taken, write
from shared.segmentors import SEGMENTORS, Segmentors
from shared.swin import CONFIGURATIONS

from sparsevit.data.spec import parse_size
from sparsevit.errors import UserError
from sparsevit.latency.backends import prepare
from sparsevit.latency.cost import gmacs
from sparsevit.tasks.logits import Agreement, compare
from sparsevit.tasks.segmentation.backends import BACKENDS, prepare_segmentor

REFERENCE = "mmseg eager"
PEER = "mmseg dense"
SHOWN = ("dense", "cfg1", "cfg2", "60%")
BACKBONE = "backbone"
LARGEST = 1e-3
"""Difference from eager, against the largest value."""


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
                results[row] = in_backend(row, backend, subject, arguments.rounds, wrong)
            except UserError as error:
                left_out[row] = str(error)
                print(f"{row}: left out. {error}", flush=True)
        if name != BACKBONE:
            results[f"{name} parts"] = in_parts(name, models, arguments.rounds)
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

    def __init__(self, models: Segmentors) -> None:
        self.dense, self.sparse = models.dense.backbone, models.sparse.backbone
        self.backbone, self.images = self.sparse, models.images

    def prepared(self, backend: str, model: Any) -> Callable[[torch.Tensor], Any]:
        return prepare(backend, model, self.images[0])

    def agreement(self, found: Any, expected: Any) -> Agreement:
        pairs = zip(found, expected, strict=True)
        gaps = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
        return Agreement(max(gaps), 0.0)


class Whole:
    """What is timed: images in, logits of every pixel out.

    Args:
        models: mmseg's and ours.
    """

    def __init__(self, models: Segmentors) -> None:
        self.dense, self.sparse = models.dense, models.sparse
        self.backbone, self.images = models.sparse.backbone, models.images

    def prepared(self, backend: str, model: Any) -> Callable[[torch.Tensor], Any]:
        return prepare_segmentor(backend, model, self.images[0])

    def agreement(self, found: Any, expected: Any) -> Agreement:
        return compare(found, expected)


def in_backend(
    row: str, backend: str, subject: Backbone | Whole, rounds: int, wrong: list[str]
) -> dict[str, Any]:
    """Times in one runtime, dense and at each configuration.

    Raises:
        UserError: the runtime cannot be had here.
    """
    image = subject.images[0]
    reference = subject.prepared("eager", subject.dense)
    calls: dict[str, Callable[[], Any]] = {REFERENCE: lambda: reference(image)}
    macs = {REFERENCE: gmacs(calls[REFERENCE])}
    agreements, missing = {}, {}
    for route in (PEER, *(f"ours {name}" for name in SHOWN)):
        model = subject.dense if route == PEER else subject.sparse
        if route != PEER:
            subject.backbone.pruning_ratios = CONFIGURATIONS[route.removeprefix("ours ")]
        # ours at ratio 0 is held against mmseg's own
        peer = reference if "dense" in route else subject.prepared("eager", model)
        macs[route] = gmacs(lambda peer=peer: peer(image))
        try:
            run = subject.prepared(backend, model)
            found = closest(subject, run, peer)
        except UserError:
            raise
        except Exception as error:  # a compiler or converter raises whatever it likes
            missing[route] = f"{type(error).__name__}: {error}"[:500]
        else:
            agreements[route] = asdict(found)
            if found.logits <= LARGEST:
                calls[route] = lambda run=run: run(image)
            else:
                missing[route] = f"differs from eager: {found}"
        if route in missing:
            wrong.append(f"{row}, {route}: {missing[route]}")
            print(wrong[-1], flush=True)
    samples = interleave(calls, rounds)
    print(f"\n{row}", flush=True)
    return {
        "taken": taken(),
        "agreement": agreements,
        "missing": missing,
        "rows": {name: figures(name, samples, macs[name]) for name in samples},
    }


def closest(subject: Backbone | Whole, run: Any, peer: Any) -> Agreement:
    """On the first images on which they agree: rounding may decide which of two windows is kept."""
    for images in subject.images:
        found = subject.agreement(run(images), peer(images))
        if found.logits <= LARGEST:
            break
    return found


def figures(name: str, samples: Mapping[str, list[float]], macs: float) -> dict[str, Any]:
    """One route against the dense peer in the same runtime, and in eager."""
    row = summary(samples[name], against=samples.get(PEER))
    row["speedup_over_eager"] = summary(samples[name], samples[REFERENCE])["speedup"]
    row["gmacs"] = round(macs, 2)
    print(
        f"  {name:<14}{row['median_ms']:>9.1f} ms  {row.get('speedup', 0):.2f}x  "
        f"{row['speedup_over_eager']:.2f}x eager  {macs:.0f} GMACs",
        flush=True,
    )
    return row


def in_parts(name: str, models: Segmentors, rounds: int) -> dict[str, Any]:
    """Where the time of a whole ``test_step`` goes, in eager."""
    parts = parts_of(models.dense, models.kind.parts)
    watched = {PEER: parts}
    calls: dict[str, Callable[[], Any]] = {PEER: lambda: models.dense.test_step(models.batch)}
    for shown in SHOWN:
        calls[f"ours {shown}"] = at_ratios(
            models.sparse.backbone,
            CONFIGURATIONS[shown],
            lambda: models.sparse.test_step(models.batch),
        )
        watched[f"ours {shown}"] = parts_of(models.sparse, models.kind.parts)
    samples = split_in_turn(calls, watched, rounds)
    rows = {}
    for route, found in samples.items():
        rows[route] = {**summary(found[""], against=samples[PEER][""]), "parts": shares(found)}
        print(f"\n{name}, {route}: {rows[route]['median_ms']:.1f} ms")
        for part, figure in rows[route]["parts"].items():
            print(f"  {part:<28}{figure['median_ms']:>9.2f} ms  {figure['share']:>6.1%}")
    return {"taken": taken(), "rows": rows}


if __name__ == "__main__":
    main()
