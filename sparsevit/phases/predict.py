"""What a model finds in images, videos and what a camera sees: drawn, and as data."""

from __future__ import annotations

import contextlib
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from sparsevit.atomic import write_atomic
from sparsevit.data.images import decoded
from sparsevit.data.media import Media, VideoFile, find_media, unique_name
from sparsevit.engine.evaluation import Evaluation, split_of
from sparsevit.engine.image_size import test_pipeline, type_name
from sparsevit.engine.mistakes import config_mistakes
from sparsevit.engine.quiet import quiet_libraries
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.latency.execution import Execution
from sparsevit.latency.timer import synchronize
from sparsevit.phases.budgets import named_best
from sparsevit.phases.device import pick_device
from sparsevit.phases.evaluate import executed
from sparsevit.phases.exported import Exported
from sparsevit.phases.inputs import (
    Inputs,
    PathLike,
    check_splits,
    gather_inputs,
    open_workspace,
    phase_run,
    record_of,
    require_checkpoint,
)
from sparsevit.phases.picture import draw_sparsity, drawn, save, side_by_side
from sparsevit.phases.sparsity import choose_sparsity
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity import Configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import Task, task_of
from sparsevit.tasks.base import LEAST_SCORE
from sparsevit.workspace import Workspace

SPARSE, DENSE = "sparse", "dense"
RESULTS = "predictions.json"
_RECORDED = 8
"""Pictures that are among the outputs of a run."""
IMAGES = 8
"""Of the validation set that are shown where no image is given."""


@dataclass(frozen=True)
class PredictResult:
    """What was found, and where the pictures are.

    Attributes:
        task: that the model is for, such as ``detection``.
        out: folder of the pictures and of ``predictions.json``.
        files: all that was written, in order.
        images: of each image or frame ``id``, ``file``, ``frame`` of a video, ``width``,
            ``height`` and ``milliseconds``, and ``dense_milliseconds`` where it was compared: of
            one call of the model, its preparation of the image and what follows it included.
        predictions: what was found, an entry each, as COCO's result files have it.
        milliseconds: median of the sparse calls.
        dense_milliseconds: of the dense ones; None where it was not compared.
        frames_per_second: that a video, or all images, went through with, reading, drawing and
            writing included; None of a single image.
        sparsity, sparsity_source: the configuration, and where it came from.
        dense_source: whose weights the dense model has.
        config_source, checkpoint: what the model is made of.
        scope, backend, precision, device: what executed it.
        seconds: all of it.
    """

    task: str
    out: Path
    files: list[Path]
    images: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    milliseconds: float
    dense_milliseconds: float | None
    frames_per_second: float | None
    sparsity: dict[str, float]
    sparsity_source: str
    dense_source: str | None
    config_source: str
    checkpoint: Path
    scope: str
    backend: str
    precision: str
    device: str
    seconds: float


