"""Labelled images: the datasets of mmpretrain that have them, and the metrics of classifiers."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsevit.atomic import write_atomic
from sparsevit.data.images import image_fault
from sparsevit.errors import UserError, shortened

TOPK = (1, 5)
TOP1 = "top1"
HEADLINES = {f"top{k}": f"top-{k}" for k in TOPK}
"""Metrics in percent, as mmpretrain names them -> as people do."""

_READ = ("CustomDataset", "ImageNet", "ImageNet21k")
_THREADS, _NAMED = 8, 3
_MOST_OPENED = 50_000
"""Images of a set that are looked at before a run; of larger ones so many, spread over the set. Any
other that is broken is named when its turn comes."""


def known_metrics(evaluator: Any) -> tuple[str, ...]:
    """Names of the metrics that an evaluator will give, as far as it is known before it runs.

    Args:
        evaluator: ``val_evaluator`` of a config.

    Returns:
        ``top1`` and so on of one ``Accuracy``; nothing of others.
    """
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    if len(metrics) != 1 or not _is_type(metrics[0], ("Accuracy",)) or "thrs" in metrics[0]:
        return ()
    return tuple(f"top{k}" for k in _topk(metrics[0]))


_CLASSES = "sparsevit_classes"


def score_classes(metric: Any) -> None:
    """Have an ``Accuracy`` keep the top-1 of the images of every class; others are left alone."""
    from mmpretrain.evaluation import Accuracy

    if type(metric) is not Accuracy:
        return
    of_all = metric.compute_metrics
    found: dict[str, float] = {}
    setattr(metric, _CLASSES, found)

    def compute_metrics(results: Sequence[Mapping[str, Any]]) -> Any:
        classes = metric.dataset_meta.get("classes") or ()
        right, images = [0] * len(classes), [0] * len(classes)
        for one in results:
            label = int(one["gt_label"])
            guess = one["pred_score"].argmax() if "pred_score" in one else one["pred_label"]
            if label < len(classes):
                images[label] += 1
                right[label] += int(guess) == label
        found.clear()
        for name, hits, count in zip(classes, right, images, strict=True):
            found[name] = 100 * hits / count if count else math.nan
        return of_all(results)

    metric.compute_metrics = compute_metrics


def class_scores(metrics: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Top-1 by class of what was evaluated last, in percent: NaN where a class has no image."""
    found: dict[str, float] = {}
    for metric in metrics:
        found |= getattr(metric, _CLASSES, {})
    return {TOP1: found} if found else {}


@dataclass(frozen=True)
class _Labelled:
    """The images of a dataset: where they are, (name, label) of each, and names of classes."""

    config: Any
    folder: Path
    images: Sequence[tuple[str, int]]
    classes: tuple[str, ...]


def check_data(cfg: Any, splits: Sequence[str], copies: Path | None = None) -> tuple[str, ...]:
    """See :meth:`sparsevit.tasks.Task.check_data`.

    Raises:
        UserError: a folder is missing or has no classes, splits disagree on them, an image cannot
            be read, a label is no class, or the head or a metric has another number of classes.
    """
    said, seen = [], None
    for split in splits:
        loader = cfg.get(f"{split}_dataloader") or {}
        for one in _datasets(loader.get("dataset")):
            found = _read(one, f"{split}_dataloader.dataset")
            _check_classes(cfg, found, split)
            if seen is not None and found.classes != seen.classes:
                raise _disagree(seen, found)
            seen = found
            faults = _faults(found, deeply=copies is not None)
            if not faults:
                continue
            few = [f"{found.folder / name} {wrong}" for name, wrong in faults.items()][:_NAMED]
            more = f"; and {len(faults) - len(few)} more" if len(faults) > len(few) else ""
            told = (
                f"{len(faults)} of {len(found.images)} images in {found.folder} cannot be used "
                f"({'; '.join(few)}{more})."
            )
            if copies is None or len(faults) == len(found.images):
                remedy = "" if copies is not None else ", or leave them out: --skip-broken"
                raise UserError(told, f"Mend or remove them{remedy}.")
            _leave_out(found, faults, copies)
            said.append(f"left out: {told}")
    return tuple(said)


def _datasets(dataset: Any) -> Iterator[Any]:
    """Those whose images lie in folders of classes, or are listed with their labels."""
    if isinstance(dataset, dict):
        if _is_type(dataset, _READ):
            yield dataset
        yield from _datasets(dataset.get("dataset"))
        yield from _datasets(dataset.get("datasets"))
    elif isinstance(dataset, (list, tuple)):
        for one in dataset:
            yield from _datasets(one)


