"""Models of other libraries, dense as they come and made sparse by ``sparsify``.

    python benchmarks/sparsify.py                        # writes benchmarks/results/sparsify.json
    python benchmarks/sparsify.py --models timm/swin_tiny --rounds 5 --output -
    python benchmarks/sparsify.py --models timm/swin_tiny --merge

All run eagerly on the same weights and image, one call of each in turn; at ratio 0 outputs are
compared first.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from shared.huggingface_models import HUGGING_FACE
from shared.huggingface_models import call as call_hugging_face
from shared.record import account, destination, interleave, merged, summary, write
from shared.swin import random_images
from torch import nn

from sparsevit import sparsify
from sparsevit.latency.cost import gmacs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))
import vision_libraries

RATIOS = {"ours dense": 0.0, "ours 60%": 0.6}
LARGEST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Subject:
    """A model to time.

    Attributes:
        build: side of the image in pixels -> the model, with random weights.
        visible: within this context its library can be imported.
        img_size: side of the image; ``--img-size`` where None. For models of one size.
        call: (model, images) -> its outputs, as a list of tensors.
    """

    build: Callable[[int], nn.Module]
    visible: Callable[[], AbstractContextManager[None]] = nullcontext
    img_size: int | None = None
    call: Callable[[nn.Module, torch.Tensor], list[torch.Tensor]] = lambda model, x: [model(x)]


def vision() -> AbstractContextManager[None]:
    """Where timm and torchvision are: in the folder of their own, or installed as usual."""
    return vision_libraries.visible() if vision_libraries.FOLDER.is_dir() else nullcontext()


def timm(name: str) -> Subject:
    def build(img_size: int) -> nn.Module:
        from timm import create_model

        return create_model(name, img_size=img_size)

    return Subject(build, vision)


def torchvision(name: str) -> Subject:
    def build(img_size: int) -> nn.Module:
        from torchvision.models import get_model

        return get_model(name)

    return Subject(build, vision)


MODELS: dict[str, Subject] = {
    "timm/swin_tiny": timm("swin_tiny_patch4_window7_224"),
    "timm/swinv2_tiny": timm("swinv2_tiny_window8_256"),
    "torchvision/swin_t": torchvision("swin_t"),
    "torchvision/swin_v2_t": torchvision("swin_v2_t"),
    **{
        name: Subject(build, img_size=side, call=call_hugging_face)
        for name, (build, side) in HUGGING_FACE.items()
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--img-size", type=int, default=672)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", help="JSON file, or - for none")
    parser.add_argument("--merge", action="store_true", help="keep the other models of the file")
    arguments = parser.parse_args()

    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in arguments.models:
        try:
            results[name] = measured(MODELS[name], arguments)
        except ImportError as error:
            left_out[name] = f"not installed: {error}"
            print(f"{name}: {left_out[name]}")
            continue
        for row, found in results[name]["rows"].items():
            median, speedup = found["median_ms"], found["speedup"]
            print(f"{name:<24}{row:<14}{median:>9.1f} ms  {speedup:.2f}x  {found['gmacs']} GMACs")
    with vision():
        told = account()
    result = {
        **told,
        "img_size": arguments.img_size,
        "batch_size": arguments.batch_size,
        "results": results,
        "left_out": left_out,
    }
    if arguments.merge:
        earlier = json.loads(destination("sparsify", arguments.output).read_text())
        result = merged(earlier, result, settings=("img_size", "batch_size"))
    write("sparsify", result, arguments.output)


@torch.no_grad()
def measured(subject: Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    """One model, dense and at each ratio."""
    img_size = subject.img_size or arguments.img_size
    images = random_images(arguments.batch_size, img_size)
    torch.manual_seed(0)
    with subject.visible():
        dense = subject.build(img_size).eval()
        models = {"dense": dense}
        for name, ratio in RATIOS.items():
            models[name] = sparsify(copy.deepcopy(dense), ratio)
        calls = {name: called(subject, model, images) for name, model in models.items()}
        difference = max(
            float((ours - theirs).abs().max())
            for ours, theirs in zip(calls["ours dense"](), calls["dense"](), strict=True)
        )
        assert difference < LARGEST_DIFFERENCE, difference
        macs = {name: gmacs(call) for name, call in calls.items()}
        # left where every window is skipped: patches, merging, blocks that see the whole map
        rest = gmacs(called(subject, sparsify(copy.deepcopy(dense), 0.999), images))
        samples = interleave(calls, arguments.rounds)
    rows = {name: summary(taken, against=samples["dense"]) for name, taken in samples.items()}
    for name, row in rows.items():
        row["gmacs"] = round(macs[name], 2)
    return {
        "img_size": img_size,
        "largest_difference": difference,
        "share_fixed": round(rest / macs["dense"], 3),
        "rows": rows,
    }


def called(
    subject: Subject, model: nn.Module, images: torch.Tensor
) -> Callable[[], list[torch.Tensor]]:
    return lambda: subject.call(model, images)


if __name__ == "__main__":
    main()