def predict(
    images: Sequence[str] = (),
    *,
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    workspace: PathLike | None = None,
    out: PathLike | None = None,
    sparsity: PathLike | None = None,
    budget: str | None = None,
    dense: bool = False,
    exported: PathLike | None = None,
    overrides: Sequence[str] = (),
    compare: bool = False,
    windows: bool = False,
    show: Callable[[np.ndarray, bool], bool] | None = None,
    frames: int | None = None,
    split: str | None = None,
    least_score: float = LEAST_SCORE,
    skip_broken: bool = False,
    force: bool = False,
    scope: str = "backbone",
    backend: str = "eager",
    precision: str = "fp32",
    device: str | None = None,
    reporter: Reporter = SILENT,
) -> PredictResult:
    """Run a model on images, and draw what it finds.

    Args:
        images: files, folders of images, videos, numbers of cameras, addresses of streams; the
            first of the validation set where there are none.
        config, checkpoint, workspace, sparsity, budget, dense, overrides: as of
            :func:`sparsevit.phases.evaluate.evaluate`; where the config has no sparsity, the
            workspace's best counts.
        out: folder to write to; that of the run where None.
        exported: a file of ``sparsevit export`` that executes the backbone, or the whole model, at
            its own sparsity; a ``.pt2`` is compiled code, which runs as it is loaded.
        compare: run the dense model too, and draw them side by side: with the weights of
            pretraining where the workspace has them, else with the same weights at ratio 0.
        windows: also draw what is skipped, of each image and of the first frame of a video.
        show: is given each drawn picture, (H, W, 3) uint8 RGB, and whether more follow at once;
            returns whether to go on. Nothing is drawn into files then, unless ``out`` is given.
        frames: of a video or a camera at most; of the validation set the first N images, 8 where
            None.
        split: whose images are taken where none are given.
        least_score: objects are drawn from this score; the results have all.
        skip_broken: leave images out that cannot be read.
        force: replace pictures that are there already.
        scope, backend, precision, device: what executes the model.
        reporter: is told what happens.

    Raises:
        UserError: an input is missing or wrong, or something would be overwritten.
    """
    started = time.perf_counter()
    ws = open_workspace(workspace)
    file = None if exported is None else Exported.read(exported)
    if file is not None:
        if sparsity is not None or budget is not None or dense:
            raise UserError(
                f"{file.path.name} is at the sparsity that it was exported at.",
                "Leave out --sparsity, --budget and --dense, or --exported.",
            )
        scope, sparsity = file.scope, file.sidecar
    how = Execution(scope, backend, precision, device=pick_device(device)).require()
    media = find_media(images, skip_broken, reporter.note)
    sparsity = named_best(ws, sparsity, budget)
    inputs = gather_inputs(
        *(ws, "predict", config, checkpoint, overrides), data=not media, reporter=reporter
    )
    task = task_of(inputs.cfg)
    task.require_scope(scope)
    weights = require_checkpoint(inputs, "predict")
    source: _Source = (
        _Given(inputs, task, media, frames, reporter)
        if media
        else _OfSplit(inputs, split, frames or IMAGES, skip_broken, reporter)
    )
    best = ws.best_configuration()
    chosen = choose_sparsity(inputs, sparsity, best, dense=dense, reporter=reporter)
    if file is not None and file.weights != ws.file_digest(weights):
        reporter.note(f"{file.path.name} was made of other weights than {weights}")
    given = record_of(
        *(ws, inputs),
        {
            "images": list(images) or f"{source.split} split",
            "sparsity": chosen.configuration.to_dict(),
            **{"scope": scope, "backend": backend, "precision": precision},
            **({} if file is None else {"exported": file.path.name}),
        },
    )
    folder = None if out is None else _folder(Path(out), source.names(windows), force)
    model, _ = build_model(inputs.cfg, weights, how.device)
    settings = [_Setting(SPARSE, model, chosen.configuration)]
    dense_source = None
    if compare:
        other, dense_source = _dense(ws, inputs, checkpoint, how, reporter)
        settings.insert(0, _Setting(DENSE, other))
    make = None if file is None else file.loader(task, how.device)
    with phase_run(ws, "predict", given, force=True) as run, contextlib.ExitStack() as stack:
        for one in settings:
            by = make if one.name == SPARSE else None
            stack.enter_context(executed(task, one.model, how, reporter, by))
        work = _Work(
            *(task, settings, folder or run.directory, source, least_score, windows),
            draws=show is None or folder is not None,
            show=show,
        )
        try:
            work.through()
        finally:
            # a camera is stopped by Ctrl-C: what was seen until then counts
            if work.images and work.draws:
                work.finish()
        result = PredictResult(
            task=task.name,
            out=work.out,
            files=work.files,
            images=work.images,
            predictions=work.predictions,
            milliseconds=work.median("milliseconds"),
            dense_milliseconds=work.median("dense_milliseconds") if compare else None,
            frames_per_second=work.rate(),
            sparsity=chosen.configuration.to_dict(),
            sparsity_source=chosen.source,
            dense_source=dense_source,
            config_source=inputs.config_source,
            checkpoint=weights,
            scope=scope,
            backend=backend,
            precision=precision,
            device=str(how.device),
            seconds=time.perf_counter() - started,
        )
        run.update(
            metrics={"images": len(work.images), "predictions": len(work.predictions)},
            # pictures elsewhere are the user's, to move and to delete
            outputs={
                path.stem: path
                for path in (*work.files[-1:], *work.files[: 0 if folder else _RECORDED])
            },
        )
    return result


