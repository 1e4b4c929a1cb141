"""Making and looking at the embedded dataset."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsevit.data.coco import AnnotationSummary, check_annotations
from sparsevit.data.make import RECORD, annotation_file, make_dataset
from sparsevit.data.spec import SPLITS, DatasetSpec
from sparsevit.errors import UserError

_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp")


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
        splits: split -> what its annotation file holds.
    """

    root: Path
    state: str
    painted: int
    seconds: float
    digest: str
    spec: dict[str, Any]
    splits: dict[str, AnnotationSummary]


@dataclass(frozen=True)
class ShowResult:
    """A picture of a dataset: where it is and how many images are in it."""

    out: Path
    images: int


def default_root(workspace: Path | str | None = None) -> Path:
    """Where the dataset is made if no folder is named: in the workspace, beside those that configs
    with an ``embedded_dataset`` make there."""
    folder = Path(workspace or os.environ.get("SPARSEVIT_WORKSPACE") or "work_dirs")
    return folder / "data" / "shapes"


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
    splits = {
        split: check_annotations(path, images=made.root / split, sample=8)
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


def show_data(root: Path | str, out: Path | str, split: str = "val", images: int = 8) -> ShowResult:
    """Draws the first ``images`` images of a split with their boxes and masks by class.

    Raises:
        UserError: there is no dataset at ``root``, or ``out`` cannot be written.
    """
    root, out = Path(root), Path(out)
    if split not in SPLITS:
        raise UserError(f"There is no split '{split}'.", f"Use one of: {', '.join(SPLITS)}.")
    if images < 1:
        raise UserError(f"{images} images cannot be drawn.", "Ask for one or more.")
    if out.suffix.lower() not in _PICTURE_SUFFIXES:
        raise UserError(
            f"'{out}' is not a picture file.", "Give a file name that ends in .png or .pdf."
        )
    path = annotation_file(root, split)
    if not path.is_file():
        raise UserError(f"There is no dataset at {root}.", f"Run: sparsevit data make {root}")
    check_annotations(path, images=root / split)
    # matplotlib is needed for nothing else here
    from sparsevit.data.picture import draw_annotations

    try:
        drawn = draw_annotations(path, root / split, out, images)
    except OSError as error:
        raise UserError(
            f"Cannot write {out}: {error.strerror}.",
            "Choose a file in a folder that you can write to.",
        ) from error
    return ShowResult(out, drawn)
