"""The size of the images that a config's test pipeline gives to the model."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from mmengine.runner import Runner

from sparsevit.engine.mistakes import config_mistakes
from sparsevit.engine.quiet import quiet_libraries
from sparsevit.tasks import task_of

Size = tuple[int, int]
"""(height, width) in pixels."""

# Images that are read, at most, and annotations that are looked at to choose them.
IMAGES = 8
_ANNOTATIONS = 2000

# Where no image can be had: a pipeline that makes all of these one size makes any image that size.
_PROBES: tuple[Size, ...] = ((480, 640), (640, 480), (512, 512), (375, 1100))

# Steps that read an image or its annotations, and those that wrap up the result.
_NOT_GEOMETRY = ("Load", "Pack", "InferencerLoader")


@dataclass(frozen=True)
class PipelineSizes:
    """What the test pipeline gives, padded as the model pads it.

    Attributes:
        counts: (height, width) -> how many of the images that were tried; empty where it is not
            known.
        source: for people: what they were told from.
        missing: why the images themselves could not be used; empty where they were.
    """

    counts: Mapping[Size, int]
    source: str
    missing: str = ""


def pipeline_sizes(cfg: Config, images: int = IMAGES) -> PipelineSizes:
    """The sizes that the test pipeline of a config gives to the model.

    The pipeline of the test set, or where it is not there of the validation set, is run on a few
    images, of as many sizes as the annotations name. An image that cannot be read is replaced by
    an empty one of its annotated size. Without any data, the size is known where the pipeline makes
    every image the same size, or resizes to a square.

    Args:
        cfg: of a task.
        images: how many to read at most.

    Raises:
        UserError: the pipeline or the preprocessor cannot be built.
    """
    task = task_of(cfg)
    fixed = task.fixed_size(cfg)
    if fixed is not None:
        return PipelineSizes(Counter([fixed]), "the model takes no other")
    init_default_scope(cfg.get("default_scope", task.scope))
    pad = padding(cfg)
    missing = "the config has no test or validation set"
    for split, name in (("test", "test set"), ("val", "validation set")):
        described = (cfg.get(f"{split}_dataloader") or {}).get("dataset")
        if not described:
            continue
        try:
            with quiet_libraries():
                dataset = Runner.build_dataloader(
                    {
                        "dataset": copy.deepcopy(described),
                        "batch_size": 1,
                        "num_workers": 0,
                        "sampler": {"type": "DefaultSampler", "shuffle": False},
                    }
                ).dataset
                counts = Counter(pad(size) for size in _of_dataset(dataset, images))
        except Exception as error:  # whatever a dataset raises, it is told with the size
            missing = f"the {name} cannot be read ({type(error).__name__}: {_one_line(error)})"
            continue
        if counts:
            several = "s" if counts.total() > 1 else ""
            return PipelineSizes(counts, f"{counts.total()} image{several} of the {name}")
        missing = f"the {name} has no image"
    return _without_images(cfg, test_pipeline(cfg), pad, missing)


def _without_images(
    cfg: Config, pipeline: Any, pad: Callable[[Size], Size], missing: str
) -> PipelineSizes:
    if not pipeline:
        return PipelineSizes({}, "", missing)
    embedded = cfg.get("embedded_dataset")
    probes = _PROBES
    if embedded and {"width", "height"} <= set(embedded):
        probes = ((int(embedded["height"]), int(embedded["width"])),)
    with quiet_libraries(), config_mistakes(cfg, "The test pipeline"):
        steps = [
            TRANSFORMS.build(copy.deepcopy(step)) for step in pipeline if is_geometry(step["type"])
        ]
    found = {pad(size) for size in filter(None, (_empty_through(steps, p) for p in probes))}
    if len(found) == 1:
        return PipelineSizes(Counter(found), "the test pipeline", missing)
    side = next(filter(None, map(_square, pipeline)), None)
    if side is not None:
        return PipelineSizes(
            Counter([pad((side, side))]), "the scale of the test pipeline", missing
        )
    return PipelineSizes({}, "", missing)


def _of_dataset(dataset: Any, images: int) -> Iterator[Size]:
    """What the pipeline makes of images of a dataset."""
    for index in _of_every_size(dataset, images):
        try:
            inputs = dataset[index]["inputs"]
            yield int(inputs.shape[-2]), int(inputs.shape[-1])
        except Exception:  # an image that cannot be read is another's to tell
            size = _annotated(dataset, index)
            steps = [
                step for step in _transforms_of(dataset, index) if is_geometry(type(step).__name__)
            ]
            made = None if size is None else _empty_through(steps, size)
            if made is None:
                raise
            yield made


def _of_every_size(dataset: Any, images: int) -> list[int]:
    """Numbers of a few images, of different annotated sizes as long as there are such."""
    length = len(dataset)
    by_size: dict[Size | None, list[int]] = {}
    for index in range(0, length, max(1, length // _ANNOTATIONS)):
        by_size.setdefault(_annotated(dataset, index), []).append(index)
    chosen: list[int] = []
    while len(chosen) < min(images, length) and any(by_size.values()):
        for same in by_size.values():
            if same and len(chosen) < images:
                # from anywhere among them: files are often in order
                chosen.append(same.pop(len(same) // 2))
    return chosen


def _annotated(dataset: Any, index: int) -> Size | None:
    info = dataset.get_data_info(index)
    try:
        return int(info["height"]), int(info["width"])
    except (KeyError, TypeError, ValueError):
        return None


def _transforms_of(dataset: Any, index: int) -> list[Any]:
    pipeline = getattr(dataset, "pipeline", None)
    if pipeline is None and hasattr(dataset, "_get_ori_dataset_idx"):
        # mmengine's concatenation
        part, _ = dataset._get_ori_dataset_idx(index)
        return _transforms_of(dataset.datasets[part], index)
    if pipeline is None and hasattr(dataset, "dataset"):
        return _transforms_of(dataset.dataset, index)
    return list(getattr(pipeline, "transforms", None) or ())


def test_pipeline(cfg: Config) -> Any:
    """The pipeline of the test set, or where there is none of the validation set; None without."""
    loaders = (cfg.get(f"{split}_dataloader") or {} for split in ("test", "val"))
    found = (_pipeline_of(loader.get("dataset")) for loader in loaders)
    return next(filter(None, found), None)


def _pipeline_of(described: Any) -> Any:
    """The pipeline of a dataset's config, which another one may wrap."""
    while described and not described.get("pipeline"):
        inner = described.get("dataset") or described.get("datasets")
        described = inner[0] if isinstance(inner, (list, tuple)) and inner else inner
    return described.get("pipeline") if described else None