def _read(dataset: Any, where: str) -> _Labelled:
    """What mmpretrain's own dataset reads."""
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import DATASETS

    with DefaultScope.overwrite_default_scope("mmpretrain"):
        built = DATASETS.build({**dataset, "pipeline": [], "lazy_init": True})
    folder, listed = Path(built.img_prefix), built.ann_file
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}, where the config has its images.",
            f"Correct data_root or data_prefix of {where}.",
        )
    if listed and not Path(listed).is_file():
        raise UserError(
            f"There is no file {listed}, where the config has the labels.",
            f"Correct ann_file of {where}, or leave it out where the images lie in folders of "
            "classes.",
        )
    if not listed and built.with_label:
        _check_folders(folder, built.CLASSES, where)
    try:
        found = built.load_data_list()
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(
            f"{listed} is no list of images and labels: {shortened(str(error))}.",
            "Write a line for each image: its path, a space, and the number of its class from 0.",
        ) from error
    if not found:
        raise UserError(f"{listed or folder} has no image.", f"Correct {where}.")
    names = [os.path.relpath(info["img_path"], folder) for info in found]
    labels = [int(info.get("gt_label", 0)) for info in found]
    return _Labelled(
        dataset, folder, list(zip(names, labels, strict=True)), tuple(built.CLASSES or ())
    )


def _check_folders(folder: Path, classes: Sequence[str] | None, where: str) -> None:
    folders = sorted(one.name for one in os.scandir(folder) if one.is_dir())
    if not folders:
        raise UserError(
            f"{folder} has no folder for a class.",
            "Put the images of each class into a folder of its name, or list images and labels in "
            f"a file, ann_file of {where}.",
        )
    if classes is not None and len(classes) != len(folders):
        raise UserError(
            f"{folder} has {len(folders)} folders of classes, and {where} names {len(classes)} "
            "classes.",
            f"Correct metainfo.classes of {where}, or use type=CustomDataset, which takes the "
            "folders' names.",
        )


def _check_classes(cfg: Any, found: _Labelled, split: str) -> None:
    count = len(found.classes)
    name, label = max(found.images, key=lambda image: image[1])
    if not count:
        count = label + 1
    elif label >= count:
        raise UserError(
            f"{found.folder / name} has the label {label}, and there are {count} classes, counted "
            "from 0.",
            "Correct the list of labels or metainfo.classes of the dataset.",
        )
    for key in ("head", "data_preprocessor"):
        asked = (cfg.model.get(key) or {}).get("num_classes")
        # without names, there may be more classes than are seen
        if asked is not None and (asked != count if found.classes else asked < count):
            raise UserError(
                f"model.{key}.num_classes is {asked}, and {found.folder} has {count} classes.",
                f"Set model.{key}.num_classes={count}, or correct the dataset.",
            )
    for number, metric in enumerate(_metrics(cfg.get(f"{split}_evaluator"))):
        most = max(_topk(metric)) if _is_type(metric, ("Accuracy",)) else 1
        if most > count:
            several = isinstance(cfg[f"{split}_evaluator"], (list, tuple))
            key = f"{split}_evaluator{f'.{number}' if several else ''}"
            raise UserError(
                f"{key} asks for the top-{most} accuracy, and there are {count} classes.",
                f"Set {key}.topk=[1].",
            )


def _disagree(one: _Labelled, other: _Labelled) -> UserError:
    odd = sorted(set(one.classes) ^ set(other.classes))
    what = f"{shortened(', '.join(odd))} in one of them only" if odd else "their order differs"
    return UserError(
        f"{one.folder} and {other.folder} have different classes: {what}.",
        "Give both a folder for each class, or name the same metainfo.classes in both.",
    )


def _faults(found: _Labelled, *, deeply: bool) -> dict[str, str]:
    """What is wrong with images, of those with which something is."""
    step = 1 if deeply else -(-len(found.images) // _MOST_OPENED)
    names = [name for name, _ in found.images[::step]]

    def look(name: str) -> str | None:
        return image_fault(found.folder / name, whole=deeply)

    with ThreadPoolExecutor(_THREADS) as threads:
        wrong = zip(names, threads.map(look, names), strict=True)
        return {name: fault for name, fault in wrong if fault is not None}


def _leave_out(found: _Labelled, faults: Mapping[str, str], copies: Path) -> None:
    """Point a dataset to a list of the images that stay."""
    kept = [(name, label) for name, label in found.images if name not in faults]
    text = "".join(f"{name} {label}\n" for name, label in kept)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    listed = copies.resolve() / f"images-{digest}.txt"
    copies.mkdir(parents=True, exist_ok=True)
    if not listed.is_file():
        write_atomic(listed, text)
    found.config["ann_file"] = str(listed)
    if found.classes:
        found.config["metainfo"] = {"classes": found.classes}


def _metrics(evaluator: Any) -> Sequence[Any]:
    if isinstance(evaluator, (list, tuple)):
        return evaluator
    return [] if evaluator is None else [evaluator]


def _topk(metric: Mapping[str, Any]) -> tuple[int, ...]:
    topk = metric.get("topk", 1)
    return tuple(topk) if isinstance(topk, (list, tuple)) else (topk,)


def _is_type(part: Any, names: Sequence[str]) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return getattr(kind, "__name__", str(kind).rpartition(".")[2]) in names
