"""Datasets: COCO files with strange annotations, and images that are none."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import mutate
from hostile.case import FOUND, MAYBE, MISTAKE, Case, Place

CHECKPOINT = "ws/pretrain/run-001/iter_4.pth"
# the tiny config on a dataset of the user's, in ./coco
CONFIG = """
_base_ = "./tiny.py"
embedded_dataset = None
data_root = "{folder}/coco/"
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file="annotations/instances_train.json"))
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file="annotations/instances_val.json"))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator
train_cfg = dict(max_iters=2)
"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "coco.py", CHECKPOINT, "--workspace", "ws"),
    "pretrain": ("pretrain", "coco.py", CHECKPOINT, "--workspace", "ws"),
    "show": ("data", "show", "coco", "-o", "out.png", "--split", "val"),
    "show train": ("data", "show", "coco", "-o", "out.png", "--split", "train"),
    "adapt": ("adapt", "coco.py", CHECKPOINT, "--workspace", "ws"),
}
# of images alone
PREDICT = ("predict", "coco/val", "--workspace", "ws", "-o", "out")
SPLITS = {
    "evaluate": "val",
    "pretrain": "train",
    "show": "val",
    "show train": "train",
    "adapt": "val",
}
WRITES = ("out.png", "out", "out/*")

Change = Callable[[dict[str, Any]], Any]


def prepare(place: Place) -> Path:
    """The dataset of the workspace, copied to ``coco``, and a config for it."""
    import shutil

    made = next((place.fixture / "ws" / "data").iterdir())
    root = place.folder / "coco"
    shutil.copytree(made, root)
    (place.folder / "coco.py").write_text(CONFIG.replace("{folder}", str(place.folder)))
    return root


def catalogue() -> list[Case]:
    cases = []
    commands = list(COMMANDS)
    for n, (name, change) in enumerate(annotations().items()):
        for command in (commands[n % 2], commands[2 + n % 3]):
            codes = MISTAKE if name.startswith("!") else MAYBE
            if command.startswith("show") and "another dataset" in name:
                codes = MAYBE  # of any dataset: it knows no config
            make = functools.partial(_with_document, change, SPLITS[command])
            cases.append(_case(f"{name} ({command})", command, make, codes))
    for n, (name, content) in enumerate(files().items()):
        for command in (commands[n % 2], commands[2 + n % 3]):
            make = functools.partial(_with_file, content, SPLITS[command])
            cases.append(_case(f"annotations: {name} ({command})", command, make, MISTAKE))
    for n, (name, spoil) in enumerate(images().items()):
        for command in (commands[n % 2], commands[2 + n % 3]):
            make = functools.partial(_with_image, spoil, SPLITS[command])
            cases.append(_case(f"image: {name} ({command})", command, make, MAYBE))
        make = functools.partial(_with_image, spoil, "val")
        more = ("--skip-broken",) if n % 2 else ()
        cases.append(
            Case(f"image: {name} (predict)", (*PREDICT, *more), make, MAYBE, writes=WRITES)
        )
    for suffix in (".mp4", ".avi", ".gif", ".webm"):
        for name, content in {"empty": b"", "text": b"hello\n" * 99, "zeros": bytes(9999)}.items():
            make = functools.partial(_video, f"x{suffix}", content)
            words = ("predict", f"x{suffix}", "--workspace", "ws", "-o", "out")
            cases.append(Case(f"video: {name} {suffix}", words, make, MISTAKE, writes=WRITES))
    for name, (words, make) in folders().items():
        codes = MAYBE if name.startswith("?") else MISTAKE
        cases.append(Case(name, words, make, codes, writes=(*WRITES, "made", "made/*")))
    return cases


def mutation(rng: random.Random) -> Case:
    command = rng.choice(list(COMMANDS))
    seed = rng.random()
    what = rng.choice(["document", "document", "document", "annotation", "bytes", "image"])
    make = functools.partial(_mutated, what, seed, SPLITS[command])
    return _case(f"{what} mutated ({command})", command, make, FOUND)