def _empty_through(steps: Iterable[Callable[[Any], Any]], size: Size) -> Size | None:
    """What size the steps give an empty image; None where they need more than an image."""
    try:
        results: Any = {
            "img": np.zeros((*size, 3), np.uint8),
            "img_shape": size,
            "ori_shape": size,
            "height": size[0],
            "width": size[1],
        }
        with quiet_libraries():
            for step in steps:
                results = step(results)
        height, width = results["img"].shape[:2]
        return int(height), int(width)
    except Exception:  # a step of any library, given less than it is used to
        return None


def padding(cfg: Config) -> Callable[[Size], Size]:
    """What the model's preprocessor makes of the size of an image that is alone in its batch."""
    described = cfg.model.get("data_preprocessor")
    if not described:
        return lambda size: size
    task = task_of(cfg)
    with quiet_libraries(), config_mistakes(cfg, "The data_preprocessor"):
        preprocessor: Any = task.build(copy.deepcopy(described))

    def padded(size: Size) -> Size:
        with quiet_libraries(), config_mistakes(cfg, "The data_preprocessor"):
            made = preprocessor(task.random_batch(1, size), False)["inputs"]
        return int(made.shape[-2]), int(made.shape[-1])

    return padded


def is_geometry(kind: Any) -> bool:
    """Whether a type of step changes an image, rather than read it or wrap up the result."""
    return not type_name(kind).startswith(_NOT_GEOMETRY)


def type_name(kind: Any) -> str:
    """The name of a config's ``type``, a name or a class, without its scope."""
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return name.rpartition(".")[2]


def _square(step: Any) -> int | None:
    """The side of the square that a step resizes to."""
    scale = step.get("scale") if str(step.get("type", "")).endswith("Resize") else None
    if isinstance(scale, int):
        return scale
    if isinstance(scale, (list, tuple)) and len(scale) == 2 and scale[0] == scale[1]:
        return int(scale[0])
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
