"""Making and looking at the embedded dataset and at made scenes."""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsevit.data.coco import (
    AnnotationSummary,
    check_annotations,
    read_annotations,
    refuse_missing,
)
from sparsevit.data.images import image_fault, require_picture_name
from sparsevit.data.make import RECORD, annotation_file, make_dataset, read_record
from sparsevit.data.nuscenes.made.spec import VERSION, ScenesSpec
from sparsevit.data.nuscenes.names import CAMERAS
from sparsevit.data.spec import CLASSIFICATION, LEAST_BYTES_A_PIXEL, SPLITS, DatasetSpec
from sparsevit.errors import UserError

if TYPE_CHECKING:
    from sparsevit.data.own import OwnData

MOST_IMAGES, MOST_SAMPLES = 1000, 40
_ROOTS = {"bev": "scenes", CLASSIFICATION: "labelled"}
# Where a folder has annotations if not where `data make` puts them.
_ELSEWHERE = (
    "annotations/instances_{split}*.json",
    "annotations/{split}*.json",
    "{split}.json",
    "{split}/_annotations.coco.json",
)


@dataclass(frozen=True)
class DataResult:
    """A dataset that is there.

    Attributes:
        root: its folder; a split's images lie in ``root / split``.
        state: ``made``, ``completed`` (went on after an interruption) or ``reused``.
        painted: images written by this call.
        seconds: time this call took.
        digest: SHA-256 over the annotations; equal datasets have equal digests.
        spec: what it was made from, as JSON values.
        splits: split -> what its annotation file holds, or its folders of classes.
    """

    root: Path
    state: str
    painted: int
    seconds: float
    digest: str
    spec: dict[str, Any]
    splits: dict[str, AnnotationSummary] | dict[str, LabelledSummary]


@dataclass(frozen=True)
class LabelledSummary:
    """What a split in folders of classes holds; ``classes``: name -> images."""

    images: int
    classes: dict[str, int]


@dataclass(frozen=True)
class ShowResult:
    """A picture of a dataset: where it is and how many images are in it."""

    out: Path
    images: int


def default_root(workspace: Path | str | None = None, task: str = "detection") -> Path:
    """Where a dataset for a task is made if no folder is named: in the workspace, beside those that
    configs with an ``embedded_dataset`` make there."""
    folder = Path(workspace or os.environ.get("SPARSEVIT_WORKSPACE") or "work_dirs")
    return folder / "data" / _ROOTS.get(task, "shapes")


def spec_of(task: str, chosen: Mapping[str, Any]) -> DatasetSpec | ScenesSpec:
    """What to make for a task, where its defaults do not do.

    Args:
        task: ``detection``, ``segmentation``, ``bev`` or ``classification``.
        chosen: arguments of the spec.

    Raises:
        UserError: one is out of its range, or means nothing for the task.
    """
    kind = ScenesSpec if task == "bev" else DatasetSpec
    folders = {"folders": True, "objects": (1, 1)} if task == CLASSIFICATION else {}
    for name in chosen:
        if name not in kind.__dataclass_fields__ or (folders and name in ("objects", "masks")):
            option = name.replace("_", "-")
            raise UserError(f"--{option} means nothing for --task {task}.", "Leave it out.")
    return kind(**{**chosen, **folders})


def image_count(spec: DatasetSpec | ScenesSpec) -> int:
    """How many images a spec has."""
    each = 1 if isinstance(spec, DatasetSpec) else len(CAMERAS)
    return (spec.train + spec.val) * each


def least_bytes(spec: DatasetSpec | ScenesSpec) -> int:
    """What the images of a spec take on a disk, at least."""
    pixels = image_count(spec) * spec.width * spec.height
    return pixels * LEAST_BYTES_A_PIXEL[spec.image_format] // 100


def latest_root(workspace: Path | str | None = None) -> Path:
    """The dataset to look at if none is named: of those in the workspace the one made last."""
    root = default_root(workspace)
    made = sorted(root.parent.glob(f"*/{RECORD}"), key=lambda record: record.stat().st_mtime_ns)
    return made[-1].parent if made else root