# --- where images come from ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    """An image, ready for a model: ``loaded`` is what the test pipeline gives of it."""

    name: str
    file: str
    frame: int | None
    pixels: np.ndarray
    loaded: dict[str, Any]


class _Source:
    """Images, with what is known of their data.

    Attributes:
        meta: names of the classes and their colours.
        categories: COCO's number of each class.
        split: whose images they are.
    """

    meta: dict[str, Any]
    categories: Sequence[int]
    split = ""

    def names(self, windows: bool) -> list[str]:
        """The files that are to be written."""
        raise NotImplementedError

    def samples(self) -> Iterator[_Sample]:
        """One after another."""
        raise NotImplementedError

    def rate(self, name: str) -> float | None:
        """Frames a second of a video, where it says so."""
        return None


class _Given(_Source):
    """Images that the user names, through the config's own test pipeline."""

    def __init__(
        self, inputs: Inputs, task: Task, media: list[Media], most: int | None, reporter: Reporter
    ) -> None:
        if task.views > 1:
            raise UserError(
                f"A sample of this {task.whole} is {task.views} images of calibrated cameras: "
                "single images cannot be given.",
                "Leave them out: the validation set is drawn then, or give --split test.",
            )
        self._media = {one.name: one for one in media}
        self._most, self._tell = most, reporter.note
        self._steps = _steps(inputs.cfg, task)
        self.meta = _named(task.metainfo(inputs.cfg), task)
        self.categories = range(1, len(self.meta["classes"]) + 1)

    def names(self, windows: bool) -> list[str]:
        files = [f"{one.name}{'.mp4' if one.moving else '.png'}" for one in self._media.values()]
        return [*files, *(f"{name}.windows.png" for name in self._media if windows)]

    def rate(self, name: str) -> float | None:
        return self._media[name].rate

    def samples(self) -> Iterator[_Sample]:
        number = 0
        for one in self._media.values():
            for frame, pixels in enumerate(one.frames(self._tell, self._most)):
                number += 1
                loaded = self._steps(
                    {
                        "img": pixels,
                        "img_path": str(one.source),
                        "img_id": number,
                        "img_shape": pixels.shape[:2],
                        "ori_shape": pixels.shape[:2],
                        "height": pixels.shape[0],
                        "width": pixels.shape[1],
                    }
                )
                at = frame if one.moving else None
                yield _Sample(one.name, str(one.source), at, pixels[..., ::-1], loaded)


class _OfSplit(_Source):
    """The first images of a split of the config."""

    def __init__(
        self, inputs: Inputs, split: str | None, most: int, skip_broken: bool, reporter: Reporter
    ) -> None:
        self.split = split_of(inputs.cfg, split)
        check_splits(inputs, self.split, skip_broken=skip_broken, reporter=reporter)
        self._dataset: Any = Evaluation(inputs.cfg, most, split=self.split).loader.dataset
        task = task_of(inputs.cfg)
        self.meta = _named(dict(self._dataset.metainfo), task)
        numbers = range(1, len(self.meta["classes"]) + 1)
        self.categories = getattr(self._dataset, "cat_ids", None) or numbers
        names: set[str] = set()
        self._files = [self._file(index) for index in range(len(self._dataset))]
        self._names = [unique_name(Path(file), names) for file in self._files]

    def names(self, windows: bool) -> list[str]:
        more = [f"{name}.windows.png" for name in self._names if windows]
        return [*(f"{name}.png" for name in self._names), *more]

    def samples(self) -> Iterator[_Sample]:
        for index, (name, file) in enumerate(zip(self._names, self._files, strict=True)):
            pixels = decoded(Path(file))
            yield _Sample(name, file, None, pixels[..., ::-1], self._dataset[index])

    def _file(self, index: int) -> str:
        info = self._dataset.get_data_info(index)
        path = info.get("img_path") or next(iter(info["images"].values()))["img_path"]
        return str(path)


