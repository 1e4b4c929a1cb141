"""Checks of a detector's config against its data, before anything is built."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsevit.atomic import write_atomic
from sparsevit.data.coco import (
    Annotations,
    Fault,
    check_classes,
    load_json,
    named_faults,
    read_annotations,
    refuse_missing,
    shortened,
    shown,
)
from sparsevit.data.images import image_faults
from sparsevit.errors import UserError

# Heads with a number for each class of the data. Those of an RPN and of semantic maps differ.
_HEADS = ("bbox_head", "mask_head", "mask_iou_head")
_NOT_MODULES = ("train_cfg", "test_cfg", "rpn_head", "semantic_head", "init_cfg")
# In what heads that predict masks are called, or their types.
_MAKES_MASKS = re.compile(r"mask|panoptic|seg|solo|ins|yolact", re.IGNORECASE)
_LEAVE_OUT = "Mend them or remove them from the dataset, or leave them out with --skip-broken."


@dataclass
class _Data:
    """A COCO dataset of a config.

    Attributes:
        key: where it is in the config, dotted.
        cfg: what is there.
        path, folder: annotation file, and where its images are.
        classes: whose annotations are used.
        assumed: the config names no classes, so those are COCO's.
        masks: its pipeline loads masks.
        found: what its file holds; images that cannot be used are in ``faults``.
    """

    key: str
    cfg: Any
    path: Path
    folder: Path
    classes: tuple[str, ...]
    assumed: bool
    masks: bool
    found: Annotations
    faults: list[Fault]


@dataclass
class _Metric:
    """A COCO metric of a config that has an annotation file of its own."""

    key: str
    cfg: Any
    path: Path
    kinds: tuple[str, ...]
    found: Annotations


def check_data(cfg: Any, splits: Sequence[str], copies: Path | None = None) -> tuple[str, ...]:
    """See :meth:`sparsevit.tasks.Task.check_data`. Datasets other than COCO's are not looked at."""
    said: list[str] = []
    orders: dict[tuple[str, ...], str] = {}
    for split in splits:
        loader = cfg.get(f"{split}_dataloader") or {}
        key = f"{split}_dataloader.dataset"
        evaluators = [] if split == "train" else list(_metrics(cfg, split))
        scored = {path for _, _, path, _ in evaluators}
        data = [_read(key, one, scored) for key, one in _coco_datasets(key, loader.get("dataset"))]
        for one in data:
            _check_classes(cfg, one)
            if split == "train":
                _check_training(cfg, one)
            _agree_on_labels(orders, one.key, one.found, one.classes)
        metrics = [_read_metric(cfg, *one) for one in evaluators]
        for metric in metrics:
            for one in data:
                _check_metric(metric, one, alone=len(data) == 1)
                _agree_on_labels(orders, f"{metric.key}.ann_file", metric.found, one.classes)
        _check_images(data, metrics, leave_out=copies is not None)
        if copies is not None:
            said += _leave_out(data, metrics, copies)
    return tuple(said)


# --- what a config says of its data --------------------------------------------------------------


