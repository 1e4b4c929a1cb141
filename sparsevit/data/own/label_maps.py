"""Own data with a label for each pixel: images, and label maps of the same names."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from sparsevit.data.images import image_fault, image_size, read_labels
from sparsevit.data.own.description import Choice, OwnData, Size, Split
from sparsevit.data.own.folders import assigned, cut, files_in, is_image, split_of
from sparsevit.data.own.given import Given, class_names
from sparsevit.errors import UserError

CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt", "label_names.txt", "codes.txt")
_VOID_NAMES = ("void", "ignore", "ignored", "unlabelled", "unlabeled", "don't care", "dontcare")
_VOID = 255
_THREADS = 8
_NAMED = 3
_TAIL = re.compile(
    r"((?:[_\-. ](?:leftImg8bit|gtFine|gtCoarse|gt|masks?|labels?|labelIds|labelTrainIds|trainIds"
    r"|segmentation|seg|semantic|annotations?|annot|L))*)(\.\w+)$"
)
_NOT_SEMANTIC = re.compile("instance|object|colou?r|edge|depth", re.IGNORECASE)
_OF_LABELS = re.compile(
    r"mask|label|annot|segm|ground|train.?id|(?:^|[^a-z])(?:gt|seg)(?![a-z])", re.I
)


@dataclass(frozen=True)
class _Group:
    """Images of one folder whose names end alike: stem -> file name."""

    folder: Path
    tail: str
    names: Mapping[str, str]
    labels: bool  # one channel, and no JPEG
    split: str | None


@dataclass(frozen=True)
class _Pair:
    """A folder of images, that of their label maps, and the stems that both have."""

    images: _Group
    labels: _Group
    stems: tuple[str, ...]
    split: str | None


def label_pairs(given: Given, files: Sequence[Path]) -> list[_Pair]:
    """Folders of images with label maps of the same names; none where nothing is that.

    Raises:
        UserError: several folders have label maps of the same images, or they are in colour.
    """
    images, labels = (
        {split: _groups(place, _under(place, files)) for split, place in named.items()}
        for named in (given.images, given.annotations)
    )
    if labels:
        every = images.get(None, ()) or _groups(given.root, files)
        found = [
            pair
            for split, groups in labels.items()
            for pair in _paired(images.get(split, every), groups, split)
        ]
        if not found:
            raise UserError(
                "No image has a label map of its name in "
                f"{', '.join(str(p) for p in given.annotations.values())}.",
                "Name each label map as its image: 0001.jpg and 0001.png.",
            )
        return found
    groups = _groups(given.root, files)
    masks = [group for group in groups if group.labels]
    colours = [g for g in groups if not g.labels and _named_labels(given.root, g)]
    found = _paired([g for g in groups if g not in colours], masks, None)
    if not found and colours:
        pairs = _paired([g for g in groups if g not in colours], colours, None)
        if pairs:
            example = pairs[0].labels.folder / pairs[0].labels.names[pairs[0].stems[0]]
            raise UserError(
                f"The label maps in {pairs[0].labels.folder} are colour pictures, e.g. "
                f"{example.name}.",
                "Write each pixel's number of its class, 0, 1, ..., into PNGs of one channel.",
            )
    return found


def describe(given: Given, files: Sequence[Path], pairs: Sequence[_Pair]) -> OwnData:
    """What label maps say; all of them are read.

    Raises:
        UserError: the labels are no numbers of classes, or something is missing.
    """
    said: list[Choice] = []
    by_split: dict[str | None, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        by_split[pair.split].append(pair)
    splits, must_cut = assigned(by_split, "label maps")
    _refuse_mixed(splits)
    for name, found in splits.items():
        without = sum(len(pair.images.names) - len(pair.stems) for pair in found)
        if without:
            said.append(Choice("left out", f"{without} images", f"{name}: they have no label map"))
        lonely = sum(len(pair.labels.names) - len(pair.stems) for pair in found)
        if lonely:
            why = f"{name}: they have no image that ends in {found[0].images.tail}"
            said.append(Choice("left out", f"{lonely} label maps", why))
    labelled: dict[str, dict[str, Counter[int]]] = {}
    faults: list[str] = []
    sizes: Counter[Size] = Counter()
    places = {name: _places(found) for name, found in splits.items()}
    for name, (images, labels, stems) in places.items():
        one = splits[name][0]
        tails = one.images.tail, one.labels.tail
        labelled[name] = _read_all(images, labels, stems, tails, sizes, faults)
    seen = sum((sum(found.values(), Counter()) for found in labelled.values()), Counter())
    if not seen:
        raise UserError(
            f"No pair of an image and its label map can be used: {'; '.join(faults[:_NAMED])}.",
            "Mend them.",
        )
    classes, first, void, names_from = _classes(given, files, seen)
    said.append(Choice("void", f"label {void}", "pixels of it count for nothing"))
    names = {first + place: name for place, name in enumerate(classes)}
    faults += _beyond(labelled, places, splits, set(names) | {void, _VOID}, len(classes))
    if must_cut:
        every = labelled["train"]
        train, val = cut(sorted(every), every, given.seed)
        labelled["train"] = {stem: every[stem] for stem in every if stem in train}
        labelled["val"] = {stem: every[stem] for stem in every if stem in val}
        places["val"] = places["train"]
        why = f"one set, split by seed {given.seed}"
        said.append(Choice("splits", f"{len(train)} train, {len(val)} val", why))
    made = {}
    for split, (images, labels, _) in places.items():
        counts = labelled[split]
        pixels = sum(counts.values(), Counter())
        made[split] = Split(
            images=images,
            annotations=labels,
            names=tuple(counts),
            amounts={name: pixels[label] for label, name in names.items()},
            images_with={
                name: sum(label in c for c in counts.values()) for label, name in names.items()
            },
            empty=sum(not set(c) & set(names) for c in counts.values()),
        )
    one = next(iter(splits.values()))[0]
    return OwnData(
        task="segmentation",
        root=given.root,
        classes=classes,
        splits=made,
        sizes=sizes,
        said=tuple(said),
        faults=tuple(faults),
        void=void,
        suffixes=(one.images.tail, one.labels.tail),
        image_size=given.image_size,
        iterations=given.iterations,
        names_from=names_from,
    )


# --- which folders go together -------------------------------------------------------------------


def _under(place: Path, files: Sequence[Path]) -> list[Path]:
    inside = [path for path in files if path.is_relative_to(place)]
    return inside or files_in(place)


def _groups(root: Path, files: Sequence[Path]) -> list[_Group]:
    found: dict[tuple[Path, str], dict[str, str]] = defaultdict(dict)
    for path in files:
        if is_image(path):
            tail = _TAIL.search(path.name)
            end = tail[0] if tail is not None and tail.start() else path.suffix
            found[path.parent, end][path.name.removesuffix(end)] = path.name
    return [
        _Group(*key, names, _is_label_map(key, names), _split_in(root, key[0]))
        for key, names in found.items()
    ]


def _is_label_map(key: tuple[Path, str], names: Mapping[str, str]) -> bool:
    if key[1].lower().endswith((".jpg", ".jpeg")):
        return False
    # a few, since the first may be broken
    some = (read_labels(key[0] / name) for name in list(names.values())[:_NAMED])
    return any(labels is not None and labels.ndim == 2 for labels in some)


def _named_labels(root: Path, group: _Group) -> bool:
    inside = group.folder.relative_to(root) if group.folder.is_relative_to(root) else group.folder
    return bool(_OF_LABELS.search(str(inside / group.tail)))


def _paired(images: Sequence[_Group], labels: Sequence[_Group], split: str | None) -> list[_Pair]:
    """For each group of label maps the images that fit it best."""
    found: dict[int, list[tuple[_Group, _Group, tuple[str, ...]]]] = defaultdict(list)
    for group in labels:
        best: tuple[tuple[bool, int, bool, int], _Group] | None = None
        for other in images:
            common = len(group.names.keys() & other.names.keys())
            differ = [
                p
                for p in (*group.folder.parts, group.tail)
                if p not in (*other.folder.parts, other.tail)
            ]
            # of two grey pictures the one that is called so is the label map
            told = bool(_OF_LABELS.search("/".join(differ)))
            if other is group or not common or (other.labels and not told):
                continue
            same = group.split is not None and group.split == other.split
            near = len(os.path.commonpath([group.folder, other.folder]))
            rank = (same, common, not other.labels, near)
            if best is None or rank > best[0]:
                best = rank, other
        if best is not None:
            stems = tuple(sorted(group.names.keys() & best[1].names.keys()))
            found[id(best[1])].append((best[1], group, stems))
    pairs = []
    for several in found.values():
        image, chosen, stems = several[0]
        if len(several) > 1:
            ids = [one for one in several if re.search("train.?id", one[1].tail, re.I)]
            plain = ids or [
                one for one in several if not _NOT_SEMANTIC.search(str(one[1].folder / one[1].tail))
            ]
            if len(plain) != 1:
                raise UserError(
                    f"The images in {image.folder} have several label maps: "
                    + ", ".join(f"{one[1].folder}/*{one[1].tail}" for one in several[:_NAMED])
                    + ".",
                    "Say which to use in a YAML file: annotations: FOLDER.",
                )
            image, chosen, stems = plain[0]
        where = split or image.split or chosen.split
        pairs.append(_Pair(image, chosen, stems, where))
    return pairs


def _split_in(root: Path, folder: Path) -> str | None:
    inside = folder.is_relative_to(root)
    return split_of(PurePath(*folder.relative_to(root).parts, "x.y")) if inside else None


def _refuse_mixed(splits: Mapping[str, Sequence[_Pair]]) -> None:
    pairs = [pair for found in splits.values() for pair in found]
    for which in ("images", "labels"):
        tails = sorted({getattr(pair, which).tail for pair in pairs})
        if len(tails) > 1:
            raise UserError(
                f"The {'images' if which == 'images' else 'label maps'} end in several ways: "
                f"{', '.join(tails)}.",
                "Name them alike, so that all end in the same, such as .png.",
            )


def _places(pairs: Sequence[_Pair]) -> tuple[Path, Path, list[str]]:
    """The folder of images, that of label maps, and names relative to either, without the end."""
    images = Path(os.path.commonpath([pair.images.folder for pair in pairs]))
    labels = Path(os.path.commonpath([pair.labels.folder for pair in pairs]))
    stems = []
    for pair in pairs:
        inside = pair.images.folder.relative_to(images)
        if inside != pair.labels.folder.relative_to(labels):
            raise UserError(
                f"{pair.images.folder} and {pair.labels.folder} are not in the same place below "
                f"{images} and {labels}.",
                "Name folders of label maps as those of their images.",
            )
        stems += [(inside / stem).as_posix() for stem in pair.stems]
    return images, labels, stems


# --- what is in them -----------------------------------------------------------------------------


def _read_all(
    images: Path,
    labels: Path,
    stems: Sequence[str],
    tails: tuple[str, str],
    sizes: Counter[Size],
    faults: list[str],
) -> dict[str, Counter[int]]:
    """How many pixels of each image have which label; of those that can be used."""

    def look(stem: str) -> tuple[str | None, Size | None, Counter[int]]:
        image, label_map = images / f"{stem}{tails[0]}", labels / f"{stem}{tails[1]}"
        nothing: Counter[int] = Counter()
        for path in (image, label_map):
            wrong = image_fault(path)
            if wrong:
                return f"{path} {wrong}", None, nothing
        size, found = image_size(image), read_labels(label_map)
        if size is None or found is None:
            return f"{image if size is None else label_map} is not an image", None, nothing
        if found.ndim != 2:
            return f"{label_map} is a colour picture, not a label map", size, nothing
        if found.shape != size[::-1]:
            told = f"{found.shape[1]}x{found.shape[0]} and its image {size[0]}x{size[1]}"
            return f"{label_map} is {told}", size, nothing
        values, counts = np.unique(found.astype(np.int64), return_counts=True)
        return None, size, Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    found = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for stem, (wrong, size, counts) in zip(stems, threads.map(look, stems), strict=True):
            if size is not None:
                sizes[size] += 1
            if wrong is None:
                found[stem] = counts
            else:
                faults.append(wrong)
    return found


def _classes(
    given: Given, files: Sequence[Path], seen: Counter[int]
) -> tuple[tuple[str, ...], int, int, str]:
    """Names of the classes, the label of the first, that which is of no class, and whence."""
    names, source = given.classes, "named in the YAML file"
    listed = [path for path in files if path.name.lower() in CLASS_FILES]
    if names is None and listed:
        names, source = class_names(listed[0]), f"named in {listed[0].name}"
    void = given.void
    if names is not None and void is None:
        voids = [i for i, name in enumerate(names) if name.lower() in _VOID_NAMES]
        void = voids[0] if voids else None
    if names and void is not None and void < len(names) and names[void].lower() in _VOID_NAMES:
        names = (*names[:void], *names[void + 1 :])
    used = sorted(label for label in seen if label not in (_VOID, void))
    highest = used[-1] if used else 0
    if void is not None and 0 < void < highest:
        raise UserError(
            f"The label {void} is void, and there are labels above it ({highest}).",
            "Make the void label 0, 255 or the highest of all in the label maps.",
        )
    if void not in (None, 0, _VOID) and seen[_VOID]:
        raise UserError(
            f"Two labels are of no class: {void} and {_VOID}.",
            f"Write {_VOID} in place of {void} in the label maps.",
        )
    first = 1 if void == 0 else 0
    if names is None:
        count = highest + 1 - first
        masks = used == [0] and seen[_VOID]  # 255 is the object: a mask, not a label map
        if not used or masks or (count > 2 and len(used) * 2 < count):
            shown = ", ".join(str(label) for label in sorted(seen)[:6])
            raise UserError(
                f"The labels are no numbers of classes counted from 0: {shown}"
                f"{', ...' if len(seen) > 6 else ''} (255 is of no class).",
                "Write 0, 1, 2, ... into the label maps, one number a class; or name the classes, "
                "in this order, in a YAML file: classes: [...].",
            )
        names = tuple(f"class_{label}" for label in range(first, highest + 1))
        source = f"labels go up to {highest}; classes.txt would name them, one a line"
    if len(names) > _VOID - first:
        raise UserError(f"There are {len(names)} classes.", "Label maps can have 255 at the most.")
    return names, first, _VOID if void is None else void, source


def _beyond(
    labelled: Mapping[str, dict[str, Counter[int]]],
    places: Mapping[str, tuple[Path, Path, list[str]]],
    splits: Mapping[str, Sequence[_Pair]],
    known: set[int],
    classes: int,
) -> list[str]:
    """Take out label maps with a label that is of no class, and say which."""
    found = []
    for split, counts in labelled.items():
        for stem, labels in list(counts.items()):
            strange = sorted(set(labels) - known)
            if strange:
                path = places[split][1] / f"{stem}{splits[split][0].labels.tail}"
                found.append(f"{path} has the label {strange[0]}, beyond the {classes} classes")
                del counts[stem]
    return found