def _steps(cfg: Config, task: Task) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The config's test pipeline for an image that is read already."""
    init_default_scope(cfg.get("default_scope", task.scope))
    steps = test_pipeline(cfg) or cfg.get("test_pipeline")
    if not steps:
        raise UserError(
            "The config has no test pipeline, so it is not known how it wants its images.",
            "Add test_dataloader with a pipeline.",
        )
    read = [step for step in copy.deepcopy(steps) if not type_name(step["type"]).startswith("Load")]
    with quiet_libraries(), config_mistakes(cfg, "The test pipeline"):
        pipeline = Compose(read)

    def prepared(image: dict[str, Any]) -> dict[str, Any]:
        with config_mistakes(cfg, "The test pipeline"):
            made: dict[str, Any] = pipeline(image)
        return made

    return prepared


_UNNAMED = 1000


def _named(meta: dict[str, Any], task: Task) -> dict[str, Any]:
    classes = meta.get("classes") or [f"class {number}" for number in range(_UNNAMED)]
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    return {
        **meta,
        "classes": classes,
        "palette": meta.get("palette") or task.palette(len(classes)),
    }


# --- the work -----------------------------------------------------------------------------------


class _Setting:
    """A model at a sparsity, before a backend takes the place of its backbone.

    Args:
        name: ``sparse`` or ``dense``.
        model: in evaluation mode.
        configuration: to run it at; None: dense.
    """

    def __init__(self, name: str, model: Any, configuration: Configuration | None = None) -> None:
        self.name, self.model = name, model
        handle = SparsityHandle(model, required=False)
        handle.set(handle.space.dense() if configuration is None else configuration)
        # the same modules, whatever stands in for one of them in the model later
        self.plain = copy.copy(model)
        self.plain._modules = dict(model._modules)


