"""Label maps: the datasets of mmseg that have them, and what is computed from them."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sparsevit.atomic import write_atomic
from sparsevit.data.images import image_fault, image_size, read_labels
from sparsevit.errors import UserError

MEAN_IOU = "mIoU"
_Pair = tuple[Path, Path]
HEADS = ("decode_head", "auxiliary_head")

_METRICS = {
    "mIoU": ("mIoU", "mAcc"),
    "mDice": ("mDice", "mAcc"),
    "mFscore": ("mFscore", "mPrecision", "mRecall"),
}
METRICS = frozenset({"aAcc", *(name for names in _METRICS.values() for name in names)})
"""All that mmseg's IoU metric can give, in percent."""

_HEADINGS = {"mIoU": "mIoU", "mAcc": "mAcc", "aAcc": "aAcc"}
_LABELS_TO_OPEN = 16
_THREADS, _NAMED = 8, 3
_TRAIN_IDS = "labelTrainIds.png"


def known_metrics(evaluator: Any) -> tuple[str, ...]:
    """Names of the metrics that an evaluator will give, as far as it is known before it runs.

    Args:
        evaluator: ``val_evaluator`` of a config.

    Returns:
        ``aAcc``, ``mIoU`` and ``mAcc`` of one IoU metric; nothing of others.
    """
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    if len(metrics) != 1 or metrics[0].get("type") not in ("IoUMetric", "mmseg.IoUMetric"):
        return ()
    kinds = metrics[0].get("iou_metrics", ["mIoU"])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not set(kinds) <= set(_METRICS) or metrics[0].get("format_only"):
        return ()
    return tuple(dict.fromkeys(["aAcc", *(name for kind in kinds for name in _METRICS[kind])]))


_CLASSES = "sparsevit_classes"


def score_classes(metric: Any) -> None:
    """Have an IoU metric keep the values of every class; any other is left alone.

    mmseg computes them, and prints them in a table only.
    """
    from mmseg.evaluation import IoUMetric

    if type(metric) is not IoUMetric:
        return
    total = metric.total_area_to_metrics
    found: dict[str, dict[str, float]] = {}
    setattr(metric, _CLASSES, found)

    def total_area_to_metrics(*areas: Any, **how: Any) -> Any:
        values = total(*areas, **how)
        classes = metric.dataset_meta["classes"]
        found.clear()
        for name, by_class in values.items():
            if name != "aAcc":
                percent = [100 * float(value) for value in by_class]
                found[f"m{name}"] = dict(zip(classes, percent, strict=True))
        return values

    metric.total_area_to_metrics = total_area_to_metrics


def class_scores(metrics: Sequence[Any]) -> dict[str, dict[str, float]]:
    """IoU and accuracy by class of what was evaluated last: ``mIoU`` -> class -> percent, NaN where
    a class is in no label map."""
    return {
        key: dict(scores)
        for metric in metrics
        for key, scores in getattr(metric, _CLASSES, {}).items()
    }