def _case(name: str, command: str, make: Callable[[Place], object], codes: frozenset[int]) -> Case:
    return Case(name, COMMANDS[command], make, codes, writes=WRITES)


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _with_document(change: Change, split: str, place: Place) -> None:
    path = _annotation_file(prepare(place), split)
    document = json.loads(path.read_text())
    changed = change(document)
    path.write_text(json.dumps(document if changed is None else changed))


def _with_file(content: bytes | Callable[[Path], object], split: str, place: Place) -> None:
    path = _annotation_file(prepare(place), split)
    if callable(content):
        path.unlink()
        content(path)
    else:
        path.write_bytes(content)


def _with_image(spoil: Callable[[Path], object], split: str, place: Place) -> None:
    root = prepare(place)
    for path in sorted((root / split).glob("*.png"))[:1]:
        spoil(path)


def _video(name: str, content: bytes, place: Place) -> None:
    (place.folder / name).write_bytes(content)


def _mutated(what: str, seed: float, split: str, place: Place) -> None:
    rng = random.Random(seed)
    root = prepare(place)
    path = _annotation_file(root, split)
    document = json.loads(path.read_text())
    if what == "document":
        document, _ = mutate.document(document, rng)
    elif what == "annotation":
        for one in rng.sample(document["annotations"], 3):
            changed, _ = mutate.document(one, rng)
            document["annotations"][document["annotations"].index(one)] = changed
    if what == "bytes":
        path.write_bytes(mutate.raw(path.read_bytes(), rng)[0])
    elif what == "image":
        for image in rng.sample(sorted((root / split).glob("*.png")), 2):
            image.write_bytes(mutate.raw(image.read_bytes(), rng)[0])
    else:
        try:
            path.write_text(json.dumps(document))
        except ValueError:
            path.write_text("{")


# --- annotations ---------------------------------------------------------------------------------