@dataclass
class _Work:
    """Images through the models, and what comes of them."""

    task: Task
    settings: list[_Setting]
    out: Path
    source: _Source
    least: float
    windows: bool
    draws: bool
    show: Callable[[np.ndarray, bool], bool] | None
    images: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    seconds: float = 0.0
    _warming: float = 0.0
    _warm: set[Any] = field(default_factory=set)

    def through(self) -> None:
        """Every image, in turn."""
        started = time.perf_counter()
        name, video = None, None
        with contextlib.ExitStack() as videos, torch.no_grad():
            for sample in self.source.samples():
                first, name = sample.name != name, sample.name
                if first:
                    videos.close()
                    if self.windows:
                        self._draw_windows(sample)
                began = time.perf_counter()
                picture = self._one(sample)
                moving = sample.frame is not None
                if self.draws and not moving:
                    self.files.append(save(picture, self.out / f"{name}.png"))
                elif self.draws:
                    if first:
                        # a camera's pictures are as far apart as this one took
                        rate = self.source.rate(name) or 1 / (time.perf_counter() - began)
                        self.files.append(self.out / f"{name}.mp4")
                        video = videos.enter_context(VideoFile(self.files[-1], rate))
                    assert video is not None
                    video.write(picture)
                self.seconds = time.perf_counter() - started - self._warming
                if self.show is not None and not self.show(picture, moving):
                    break

    def finish(self) -> None:
        """Write down what was found."""
        text = json.dumps(self.predictions)
        write_atomic(self.out / RESULTS, text + "\n")
        self.files.append(self.out / RESULTS)

    def median(self, name: str) -> float:
        """Of what every image has, in milliseconds."""
        return statistics.median(image[name] for image in self.images)

    def rate(self) -> float | None:
        """Images a second, all included."""
        return len(self.images) / self.seconds if len(self.images) > 1 else None

    def _one(self, sample: _Sample) -> np.ndarray:
        height, width = sample.pixels.shape[:2]
        image: dict[str, Any] = {"id": len(self.images) + 1, "file": sample.file}
        if sample.frame is not None:
            image["frame"] = sample.frame
        image.update(width=width, height=height)
        panels = {}
        for setting in self.settings:
            found, seconds = self._found(setting, sample)
            self.task.to_fp32([found])
            picture = drawn(self.task, found, sample.pixels, self.source.meta, self.least)
            milliseconds = 1000 * seconds
            panels[f"{setting.name}, {milliseconds:.0f} ms"] = picture
            image["dense_milliseconds" if setting.name == DENSE else "milliseconds"] = milliseconds
        image["id"] = found.metainfo.get("img_id", image["id"])
        self.images.append(image)
        classes = self.source.meta["classes"]
        for one in self.task.to_json(found.cpu()):
            entry = {"image_id": image["id"], **one}
            if isinstance(label := one.get("label"), int) and 0 <= label < len(classes):
                entry.update(category_id=int(self.source.categories[label]), name=classes[label])
            self.predictions.append(entry)
        return side_by_side(panels) if len(panels) > 1 else picture

    def _found(self, setting: _Setting, sample: _Sample) -> tuple[Any, float]:
        """What a model finds, and the seconds of one call; the first of a size is not timed."""
        device = next(setting.model.parameters()).device
        shape = self.task.pixels_of(sample.loaded["inputs"]).shape
        key = (setting.name, shape)
        for timed in (True,) if key in self._warm else (False, True):
            batch = {name: [value] for name, value in sample.loaded.items()}
            # predictions are written onto the samples
            batch["data_samples"] = [sample.loaded["data_samples"].clone()]
            synchronize(device)
            began = time.perf_counter()
            (found,) = setting.model.val_step(batch)
            synchronize(device)
            seconds = time.perf_counter() - began
            if not timed:
                self._warming += seconds
                self._warm.add(key)
        return found, seconds

    def _draw_windows(self, sample: _Sample) -> None:
        setting = self.settings[-1]
        path = self.out / f"{sample.name}.windows.png"
        if draw_sparsity(self.task, setting.plain, sample.loaded, path) is None:
            raise UserError(
                "What this model skips cannot be drawn: nothing of it depends on the image.",
                "Leave out --windows.",
            )
        self.files.append(path)


def _dense(
    ws: Workspace,
    inputs: Inputs,
    checkpoint: PathLike | None,
    how: Execution,
    reporter: Reporter,
) -> tuple[Any, str]:
    """The dense model to compare with, and whose weights it has."""
    trained = None if checkpoint is not None else ws.resolve_checkpoint(None, ("pretrain",))
    if trained is None:
        weights, source = inputs.checkpoint, "the same weights, at ratio 0"
    else:
        weights, source = trained.path, trained.source_text
    reporter.note(f"dense: {weights} ({source})")
    return build_model(inputs.cfg, weights, how.device)[0], source


def _folder(out: Path, names: Sequence[str], force: bool) -> Path:
    """Make the folder to write to.

    Raises:
        UserError: it cannot be made, or something is there already.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = [out / name for name in (*names, RESULTS) if (out / name).exists()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"Nothing can be written to {out}: {reason}.", "Choose another folder with --out."
        ) from error
    if taken and not force:
        more = f", and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise UserError(
            f"{taken[0]} is already there{more}.",
            "Choose another folder with --out, or replace what is there with --force.",
        )
    return out
