"""Own data with a class for each image: images in a folder of each class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

from sparsevit.data.images import image_fault, image_size
from sparsevit.data.own.description import Choice, OwnData, Size, Split
from sparsevit.data.own.folders import assigned, cut, is_image, split_of
from sparsevit.data.own.given import Given
from sparsevit.errors import UserError, shortened

Classes = Mapping[str, Sequence[str]]
"""Class -> its images, relative to the folder that has the classes' folders."""

_OF_IMAGES = ("image", "images", "img", "imgs", "jpegimages", "photos", "pictures", "data")
_OF_LABELS = ("annotation", "annotations", "label", "labels", "mask", "masks")
_OTHER_THINGS = frozenset((*_OF_IMAGES, *_OF_LABELS))
"""Names of folders that are those of no class, unless the user says so."""

_SIZES_LOOKED_UP = 2000
_THREADS = 8


def class_folders(given: Given, files: Sequence[Path]) -> dict[str | None, tuple[Path, Classes]]:
    """Split, None where it has none -> the folder that has a folder for each class, and these;
    nothing where images do not lie so.

    Args:
        given: what the user says.
        files: all under its root.
    """
    if any(given.images):
        found = {
            split: (place, _by_class(place, [p for p in files if p.is_relative_to(place)]))
            for split, place in given.images.items()
        }
        return found if all(classes for _, classes in found.values()) else {}
    root = given.images.get(None, given.root)
    images = [path for path in files if is_image(path) and path.is_relative_to(root)]
    while True:
        parts = [path.relative_to(root).parts for path in images]
        tops, inside = {one[0] for one in parts}, {one[0] for one in parts if len(one) > 2}
        if len(tops) != 1 or tops != inside or split_of(PurePath(next(iter(tops)))):
            break
        # an archive often has one folder around all
        root /= next(iter(tops))
    splits = {name: split_of(PurePath(name)) for name in sorted(tops)}
    if tops and tops == inside and all(splits.values()):
        each = {
            (split, root / name): _by_class(
                root / name, [path for path in images if path.is_relative_to(root / name)]
            )
            for name, split in splits.items()
        }
        if len({split for split, _ in each}) == len(each) and all(each.values()):
            return {split: (place, classes) for (split, place), classes in each.items()}
        return {}
    classes = _by_class(root, images)
    usual = {name.lower() for name in classes} & _OTHER_THINGS
    if not classes or (given.task is None and (usual or len(classes) < 2)):
        return {}
    return {None: (root, classes)}


def _by_class(root: Path, images: Sequence[Path]) -> Classes:
    """Images by the first folder below the root; nothing where one lies in the root itself."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in images:
        if not is_image(path):
            continue
        inside = path.relative_to(root)
        if len(inside.parts) < 2:
            return {}
        found[inside.parts[0]].append(inside.as_posix())
    return dict(found)


def describe(
    given: Given, found: Mapping[str | None, tuple[Path, Classes]], *, look: bool
) -> OwnData:
    """What folders of classes say.

    Args:
        given: what the user says.
        found: of :func:`class_folders`.
        look: read all images.

    Raises:
        UserError: splits have different classes, there are fewer than two, or a class that is named
            has no folder.
    """
    splits, must_cut = assigned(found, "folders of classes")
    said: list[Choice] = []
    classes = _classes(given, splits, said)
    labels = {name: label for label, name in enumerate(classes)}
    places = {split: place for split, (place, _) in splits.items()}
    images = {
        split: [(one, labels[name]) for name in classes for one in by_class.get(name, ())]
        for split, (_, by_class) in splits.items()
    }
    if must_cut:
        of = dict(images["train"])
        train, val = cut(list(of), {name: (label,) for name, label in of.items()}, given.seed)
        images["train"] = [pair for pair in images["train"] if pair[0] in train]
        images["val"] = [(name, of[name]) for name in of if name in val]
        places["val"] = places["train"]
        why = f"one set, split by seed {given.seed}"
        said.append(Choice("splits", f"{len(train)} train, {len(val)} val", why))
    sizes, faults = _read(places, images, every=look)
    if not sizes:
        raise UserError(f"No image in {given.root} can be read.", "Check the images.")
    made = {}
    for split, pairs in images.items():
        counts = Counter(label for _, label in pairs)
        amounts = {name: counts[label] for name, label in labels.items()}
        made[split] = Split(
            images=places[split],
            annotations=places[split],
            names=tuple(name for name, _ in pairs),
            amounts=amounts,
            images_with=amounts,
            labels=tuple(label for _, label in pairs),
        )
    return OwnData(
        task="classification",
        root=given.root,
        classes=classes,
        splits=made,
        sizes=sizes,
        said=tuple(said),
        faults=tuple(faults),
        image_size=given.image_size,
        iterations=given.iterations,
        names_from="named by their folders",
    )


def _classes(
    given: Given, splits: Mapping[str, tuple[Path, Classes]], said: list[Choice]
) -> tuple[str, ...]:
    place, trained = splits["train"]
    classes = given.classes or tuple(sorted(trained))
    missing = [name for name in classes if name not in trained]
    if missing:
        raise UserError(
            f"{place} has no folder with images of {shortened(', '.join(missing))}.",
            "Correct classes, or add them.",
        )
    if len(classes) < 2:
        raise UserError(
            f"There is {len(classes)} class: {shortened(', '.join(classes))}.",
            "Give two or more folders, one for each class to tell apart.",
        )
    unused = sorted({name for _, found in splits.values() for name in found} - set(classes))
    if given.classes is not None and unused:
        said.append(Choice("left out", shortened(", ".join(unused)), "not in classes"))
    elif unused:
        raise UserError(
            f"{place} has no folder with images of {shortened(', '.join(unused))}; others have.",
            "Add them, or name the classes to use in a YAML file: classes: [...].",
        )
    return classes


def _read(
    places: Mapping[str, Path], images: Mapping[str, Sequence[tuple[str, int]]], *, every: bool
) -> tuple[Counter[Size], list[str]]:
    """How many images have which size, and what is wrong with those that cannot be used; of some
    spread over all where not every one is read."""

    def paths() -> Iterator[Path]:
        for split, pairs in images.items():
            step = 1 if every else -(-len(pairs) // _SIZES_LOOKED_UP) or 1
            yield from (places[split] / name for name, _ in pairs[::step])

    def look(path: Path) -> tuple[Size | None, str | None]:
        wrong = image_fault(path)
        return (None, f"{path} {wrong}") if wrong else (image_size(path), None)

    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(look, paths()))
    sizes = Counter(size for size, _ in found if size is not None)
    return sizes, [wrong for _, wrong in found if wrong is not None and every]