def _each(field: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        for one in document["annotations"]:
            one[field] = value

    return change


def _first(field: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["annotations"][0][field] = value

    return change


def _without(field: str) -> Change:
    def change(document: dict[str, Any]) -> None:
        for one in document["annotations"]:
            one.pop(field, None)

    return change


def _image(field: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["images"][0][field] = value

    return change


def _no_image(field: str) -> Change:
    return lambda document: document["images"][0].pop(field)


def _category(field: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["categories"][0][field] = value

    return change


def _top(field: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document[field] = value

    return change


def _doubled(part: str) -> Change:
    def change(document: dict[str, Any]) -> None:
        document[part].append(dict(document[part][0]))

    return change


def _huge(document: dict[str, Any]) -> None:
    one = document["annotations"][0]
    document["annotations"] = [{**one, "id": n} for n in range(1, 100_001)]


SEGMENTATIONS: dict[str, Any] = {
    "empty": [],
    "null": None,
    "a number": 5,
    "text": "x",
    "a polygon of no points": [[]],
    "a polygon of one point": [[1, 1]],
    "a polygon of two points": [[1, 1, 5, 5]],
    "a polygon of an odd number": [[1, 1, 5, 1, 5, 5, 1]],
    "a polygon of text": [["a", "b", "c", "d", "e", "f"]],
    "a polygon of null": [[None] * 6],
    "a polygon of NaN": [[math.nan] * 6],
    "a polygon of infinity": [[math.inf, 1, 2, 3, 4, 5]],
    "a polygon of huge numbers": [[1e308, 1e308, -1e308, 5, 7, 1e308]],
    "a polygon outside": [[-500, -500, -400, -500, -400, -400]],
    "a polygon on one spot": [[5, 5, 5, 5, 5, 5]],
    "a polygon that is flat": [5, 5, 9, 5, 9, 9],
    "a polygon that is deep": [[[5, 5, 9, 5, 9, 9]]],
    "a polygon of pairs": [[[5, 5], [9, 5], [9, 9]]],
    "a polygon of 100,000 points": [[n % 60 for n in range(200_000)]],
    "10,000 polygons": [[5, 5, 9, 5, 9, 9]] * 10_000,
    "an empty RLE": {},
    "an RLE without counts": {"size": [64, 64]},
    "an RLE without a size": {"counts": [4096]},
    "an RLE of null": {"size": None, "counts": None},
    "an RLE of text": {"size": "x", "counts": [4096]},
    "an RLE of too few": {"size": [64, 64], "counts": [5]},
    "an RLE of too many": {"size": [64, 64], "counts": [5000]},
    "an RLE of negative counts": {"size": [64, 64], "counts": [-5, 4101]},
    "an RLE of huge counts": {"size": [64, 64], "counts": [10**12, 10**20]},
    "an RLE of fractions": {"size": [64, 64], "counts": [0.5, 4095.5]},
    "an RLE of text counts": {"size": [64, 64], "counts": ["a"]},
    "an RLE of another size": {"size": [32, 32], "counts": [1024]},
    "an RLE of size 0": {"size": [0, 0], "counts": []},
    "an RLE of a negative size": {"size": [-64, 64], "counts": [4096]},
    "an RLE of a huge size": {"size": [10**6, 10**6], "counts": [10**12]},
    "an RLE of one number": {"size": [64], "counts": [64]},
    "an RLE of three numbers": {"size": [64, 64, 3], "counts": [4096]},
    "a compressed RLE of nonsense": {"size": [64, 64], "counts": "~~~~~~~~"},
    "a compressed RLE of other letters": {"size": [64, 64], "counts": "\u00e9\U0001f600"},
    "a compressed RLE that is empty": {"size": [64, 64], "counts": ""},
    "a compressed RLE that is cut": {"size": [64, 64], "counts": "PPPPPPPP"},
    "a compressed RLE that is endless": {"size": [64, 64], "counts": "o" * 100_000},
    "a compressed RLE beyond its size": {"size": [64, 64], "counts": "PPPPPP1"},
}
BOXES: dict[str, Any] = {
    "null": None,
    "empty": [],
    "of text": "x",
    "of three": [1, 1, 5],
    "of five": [1, 1, 5, 5, 5],
    "of letters": ["a", "b", "c", "d"],
    "of null": [None] * 4,
    "of NaN": [math.nan] * 4,
    "of infinity": [0, 0, math.inf, math.inf],
    "of no width": [5, 5, 0, 5],
    "of negative width": [5, 5, -5, 5],
    "outside": [500, 500, 5, 5],
    "huge": [0, 0, 1e308, 1e308],
    "tiny": [5, 5, 1e-300, 1e-300],
    "of bools": [True, True, True, True],
    "deep": [[1, 1, 5, 5]],
    "a mapping": {"x": 1},
}


def annotations() -> dict[str, Change]:
    """Changes of an annotation file, by name; ``!`` marks what is certainly a mistake."""
    changes: dict[str, Change] = {}
    for name, value in SEGMENTATIONS.items():
        changes[f"segmentation {name}"] = _first("segmentation", value)
    for name in ("empty", "null", "a polygon of one point", "an empty RLE"):
        changes[f"every segmentation {name}"] = _each("segmentation", SEGMENTATIONS[name])
    changes["no segmentation"] = _without("segmentation")
    for name, value in BOXES.items():
        changes[f"bbox {name}"] = _first("bbox", value)
    changes["every bbox of NaN"] = _each("bbox", [math.nan] * 4)
    for field in ("bbox", "area", "iscrowd", "category_id", "image_id", "id"):
        changes[f"no {field}"] = _without(field)
    for value in (2, -1, 0.5, "x", None, [], True, "1", math.nan):
        changes[f"iscrowd {value!r}"] = _first("iscrowd", value)
    changes["every iscrowd 1 with polygons"] = _each("iscrowd", 1)
    for value in (-1, "x", None, math.nan, math.inf, 0, 1e308, []):
        changes[f"area {value!r}"] = _first("area", value)
    for value in (0, -1, 99, "1", None, 1.5, [], "x", 10**20, math.nan, True):
        changes[f"category_id {value!r}"] = _first("category_id", value)
        changes[f"image_id {value!r}"] = _first("image_id", value)
        changes[f"annotation id {value!r}"] = _first("id", value)
        changes[f"category whose id is {value!r}"] = _category("id", value)
        changes[f"image whose id is {value!r}"] = _image("id", value)
    changes["!the same annotation id everywhere"] = _each("id", 1)
    changes["!an annotation twice"] = _doubled("annotations")
    changes["!an image twice"] = _doubled("images")
    changes["!a category twice"] = _doubled("categories")
    for value in (0, -5, 1.5, "64", None, [], 10**6, 10**20, 32, math.nan, "x"):
        changes[f"image width {value!r}"] = _image("width", value)
        changes[f"image height {value!r}"] = _image("height", value)
    for value in (
        *("", None, 5, [], {}, "nowhere.png", "../../../etc/passwd", "/etc/passwd"),
        *("/dev/zero", "."),
        *("~nobody-of-this-name/x.png", "a" * 300 + ".png", "a\x00b.png", mutate.ESCAPE),
        *("http://127.0.0.1:9/x.png",),
        *("s3://b/x.png", "../annotations/instances_val.json", "000000.png/x", "\ud800.png", "-"),
    ):  # fmt: skip
        changes[f"file_name {value!a:.40}"] = _image("file_name", value)
    for field in ("file_name", "width", "height", "id"):
        changes[f"image without {field}"] = _no_image(field)
    for value in (
        "",
        None,
        5,
        [],
        mutate.ESCAPE,
        "x" * 100_000,
        "\ud800",
        "[bold]x",
        "a\nb",
        "other",
    ):
        changes[f"category name {value!a:.40}"] = _category("name", value)
    for part in ("images", "annotations", "categories"):
        for value in ([], None, {}, "x", 5, [None], [5], [[]], [{}], ["x"], {"0": {}}):
            name = f"{part} {value!r}"
            changes[f"!{name}" if not (part == "annotations" and value == []) else name] = _top(
                part, value
            )
        changes[f"!no {part}"] = functools.partial(_drop, part)
        changes[f"{part} 300 deep"] = _top(part, mutate.deep_list(300))
    changes |= {
        "!a list": lambda d: [d],
        "!null": lambda d: 0,
        "!text": lambda d: "x",
        "!an empty object": lambda d: {"x": 1},
        "info 900 deep": _top("info", mutate.deep_list(900)),
        "info that is huge": _top("info", "x" * 5_000_000),
        "licenses of text": _top("licenses", "x"),
        "100,000 annotations": _huge,
        "10,000 categories": lambda d: _top(
            "categories", [{"id": n, "name": f"c{n}"} for n in range(10_000)]
        )(d),
        "no annotation of the first image": lambda d: _top(
            "annotations", [a for a in d["annotations"] if a["image_id"] != d["images"][0]["id"]]
        )(d),
        "crowds alone": lambda d: _each("iscrowd", 1)(d),
        "one image": lambda d: _top("images", d["images"][:1])(d),
        "!categories of another dataset": lambda d: _top("categories", [{"id": 1, "name": "cat"}])(
            d
        ),
        "categories in another order": lambda d: _top("categories", d["categories"][::-1])(d),
        "keypoints": _each("keypoints", [1, 2]),
        "ids as text": _ids_as_text,
        "ignore": _each("ignore", 1),
    }
    return changes


def _ids_as_text(document: dict[str, Any]) -> None:
    for one in document["images"]:
        one["id"] = str(one["id"])
    for one in document["annotations"]:
        one["image_id"] = str(one["image_id"])


def _drop(part: str, document: dict[str, Any]) -> None:
    del document[part]


def files() -> dict[str, bytes | Callable[[Path], object]]:
    """Annotation files that hold no annotations, by name."""
    deep = b"[" * 100_000
    return {
        "empty": b"",
        "text": b"hello",
        "cut": b'{"images": [{"id": 1, "file_na',
        "binary": bytes(range(256)),
        "UTF-16": "{}".encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf{",
        "deep": deep,
        "deep and closed": b'{"images": ' + deep + b"]" * 100_000 + b"}",
        "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "5,000 digits": b'{"images": ' + b"9" * 5000 + b"}",
        "NaN": b"NaN",
        "gzip": b"\x1f\x8b\x08" + bytes(20),
        "a web page": b"<!DOCTYPE html>",
        "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "an escape": mutate.ESCAPE.encode(),
        "a pickle": b"\x80\x02cos\nsystem\nX\x07\x00\x00\x00touch x\x85R.",
        "missing": lambda path: None,
        "a folder": lambda path: path.mkdir(),
        "a named pipe": lambda path: os.mkfifo(path),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to nothing": lambda path: path.symlink_to("nowhere"),
        "an endless device": lambda path: path.symlink_to("/dev/zero"),
    }


# --- images --------------------------------------------------------------------------------------


def _png(width: int, height: int, data: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(data)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def _painted(
    width: int, height: int, mode: str = "RGB", form: str = "PNG"
) -> Callable[[Path], object]:
    def paint(path: Path) -> None:
        from PIL import Image

        Image.new(mode, (width, height)).save(path, format=form)

    return paint


def images() -> dict[str, Callable[[Path], object]]:
    """What may stand where an image should, by name."""

    def write(content: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(content)

    def replace(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def change(path: Path) -> None:
            path.unlink()
            make(path)

        return change

    found: dict[str, Callable[[Path], object]] = {
        "empty": write(b""),
        "text": write(b"hello"),
        "a web page": write(b"<html>"),
        "zeros": write(bytes(5000)),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:500]),
        "cut to its header": lambda path: path.write_bytes(path.read_bytes()[:33]),
        "a bit flipped": lambda path: path.write_bytes(
            mutate.raw(path.read_bytes(), random.Random(0))[0]
        ),
        "claims 10^9 pixels": write(_png(2**15, 2**15)),
        "claims 10^18 pixels": write(_png(2**30, 2**30)),
        "claims no pixels": write(_png(0, 0)),
        "a bomb of zeros": write(_png(30_000, 30_000, bytes(3_000_000))),
        "16 bits": _painted(64, 64, "I;16"),
        "grey": _painted(64, 64, "L"),
        "black and white": _painted(64, 64, "1"),
        "with alpha": _painted(64, 64, "RGBA"),
        "with a palette": _painted(64, 64, "P"),
        "CMYK": _painted(64, 64, "CMYK", "JPEG"),
        "a JPEG": _painted(64, 64, "RGB", "JPEG"),
        "a GIF": _painted(64, 64, "P", "GIF"),
        "a TIFF": _painted(64, 64, "RGB", "TIFF"),
        "a float TIFF": _painted(64, 64, "F", "TIFF"),
        "a BMP": _painted(64, 64, "RGB", "BMP"),
        "a WebP": _painted(64, 64, "RGB", "WEBP"),
        "another size": _painted(100, 30),
        "one pixel": _painted(1, 1),
        "one row": _painted(64, 1),
        "one column": _painted(1, 64),
        "very wide": _painted(5000, 1),
        "3000 pixels": _painted(3000, 3000),
        "an SVG": write(b'<svg xmlns="http://www.w3.org/2000/svg" width="1e9" height="1e9"/>'),
        "a program": write(b"#!/bin/sh\ntouch x\n"),
        "missing": replace(lambda path: None),
        "a folder": replace(lambda path: path.mkdir()),
        "a named pipe": replace(lambda path: os.mkfifo(path)),
        "a link to itself": replace(lambda path: path.symlink_to(path.name)),
        "a link to nothing": replace(lambda path: path.symlink_to("nowhere")),
        "an endless device": replace(lambda path: path.symlink_to("/dev/zero")),
        "/dev/null": replace(lambda path: path.symlink_to("/dev/null")),
        "the workspace's record": replace(lambda path: path.symlink_to("../../ws/workspace.json")),
    }
    found["all of them missing"] = lambda path: [p.unlink() for p in path.parent.glob("*.png")]
    found["all of them empty"] = lambda path: [
        p.write_bytes(b"") for p in path.parent.glob("*.png")
    ]
    found["all of them text"] = lambda path: [
        p.write_bytes(b"x") for p in path.parent.glob("*.png")
    ]
    return found


# --- folders -------------------------------------------------------------------------------------


def folders() -> dict[str, tuple[tuple[str, ...], Callable[[Place], object] | None]]:
    """Commands on folders that are no dataset; ``?`` marks what may be legal."""
    small = ("--train", "2", "--val", "2", "--img-size", "64")
    cases: dict[str, tuple[tuple[str, ...], Callable[[Place], object] | None]] = {}
    for folder in (
        "nowhere",
        "private",
        "tiny.py",
        "ws",
        ".",
        "/",
        "~nobody-of-this-name",
        "a" * 300,
        "x\x1b[31m",
        "/dev/null",
    ):
        cases[f"show {folder[:20]!a}"] = (("data", "show", folder, "-o", "out.png"), None)
    for folder in (
        "private",
        "tiny.py",
        ".",
        "/dev/null",
        "~nobody-of-this-name/x",
        "a" * 300,
        "/proc/x",
        "tiny.py/x",
    ):
        cases[f"make in {folder[:20]!a}"] = (("data", "make", folder, *small), None)
    cases["make in a dataset of another program"] = (("data", "make", "coco", *small), prepare)
    cases["make --force in a user's folder"] = (
        ("data", "make", "private", "--force", *small),
        None,
    )
    cases["make --force in the working directory"] = (
        ("data", "make", ".", "--force", *small),
        None,
    )
    for out in ("nowhere/x/out.png", "private", "out", "out.xyz", "/dev/full", "tiny.py", "notes.txt", "a" * 300 + ".png",
                "photos.json", "~nobody-of-this-name/x.png", "/proc/x.png", "out.png/x.png"):  # fmt: skip
        name = f"show to {out[:20]!a}"
        if out == "nowhere/x/out.png":
            name = f"?{name}"
        cases[name] = (("data", "show", "coco", "-o", out), prepare)
    for options in (
        *(("--images", "0"), ("--images", "-1"), ("--images", "x"), ("--split", "x")),
        *(("--split", ""),),
        *(("--split", "../val"), ("--images", "²"), ("--split", "\x1b[31m")),
    ):  # fmt: skip
        cases[f"show {' '.join(options)!a}"] = (
            ("data", "show", "coco", "-o", "out.png", *options),
            prepare,
        )
    cases["?show 10^20 images"] = (
        ("data", "show", "coco", "-o", "out.png", "--images", "99999999999999999999"),
        prepare,
    )
    for option, values in {
        "--img-size": (
            "0",
            "-1",
            "x",
            "²",
            "1x2x3",
            "64x",
            "1",
            "99999999999999999999",
            "1000000",
            "64.5",
            "",
        ),
        "--train": ("-1", "x", "99999999999999999999", "1.5", "²"),
        "--val": ("-1", "x", "99999999999999999999", ""),
        "--objects": ("x", "5-1", "-1", "1-", "99999999999999999999", "1-2-3", "²", "", "0-0"),
        "--object-size": ("x", "5-1", "0-0", "-1", "1-99999999999999999999", "²", "0.5"),
        "--classes": ("", ",", "circle,circle", "nothing", "\x1b[31m", "circle," * 5000, "²"),
        "--masks": ("x", "", "polygon,rle", "\x1b[31m"),
        "--format": ("x", "", "gif", "../png", "\x1b[31m"),
        "--seed": ("-1", "x", "1.5"),
    }.items():
        for value in values:
            words = (
                "data",
                "make",
                "made",
                "--train",
                "2",
                "--val",
                "2",
                "--img-size",
                "64",
                option,
                value,
            )
            cases[f"{'?' if value == '0-0' else ''}make {option} {value[:20]!a}"] = (words, None)
    return cases