def make_data(
    root: Path | str,
    spec: DatasetSpec | None = None,
    *,
    force: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> DataResult:
    """Makes the dataset of ``spec`` (its defaults if None) at ``root``, or finds it there.

    Args:
        root: its folder.
        spec: what to make.
        force: replace a dataset that is there.
        on_image: called after each image with the number done and the number of all.

    Raises:
        UserError: the folder holds another dataset or other files, or cannot be written.
    """
    started = time.perf_counter()
    made = make_dataset(root, spec or DatasetSpec(), force=force, on_image=on_image)
    splits: Any = {
        split: _labelled(path)
        if made.spec.folders
        else check_annotations(path, images=made.root / split, sample=8)
        for split, path in made.annotations.items()
    }
    return DataResult(
        root=made.root,
        state=made.state,
        painted=made.painted,
        seconds=time.perf_counter() - started,
        digest=made.digest,
        spec=made.spec.to_dict(),
        splits=splits,
    )


def _labelled(listed: Path) -> LabelledSummary:
    names = [line.partition("/")[0] for line in listed.read_text(encoding="utf-8").splitlines()]
    return LabelledSummary(len(names), dict(sorted(Counter(names).items())))


@dataclass(frozen=True)
class SceneSummary:
    """What a split of scenes holds; ``boxes``: class -> how many are seen by a camera."""

    scenes: int
    samples: int
    images: int
    boxes: dict[str, int]


@dataclass(frozen=True)
class ScenesResult:
    """Made scenes that are there.

    Attributes:
        root: their folder.
        version: of their tables: a folder in it.
        splits: split -> what it holds.
        state, painted, seconds, digest, spec: as of :class:`DataResult`.
    """

    root: Path
    version: str
    state: str
    painted: int
    seconds: float
    digest: str
    spec: dict[str, Any]
    splits: dict[str, SceneSummary]


def make_scenes_data(
    root: Path | str,
    spec: ScenesSpec | None = None,
    *,
    force: bool = False,
    on_sample: Callable[[int, int], None] | None = None,
) -> ScenesResult:
    """Makes the scenes of ``spec`` (its defaults if None) at ``root``, or finds them there.

    Args:
        root: their folder.
        spec: what to make.
        force: replace scenes that are there.
        on_sample: called after each scene with the number of samples done and that of all.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    from sparsevit.data.nuscenes.made.make import make_scenes
    from sparsevit.data.nuscenes.tables import read_frames

    started = time.perf_counter()
    made = make_scenes(root, spec or ScenesSpec(), force=force, on_sample=on_sample)
    splits = {}
    for split in SPLITS:
        frames = read_frames(made.root, VERSION, split)
        counts = Counter(
            name
            for frame in frames
            for name, points in zip(frame.annotations.names, frame.annotations.points, strict=True)
            if points
        )
        splits[split] = SceneSummary(
            scenes=len({frame.scene for frame in frames}),
            samples=len(frames),
            images=len(frames) * len(CAMERAS),
            boxes={name: counts[name] for name in made.spec.classes},
        )
    return ScenesResult(
        root=made.root,
        version=VERSION,
        state=made.state,
        painted=made.painted,
        seconds=time.perf_counter() - started,
        digest=made.digest,
        spec=made.spec.to_dict(),
        splits=splits,
    )


def has_scenes(root: Path | str) -> bool:
    """Whether a folder has nuScenes tables."""
    return any(Path(root).glob("*/sample.json"))


def show_scenes(
    root: Path | str,
    out: Path | str,
    split: str = "val",
    samples: int = 8,
    version: str | None = None,
) -> ShowResult:
    """Draws samples, spread over a split: their six images with boxes, and the view from above.

    Args:
        root: a folder with nuScenes tables.
        out: picture to write.
        split: which one.
        samples: how many; all if there are fewer.
        version: of the tables; None: the only one.

    Raises:
        UserError: there is no such thing at ``root``, something in it is broken, or ``out`` cannot
            be written.
    """
    from sparsevit.data.nuscenes.tables import check_images, find_version, read_frames

    out = Path(out)
    _check_count(samples, MOST_SAMPLES)
    require_picture_name(out)
    frames = read_frames(root, version or find_version(root), split)
    count = min(samples, len(frames))
    chosen = [frames[i * len(frames) // count] for i in range(count)]
    check_images(chosen)
    # matplotlib is needed for nothing else here
    from sparsevit.data.nuscenes.picture import draw_frames

    return ShowResult(out, len(CAMERAS) * draw_frames(chosen, out))


def own_data(root: Path | str, split: str = "val") -> OwnData | None:
    """Data other than a COCO dataset in its usual place: what
    :func:`sparsevit.data.own.recognise` knows. None where there is no such.

    Raises:
        UserError: something is wrong with a YAML file, or a made dataset with folders of classes.
    """
    from sparsevit.data.own import recognise

    root = Path(root)
    if root.suffix in (".yaml", ".yml"):
        return recognise(root)
    if not root.is_dir():
        return None
    record = read_record(root)
    if record is not None:
        return recognise(root) if "folders" in record["spec"] else None
    try:
        _annotations_at(root, split)
    except UserError:
        with contextlib.suppress(UserError):
            return recognise(root)
    return None


def show_own(found: OwnData, out: Path | str, split: str = "val", images: int = 8) -> ShowResult:
    """Draws images, spread over a split, with what is known of them: objects, label maps, or the
    names of their classes.

    Args:
        found: see :func:`own_data`.
        out: picture to write.
        split: which one.
        images: how many.

    Raises:
        UserError: there is no such split, or ``out`` cannot be written.
    """
    out = Path(out)
    _check_count(images, MOST_IMAGES)
    if split not in found.splits:
        raise UserError(f"There is no split '{split}'.", f"Use one of: {', '.join(found.splits)}.")
    # matplotlib is needed for nothing else here
    from sparsevit.data.picture import draw_own
    from sparsevit.tasks import TASKS

    colours = TASKS[found.task].palette(len(found.classes))
    shown = replace(found, splits={"train": found.splits[split]})
    return ShowResult(out, draw_own(shown, colours, out, images))


def _check_count(images: int, most: int) -> None:
    if not 1 <= images <= most:
        raise UserError(
            f"{images} images cannot be drawn.", f"Ask for one or more, at most {most}."
        )


def show_data(
    root: Path | str,
    out: Path | str,
    split: str = "val",
    images: int = 8,
    image_dir: Path | str | None = None,
) -> ShowResult:
    """Draws the first ``images`` images of a split with their boxes and masks by class.

    Args:
        root: a folder with a COCO dataset, or a COCO annotation file.
        out: picture to write.
        split: which one of a folder.
        images: how many.
        image_dir: folder that file names are relative to; found beside the annotations where None.

    Raises:
        UserError: there is no dataset at ``root``, something in it is broken, or ``out`` cannot be
            written.
    """
    root, out = Path(root), Path(out)
    _check_count(images, MOST_IMAGES)
    require_picture_name(out)
    path = _annotations_at(root, split)
    check_annotations(path)
    entries = list(read_annotations(path).images.values())
    folder = Path(image_dir) if image_dir else _images_of(path, root, split, entries[0].file_name)
    refuse_missing(path, folder, entries[:images])
    for entry in entries[:images]:
        wrong = image_fault(folder / entry.file_name, (entry.width, entry.height))
        if wrong:
            raise UserError(
                f"{folder / entry.file_name} {wrong}.",
                "Replace the image, correct its entry in the annotation file, or remove both.",
            )
    # matplotlib is needed for nothing else here
    from sparsevit.data.picture import draw_annotations

    return ShowResult(out, draw_annotations(path, folder, out, images))


def _annotations_at(root: Path, split: str) -> Path:
    """The annotation file that ``root`` is, or that it has of a split."""
    if not root.is_dir():
        if root.exists() or root.suffix == ".json":
            return root
        raise UserError(f"There is no dataset at {root}.", f"Run: sparsevit data make {root}")
    usual = annotation_file(root, split)
    found = [
        path
        for pattern in _ELSEWHERE
        for path in sorted(root.glob(pattern.format(split=glob.escape(split))))
    ]
    if usual.is_file() or found:
        return usual if usual.is_file() else found[0]
    if read_record(root) is not None and split not in SPLITS:
        raise UserError(f"There is no split '{split}'.", f"Use one of: {', '.join(SPLITS)}.")
    if not any(root.iterdir()):
        raise UserError(f"There is no dataset at {root}.", f"Run: sparsevit data make {root}")
    raise UserError(
        f"There is no dataset at {root}: it has no {usual.relative_to(root)}.",
        "Give a COCO annotation file instead of the folder, and the folder of its images with "
        "--image-dir. `sparsevit data make` makes a dataset in a new folder.",
    )


def _images_of(path: Path, root: Path, split: str, first: str) -> Path:
    """The folder in which the image named ``first`` is, of those where datasets have them."""
    bases = [path.parent, path.parent.parent] if path == root else [root, path.parent]
    own = path.stem.rpartition("_")[2] if path == root else split
    names = (own, path.stem.rpartition("_")[2], "", "images", f"images/{own}", f"{own}/images")
    folders = [base / name for base in bases for name in names]
    for folder in folders:
        if os.path.lexists(folder / first):
            return folder
    if (root / split).is_dir():
        return root / split
    raise UserError(
        f"The images of {path} are not found: {first} is not beside it.",
        "Give the folder that its file names are relative to: --image-dir DIR.",
    )