def table(metrics: Mapping[str, float]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and a row: mIoU, mAcc and aAcc, in percent."""
    values = (metrics.get(name) for name in _HEADINGS)
    cells = ("-" if value is None else f"{value:.2f}" for value in values)
    return ("", *_HEADINGS.values()), [("pixels", *cells)]


def regions(sample: Any) -> list[dict[str, Any]]:
    """What a segmentor predicts of an image, as plain data.

    Args:
        sample: mmseg's data sample with ``pred_sem_seg``.

    Returns:
        Of each class that is found ``image``, ``label`` (counted from 0), ``pixels`` and
        ``segmentation`` as COCO's run lengths.
    """
    from pycocotools import mask as masks

    found = sample.pred_sem_seg.data[0].cpu().numpy()
    results = []
    for label in np.unique(found).tolist():
        where = found == label
        encoded = masks.encode(np.asfortranarray(where.astype(np.uint8)))
        lengths = {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}
        results.append(
            {
                "image": sample.metainfo.get("img_path"),
                "label": int(label),
                "pixels": int(where.sum()),
                "segmentation": lengths,
            }
        )
    return results


def imports_in_silence() -> contextlib.AbstractContextManager[Any]:
    """Where mmseg is imported for the first time: it prints what it does without."""
    return contextlib.redirect_stdout(io.StringIO())


def check_data(cfg: Any, splits: Sequence[str], copies: Path | None = None) -> tuple[str, ...]:
    """See :meth:`sparsevit.tasks.Task.check_data`.

    Every image must have a label map, and every file a whole header and an end. What is in label
    maps is looked up in a few, spread over the set; in all where broken ones are left out.

    Raises:
        UserError: a folder is missing or empty, an image has no label map, a file cannot be read, a
            label map has another size than its image or a label that is no class, or a head has
            another number of classes.
    """
    said = []
    for split in splits:
        loader = cfg.get(f"{split}_dataloader") or {}
        for one in _datasets(loader.get("dataset")):
            pairs, classes, suffix = _pairs(one)
            _check_heads(cfg, classes, f"{split}_dataloader.dataset")
            faults = _faults(pairs, one, classes, deeply=copies is not None)
            if not faults:
                continue
            told = _told(pairs, faults)
            if copies is None and len(faults) == 1:
                (fault,) = faults.values()
                raise UserError(fault.problem, f"{fault.remedy} Or leave it out: --skip-broken.")
            if copies is None:
                raise UserError(told, "Mend or remove them, or leave them out: --skip-broken.")
            if len(faults) == len(pairs):
                raise UserError(told, "Mend them.")
            _leave_out(one, [pair for pair in pairs if pair not in faults], suffix, copies)
            said.append(f"left out: {told}")
    return tuple(said)


def _faults(
    pairs: Sequence[_Pair], dataset: Any, classes: Sequence[str], *, deeply: bool
) -> dict[_Pair, UserError]:
    """What is wrong with images and their label maps, of those with which something is."""
    step = 1 if deeply else max(1, len(pairs) // _LABELS_TO_OPEN)
    opened = set(pairs[::step])

    def look(pair: _Pair) -> UserError | None:
        try:
            for path in pair:
                wrong = image_fault(path, whole=deeply)
                if wrong is not None:
                    raise UserError(f"{path} {wrong}.", "Replace or remove it.")
            if pair in opened:
                _check_pair(*pair, dataset, classes)
        except UserError as error:
            return error
        return None

    with ThreadPoolExecutor(_THREADS) as threads:
        found = zip(pairs, threads.map(look, pairs), strict=True)
        return {pair: error for pair, error in found if error is not None}


def _told(pairs: Sequence[_Pair], faults: Mapping[_Pair, UserError]) -> str:
    few = [fault.problem.rstrip(".") for fault in faults.values()][:_NAMED]
    more = f"; and {len(faults) - len(few)} more" if len(faults) > len(few) else ""
    return (
        f"{len(faults)} of {len(pairs)} images in {pairs[0][0].parent} cannot be used "
        f"({'; '.join(few)}{more})."
    )


def _leave_out(dataset: Any, pairs: Sequence[_Pair], suffix: str, copies: Path) -> None:
    """Point a dataset to a list of the images that stay."""
    folder = Path(dataset.get("data_root") or "") / dataset["data_prefix"]["img_path"]
    names = (image.relative_to(folder).as_posix().removesuffix(suffix) for image, _ in pairs)
    text = "".join(f"{name}\n" for name in names)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    listed = copies.resolve() / f"images-{digest}.txt"
    copies.mkdir(parents=True, exist_ok=True)
    if not listed.is_file():
        write_atomic(listed, text)
    dataset["ann_file"] = str(listed)


def _check_heads(cfg: Any, classes: Sequence[str], where: str) -> None:
    for name, head in heads(cfg.model):
        asked = head.get("num_classes")
        if asked is not None and classes and asked != len(classes):
            count = len(classes)
            raise UserError(
                f"model.{name}.num_classes is {asked}, and {where} has {count} classes.",
                f"Set model.{name}.num_classes={count}, or correct its metainfo.classes.",
            )


def heads(model: Any) -> Iterator[tuple[str, Any]]:
    """The heads of a segmentor's config that have a number for each class, and their names."""
    for name in HEADS:
        found = model.get(name) or ()
        for head in found if isinstance(found, (list, tuple)) else (found,):
            yield name, head


def _datasets(dataset: Any) -> Iterator[Any]:
    """Those with a folder of images and one of label maps."""
    if isinstance(dataset, dict):
        prefix = dataset.get("data_prefix")
        if isinstance(prefix, dict) and {"img_path", "seg_map_path"} <= set(prefix):
            yield dataset
        yield from _datasets(dataset.get("dataset"))
        yield from _datasets(dataset.get("datasets"))
    elif isinstance(dataset, (list, tuple)):
        for one in dataset:
            yield from _datasets(one)


def _pairs(dataset: Any) -> tuple[list[_Pair], tuple[str, ...], str]:
    """Image and label map of each entry, as mmseg's own dataset lists them, the classes, and what
    names of images end in."""
    from mmengine.registry import DefaultScope
    from mmseg.registry import DATASETS

    root = Path(dataset.get("data_root") or "")
    for name in ("img_path", "seg_map_path"):
        folder = root / dataset["data_prefix"][name]
        if not folder.is_dir():
            raise UserError(
                f"There is no folder {folder}, where the config has its "
                f"{'images' if name == 'img_path' else 'label maps'}.",
                f"Correct data_root or data_prefix.{name} of the dataset.",
            )
    with DefaultScope.overwrite_default_scope("mmseg"), imports_in_silence():
        built = DATASETS.build({**dataset, "pipeline": [], "lazy_init": True})
    built.full_init()
    pairs = []
    for index in range(len(built)):
        info = built.get_data_info(index)
        pairs.append((Path(info["img_path"]), Path(info["seg_map_path"])))
    if not pairs:
        folder = root / dataset["data_prefix"]["img_path"]
        raise UserError(
            f"{folder} has no image that ends in {built.img_suffix!r}.",
            "Correct data_prefix.img_path or img_suffix of the dataset.",
        )
    missing = [label_map for _, label_map in pairs if not label_map.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(pairs)} images have no label map; the first is missing at "
            f"{missing[0]}.",
            _how_to_add(missing[0]),
        )
    return pairs, tuple(built.metainfo.get("classes") or ()), built.img_suffix


