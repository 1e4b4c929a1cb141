"""Writes a file for a runtime, and compares it with eager PyTorch before it gets its name."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sparsevit.data.scene import layout, paint
from sparsevit.data.spec import DatasetSpec
from sparsevit.errors import UserError
from sparsevit.latency.backends import prepare
from sparsevit.latency.backends.artefacts import Format
from sparsevit.latency.backends.base import DetectorRun, Run
from sparsevit.latency.backends.detector import prepare_detector
from sparsevit.latency.backends.graph import output_names
from sparsevit.models.detections import Agreement, agreement
from sparsevit.models.two_stage import output_shapes

LARGEST_DIFFERENCE = 1e-3
"""A file whose feature maps differ by more than this from eager ones is not kept."""

LARGEST_DETECTION_DIFFERENCES = {"boxes": 0.1, "scores": 1e-3, "masks": 1e-2}
"""As much may detections differ: boxes in pixels, scores and mask probabilities."""

ATTEMPTS = 3
DETECTIONS_TO_COMPARE = 20
CPU = torch.device("cpu")

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Checked:
    """A file that agrees.

    Attributes:
        files: all that belongs to it.
        differences: the largest of each kind of output.
        outputs: name -> shape.
        compared: detections that were compared; None for a backbone.
        threshold: score from which detections were compared, where not that of the config.
    """

    files: list[Path]
    differences: dict[str, float]
    outputs: dict[str, list[int]]
    compared: int | None = None
    threshold: float | None = None


def write_backbone(
    form: Format[Run], backbone: nn.Module, shape: tuple[int, ...], target: Path
) -> Checked:
    """Write a backbone, and keep the file if its feature maps are eager PyTorch's.

    Raises:
        UserError: they are not, or the file cannot be written.
    """
    with _staged(target) as folder:
        eager = prepare("eager", backbone, _noise(shape, 0))
        expected = eager(_noise(shape, 0))
        staged = form.write(backbone, _noise(shape, 0), folder / target.name)
        run = _on(form.load(staged, "fp32", torch.device(form.device)), form.device)
        difference = _difference(run, eager, shape)
        if not difference <= LARGEST_DIFFERENCE:
            raise _differs(form.name, f"{difference:.2g}")
        files = _moved(folder, staged, target)
    names = output_names(backbone, len(expected))
    shapes = {name: list(one.shape) for name, one in zip(names, expected, strict=True)}
    return Checked(files, {"feature maps": difference}, shapes)


def write_detector(
    form: Format[DetectorRun], model: Any, shape: tuple[int, ...], target: Path
) -> Checked:
    """Write a whole detector, and keep the file if it finds what eager mmdet finds.

    They are compared on drawn pictures. Where the detector finds nothing in them that scores high
    enough, a second file with a lower threshold is written and compared in its place, so that no
    file passes without detections.

    Raises:
        UserError: they differ, the detector is of a kind that is not known, or the file cannot be
            written.
    """
    with _staged(target) as folder:
        eager = prepare_detector("eager", model, pictures(model, shape, 0))
        staged = form.write(model, pictures(model, shape, 0), folder / target.name)
        found = _agreement(form.load(staged, "fp32", CPU), eager, model, shape)
        threshold = None
        if found.compared == 0 and found.unmatched == 0:
            with _lower_threshold(model, eager, shape) as threshold, _other(folder) as second:
                lower = form.write(model, pictures(model, shape, 0), second / target.name)
                found = _agreement(form.load(lower, "fp32", CPU), eager, model, shape)
        if found.compared == 0 and found.unmatched == 0:
            raise UserError(
                "The detector finds nothing in any picture, whatever the score threshold is.",
                "See that the checkpoint is one of a trained detector.",
            )
        if not _close(found):
            raise _differs(form.name, _said(found))
        files = _moved(folder, staged, target)
    shapes = output_shapes(model, shape[0])
    return Checked(files, found.differences(), shapes, found.compared, threshold)


# --- the file -------------------------------------------------------------------------------------


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside the target, that is gone afterwards."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}.",
            "Choose a folder that you may write to and that has space left.",
        ) from error


@contextmanager
def _other(folder: Path) -> Iterator[Path]:
    """A folder for what is only compared; within the first one, it would be moved with it."""
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as other:
        yield Path(other)


def _moved(folder: Path, staged: Path, target: Path) -> list[Path]:
    # what is loaded is moved last, so that it never stands there without its weights
    staged_files = sorted(folder.iterdir(), key=lambda path: path == staged)
    files = [target.with_name(path.name) for path in staged_files]
    for path, final in zip(staged_files, files, strict=True):
        os.replace(path, final)
    return files


def _differs(name: str, how: str) -> UserError:
    return UserError(
        f"The {name} file differs from eager PyTorch by {how}, and was removed.",
        "Please report it with the output of `sparsevit doctor`; another --format may do.",
    )


# --- backbones ------------------------------------------------------------------------------------


def _on(run: Run, device: str) -> Run:
    """The same for images and feature maps on the CPU."""
    return lambda images: [one.to(CPU) for one in run(images.to(device))]


def _difference(
    run: Callable[[Tensor], list[Tensor]],
    eager: Callable[[Tensor], list[Tensor]],
    shape: tuple[int, ...],
) -> float:
    """The largest difference on random images.

    Two windows may score so nearly the same that rounding decides which of them is kept, and then
    maps differ although nothing is wrong. That befalls an image, not a model: another one is tried.
    """
    found = math.inf
    for attempt in range(ATTEMPTS):
        images = _noise(shape, seed=attempt + 1)
        maps, expected = run(images), eager(images)
        if [one.shape for one in maps] != [one.shape for one in expected]:
            return math.inf
        gaps = [(a - b).abs().max().item() for a, b in zip(maps, expected, strict=True)]
        # max() would let NaN pass
        worst = math.inf if any(map(math.isnan, gaps)) else max(gaps)
        found = min(found, worst)
        if found <= LARGEST_DIFFERENCE:
            break
    return found


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Noise that grows from left to right, so that windows differ in how much they matter."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.linspace(0.5, 1.5, shape[-1])


# --- detectors ------------------------------------------------------------------------------------


def pictures(model: Any, shape: tuple[int, ...], seed: int) -> Tensor:
    """Drawn pictures with objects in them, normalised as the detector has it."""
    count, _, height, width = shape
    spec = DatasetSpec(train=1, val=max(1, count), width=width, height=height, seed=seed)
    drawn = [paint(spec, "val", index, layout(spec, "val", index)) for index in range(count)]
    pixels = torch.stack([torch.from_numpy(one) for one in drawn]).permute(0, 3, 1, 2).float()
    given = model.data_preprocessor
    if getattr(given, "_channel_conversion", False):
        pixels = pixels.flip(1)
    if not getattr(given, "_enable_normalize", False):
        return pixels
    return (pixels - given.mean.cpu()) / given.std.cpu()


def _agreement(
    run: DetectorRun, eager: DetectorRun, model: Any, shape: tuple[int, ...]
) -> Agreement:
    """On pictures of which the lower half is padding in every second attempt.

    Scores may be so nearly the same, as those of windows, that rounding decides which of two boxes
    suppresses the other. Then detections are without a match, and other pictures are tried.
    """
    for attempt in range(ATTEMPTS):
        images = pictures(model, shape, attempt + 1)
        sizes = torch.tensor([shape[-2:]] * shape[0], dtype=torch.float32)
        if attempt % 2:
            sizes[:, 0] = shape[-2] // 2
            images[:, :, shape[-2] // 2 :] = 0
        found = agreement(run(images, sizes), eager(images, sizes))
        if _close(found):
            break
    return found


def _close(found: Agreement) -> bool:
    within = all(
        found.differences()[kind] <= limit
        for kind, limit in LARGEST_DETECTION_DIFFERENCES.items()
        if kind in found.differences()
    )
    return within and found.unmatched == 0 and found.compared > 0


def _said(found: Agreement) -> str:
    if found.unmatched:
        return f"{found.unmatched} of {found.unmatched + found.compared} detections"
    return ", ".join(f"{value:.2g} in {kind}" for kind, value in found.differences().items())


@contextmanager
def _lower_threshold(model: Any, eager: DetectorRun, shape: tuple[int, ...]) -> Iterator[float]:
    """The detector with a score threshold that leaves some detections, in between two scores."""
    cfg = model.roi_head.test_cfg
    before = cfg.score_thr
    try:
        cfg.score_thr = 0.0
        scores = torch.cat([one.scores for one in eager(pictures(model, shape, 1))])
        best = scores.sort(descending=True).values[: DETECTIONS_TO_COMPARE + 1]
        cfg.score_thr = float((best[-1] + best[-2]) / 2) if len(best) > 1 else 0.0
        yield cfg.score_thr
    finally:
        cfg.score_thr = before