def _coco_datasets(key: str, dataset: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(dataset, dict):
        local = (dataset.get("backend_args") or {}).get("backend", "local") in ("local", "disk")
        if _is(dataset, "CocoDataset") and "ann_file" in dataset and local:
            yield key, dataset
        yield from _coco_datasets(f"{key}.dataset", dataset.get("dataset"))
        yield from _coco_datasets(f"{key}.datasets", dataset.get("datasets"))
    elif isinstance(dataset, (list, tuple)):
        for place, one in enumerate(dataset):
            yield from _coco_datasets(f"{key}.{place}", one)


def _metrics(cfg: Any, split: str) -> Iterator[tuple[str, Any, Path, tuple[str, ...]]]:
    """Key, config, annotation file and kinds of each COCO metric that has a file of its own."""
    evaluator = cfg.get(f"{split}_evaluator") or []
    several = isinstance(evaluator, (list, tuple))
    for place, one in enumerate(evaluator if several else [evaluator]):
        if not isinstance(one, dict) or not _is(one, "CocoMetric") or not one.get("ann_file"):
            continue
        if not _is_path(one["ann_file"]) or "://" in str(one["ann_file"]):
            continue
        kinds = one.get("metric", "bbox")
        kinds = tuple(kinds) if isinstance(kinds, (list, tuple)) else (kinds,)
        key = f"{split}_evaluator.{place}" if several else f"{split}_evaluator"
        yield key, one, Path(one["ann_file"]), kinds


def _is(cfg: Any, name: str) -> bool:
    return _name(cfg.get("type")) == name


def _name(kind: Any) -> str:
    """The name of a type without its scope; a config has the type itself or its name."""
    return str(getattr(kind, "__name__", str(kind).rpartition(".")[2]))


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _nested(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All that is in a value of a config, with its dotted key."""
    yield key, value
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for name, one in items:
        if name not in _NOT_MODULES:
            yield from _nested(one, f"{key}.{name}")


def _has(value: Any, key: str, wanted: Any) -> bool:
    return any(isinstance(one, Mapping) and one.get(key) == wanted for _, one in _nested(value))


# --- reading -------------------------------------------------------------------------------------


def _read(key: str, cfg: Any, scored: set[Path]) -> _Data:
    root, prefix = cfg.get("data_root") or "", cfg.get("data_prefix") or {}
    if not isinstance(prefix, Mapping):
        raise UserError(f"{key}.data_prefix is {prefix!r}.", "Write it as dict(img='FOLDER/').")
    inside = prefix.get("img", "")
    paths = {"data_root": root, "ann_file": cfg["ann_file"], "data_prefix.img": inside}
    for name, value in paths.items():
        if not _is_path(value):
            raise UserError(
                f"{key}.{name} is {value!r}, not a path.", f"Set {key}.{name} to a path."
            )
    path = Path(root, cfg["ann_file"])
    classes, assumed = _classes(key, cfg)
    masks = _has(cfg.get("pipeline"), "with_mask", True)
    needs = {"area"} | ({"iscrowd"} if path in scored else set())
    found = read_annotations(path, needs | ({"segmentation"} if masks else set()), masks)
    if masks and not found.summary.polygons + found.summary.rles:
        raise UserError(
            f"The annotations in {path} have no masks, and the pipeline of {key} loads masks "
            "(with_mask=True).",
            f"Set with_mask=False in {key}.pipeline, and use a model without a mask head and "
            "metric='bbox' in the evaluators; or give annotations with masks.",
        )
    used = {found.category_ids.get(name) for name in classes}
    faults = [fault for fault in found.faults if fault.category in used]
    return _Data(key, cfg, path, Path(root, inside), classes, assumed, masks, found, faults)


def _classes(key: str, cfg: Any) -> tuple[tuple[str, ...], bool]:
    metainfo = cfg.get("metainfo") or {}
    if not isinstance(metainfo, Mapping):
        raise UserError(f"{key}.metainfo is {metainfo!r}.", "Write it as dict(classes=(...)).")
    classes = metainfo.get("classes")
    if classes is None:
        from mmdet.datasets import CocoDataset

        return tuple(CocoDataset.METAINFO["classes"]), True
    if isinstance(classes, str) and os.path.isfile(classes):
        classes = Path(classes).read_text(encoding="utf-8").splitlines()
    names = classes if isinstance(classes, (list, tuple)) else ()
    if not names or not all(isinstance(name, str) for name in names):
        hint = f", such as {(classes,)!r}" if isinstance(classes, str) else ""
        raise UserError(
            f"{key}.metainfo.classes is {classes!r}, not a list of names.",
            f"Write it as a list or a tuple of strings{hint}.",
        )
    return tuple(names), False


def _read_metric(cfg: Any, key: str, one: Any, path: Path, kinds: tuple[str, ...]) -> _Metric:
    masks = "segm" in kinds
    if masks and not makes_masks(cfg.get("model")):
        raise UserError(
            f"{key}.metric asks for masks ('segm'), and the model has no mask head.",
            f"Set {key}.metric to 'bbox', or use a model with a mask head.",
        )
    needs = {"area", "iscrowd"} | ({"segmentation"} if masks else set())
    found = read_annotations(path, needs, masks)
    if masks and not found.summary.polygons + found.summary.rles:
        raise UserError(
            f"{key}.metric asks for masks ('segm'), and the annotations in {path} have none.",
            f"Set {key}.metric to 'bbox', or give annotations with masks.",
        )
    return _Metric(key, one, path, kinds, found)


def makes_masks(model: Any) -> bool:
    """Whether a model may predict masks: refused is only what certainly does not."""
    if not model:
        return True
    for key, part in _nested(model):
        name = re.sub(r"\.\d+$", "", key).rpartition(".")[2]
        if not isinstance(part, Mapping) or not name.endswith("head"):
            continue
        if _MAKES_MASKS.search(f"{name} {_name(part.get('type'))}"):
            return True
    # of a model with a RoI head the type says what it can do, not what it was given
    return "roi_head" not in model and bool(_MAKES_MASKS.search(_name(model.get("type"))))


# --- checks --------------------------------------------------------------------------------------


def _check_classes(cfg: Any, data: _Data) -> None:
    summary = data.found.summary
    if data.assumed and not set(data.classes) <= set(summary.categories):
        raise UserError(
            f"{data.key} has no metainfo.classes, so that COCO's 80 classes are assumed, and "
            f"{data.path} has {len(summary.categories)} others: {shortened(summary.categories)}.",
            f"Set {data.key}.metainfo to dict(classes={summary.categories[:20]!r}), and "
            f"num_classes of the heads to {len(summary.categories)}.",
        )
    check_classes(summary, data.classes)
    if not any(summary.per_category[name] for name in data.classes):
        raise UserError(
            f"None of the {summary.annotations} annotations in {data.path} is of the classes of "
            f"{data.key}: {shortened(data.classes)}.",
            f"Correct {data.key}.metainfo.classes, or {data.key}.ann_file.",
        )
    wanted = len(data.classes)
    for key, number, said in _numbers_of_classes(cfg.get("model")):
        if number != wanted:
            raise UserError(
                f"model{key}.num_classes is {number}{said}, and {data.key} has {wanted} "
                f"{'class' if wanted == 1 else 'classes'}: {shortened(data.classes)}.",
                f"Use --set model{key}.num_classes={wanted}, or correct "
                f"{data.key}.metainfo.classes.",
            )


def _numbers_of_classes(model: Any) -> Iterator[tuple[str, int, str]]:
    """Key of each head with a number for each class, how many classes it has, and who says so."""
    for key, head in _nested(model):
        name = re.sub(r"\.\d+$", "", key).rpartition(".")[2]
        if name not in _HEADS or not isinstance(head, Mapping) or head.get("class_agnostic"):
            continue
        if "num_classes" in head:
            if type(head["num_classes"]) is int:
                yield key, head["num_classes"], ""
        else:
            default = _default_classes(head.get("type"))
            if default is not None:
                yield key, default, " (its default)"


def _default_classes(kind: Any) -> int | None:
    if not isinstance(kind, type):
        from mmdet.registry import MODELS

        kind = MODELS.get(str(kind))
    for one in inspect.getmro(kind) if isinstance(kind, type) else ():
        parameter = inspect.signature(vars(one).get("__init__", one)).parameters.get("num_classes")
        if parameter is not None:
            return parameter.default if type(parameter.default) is int else None
    return None


def _check_training(cfg: Any, data: _Data) -> None:
    roi_head = (cfg.get("model") or {}).get("roi_head")
    loads = [one for _, one in _nested(data.cfg.get("pipeline")) if isinstance(one, Mapping)]
    loads = [one for one in loads if _is(one, "LoadAnnotations")]
    if isinstance(roi_head, Mapping) and roi_head.get("mask_head") and loads and not data.masks:
        raise UserError(
            f"model.roi_head.mask_head needs masks, and the pipeline of {data.key} loads none.",
            f"Set with_mask=True in {data.key}.pipeline, or train without the mask head: "
            "--set model.roi_head.mask_head=None.",
        )
    rules = data.cfg.get("filter_cfg")
    if not isinstance(rules, Mapping) or data.cfg.get("test_mode"):
        return
    found, smallest = data.found, rules.get("min_size", 0)
    kept = set(found.images)
    if rules.get("filter_empty_gt"):
        ids = [found.category_ids[name] for name in data.classes]
        kept &= frozenset().union(*(found.images_with.get(one, frozenset()) for one in ids))
    if isinstance(smallest, (int, float)):
        sizes = {one: min(found.images[one].width, found.images[one].height) for one in kept}
        kept = {one for one, size in sizes.items() if size >= smallest}
    if not kept:
        raise UserError(
            f"{data.key}.filter_cfg ({dict(rules)}) leaves none of the {len(found.images)} images "
            f"of {data.path}.",
            f"Lower min_size in {data.key}.filter_cfg, or correct {data.key}.metainfo.classes.",
        )


def _check_metric(metric: _Metric, data: _Data, alone: bool) -> None:
    check_classes(metric.found.summary, data.classes)
    if metric.path == data.path or not alone:
        return
    theirs, ours = metric.found, data.found
    strange = [one for one in ours.images.values() if theirs.images.get(one.id) != one]
    common = [one for one in ours.boxes if one in theirs.boxes]
    others = common and not any(ours.boxes[one] == theirs.boxes[one] for one in common)
    if not strange and not others:
        return
    what = "annotates the same images differently"
    if strange:
        what = f"does not have {len(strange)} of its images, e.g. {shown(strange[0].file_name)}"
    raise UserError(
        f"{metric.key}.ann_file is not of the split that {data.key} loads: {metric.path} {what}.",
        f"Set {metric.key}.ann_file to {data.path}.",
    )


def _agree_on_labels(
    orders: dict[tuple[str, ...], str], key: str, found: Annotations, classes: Sequence[str]
) -> None:
    """mmdet numbers classes as the file does, so files must agree."""
    order = tuple(name for name in found.category_ids if name in classes)
    orders.setdefault(order, key)
    for other, first in orders.items():
        if sorted(other) == sorted(order) and other != order:
            raise UserError(
                f"The categories of {key} are in another order than those of {first}, so that "
                f"the same label would mean different classes ({shortened(order)}; "
                f"{shortened(other)}).",
                "Bring the categories of both annotation files into the same order.",
            )


# --- images that cannot be used ------------------------------------------------------------------


def _check_images(data: list[_Data], metrics: list[_Metric], *, leave_out: bool) -> None:
    """Look at all images, and refuse those that cannot be used, unless they are left out."""
    for one in data:
        entries = list(one.found.images.values())
        refuse_missing(one.path, one.folder, entries[:0] if leave_out else entries)
        colours = [
            str(step.get("color_type"))
            for _, step in _nested(one.cfg.get("pipeline"))
            if isinstance(step, Mapping)
        ]
        turned = not any("ignore_orientation" in c or c == "unchanged" for c in colours)
        one.faults += image_faults(one.folder, entries, whole=leave_out, turned=turned)
        if len(data) == 1:
            for metric in metrics:
                used = {metric.found.category_ids.get(name) for name in one.classes}
                one.faults += [f for f in metric.found.faults if f.category in used]
        one.faults = [fault for fault in one.faults if fault.image in one.found.images]
        broken = {fault.image for fault in one.faults}
        if broken and (not leave_out or len(broken) == len(one.found.images)):
            remedy = "Mend them." if leave_out else _LEAVE_OUT
            raise UserError(f"{one.path}: {named_faults(one.found, one.faults)}.", remedy)


def _leave_out(data: list[_Data], metrics: list[_Metric], copies: Path) -> Iterator[str]:
    """Point datasets and metrics to annotation files without the images that cannot be used."""
    all_broken: set[Any] = set()
    for one in data:
        broken = {fault.image for fault in one.faults}
        all_broken |= broken
        if broken:
            one.cfg["ann_file"] = str(_without(broken, one.path, copies))
            said = named_faults(one.found, one.faults)
            yield f"{one.path}: left out, since {said}"
    for metric in metrics:
        if all_broken & set(metric.found.images):
            metric.cfg["ann_file"] = str(_without(all_broken, metric.path, copies))


def _without(broken: set[Any], path: Path, copies: Path) -> Path:
    """An annotation file without some images."""
    content = load_json(path)
    content["images"] = [one for one in content["images"] if one["id"] not in broken]
    content["annotations"] = [
        one for one in content["annotations"] if one["image_id"] not in broken
    ]
    if not content["annotations"]:
        raise UserError(
            f"Nothing is annotated in {path} without the images that cannot be used.",
            "Mend these images.",
        )
    text = json.dumps(content).encode()
    copy = copies.resolve() / f"{path.stem}-{hashlib.sha256(text).hexdigest()[:8]}.json"
    copies.mkdir(parents=True, exist_ok=True)
    if not copy.is_file():
        write_atomic(copy, text)
    return copy