def _how_to_add(label_map: Path) -> str:
    """What to do about a label map that is missing."""
    stem, train_ids, _ = label_map.name.partition(_TRAIN_IDS)
    others = (label_map.with_name(f"{stem}{end}") for end in ("labelIds.png", "polygons.json"))
    if train_ids and any(path.is_file() for path in others):
        # Cityscapes is shipped without the numbers that are trained on
        return (
            "Cityscapes has other numbers in its own files: make these with mmseg's "
            "tools/dataset_converters/cityscapes.py."
        )
    return "Add them, or correct data_prefix.seg_map_path or seg_map_suffix of the dataset."


def _check_pair(image: Path, label_map: Path, dataset: Any, classes: Sequence[str]) -> None:
    size, labels = image_size(image), read_labels(label_map)
    for path, found in ((image, size), (label_map, labels)):
        if found is None:
            raise UserError(f"{path} is not an image that can be read.", "Replace or remove it.")
    assert size is not None
    assert labels is not None
    if labels.ndim != 2:
        raise UserError(
            f"{label_map} has {labels.shape[2]} channels: a label map has one, with the number of "
            "the class.",
            "Convert the colours to numbers of classes.",
        )
    if labels.shape != size[::-1]:
        raise UserError(
            f"{label_map} is {labels.shape[1]}x{labels.shape[0]} and its image "
            f"{size[0]}x{size[1]}.",
            "Make the label map as large as the image.",
        )
    if not classes:
        return
    ignored = {255, *([0] if dataset.get("reduce_zero_label") else [])}
    shift = 1 if dataset.get("reduce_zero_label") else 0
    ignored.add(dataset.get("ignore_index", 255))
    beyond = sorted(
        label
        for label in np.unique(labels).tolist()
        if label not in ignored and not 0 <= label - shift < len(classes)
    )
    if beyond:
        raise UserError(
            f"{label_map} has the label {beyond[0]}, and there are {len(classes)} classes, counted "
            f"from {shift}; {dataset.get('ignore_index', 255)} is ignored.",
            "Correct the label map or metainfo.classes of the dataset.",
        )
