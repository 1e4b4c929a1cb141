"""How a test pipeline and a preprocessor prepare an image, as a part of a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from sparsevit.engine.image_size import Size, is_geometry, padding, test_pipeline, type_name
from sparsevit.tasks.script import NoScript, Part

_CV2 = {
    "nearest": "INTER_NEAREST",
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "area": "INTER_AREA",
    "lanczos": "INTER_LANCZOS4",
}
_PILLOW = ("nearest", "bilinear", "bicubic", "box", "lanczos", "hamming")
_SIX_CAMERAS = "LoadMultiViewImageFromFiles_BEVDet"

# --- the lines of ``prepare(image)`` --------------------------------------------------------------

_STRETCH = "    width, height = FIT"
_KEEP_RATIO = """\
    scale = min(FIT[0] / image.shape[1], FIT[1] / image.shape[0])
    width, height = (max(1, int(side * scale + 0.5)) for side in image.shape[1::-1])"""
_EDGE = """\
    rows, columns = image.shape[:2]
    if columns < rows:
        width, height = EDGE, int(EDGE * rows / columns)
    else:
        width, height = int(EDGE * columns / rows), EDGE"""
_CV2_RESIZE = "    image = cv2.resize(image, (width, height), interpolation=cv2.{kind})"
_PILLOW_RESIZE = """\
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.{kind})
    image = np.asarray(resized)"""
_CROP = """\
    left, top = round((width - WIDTH) / 2), round((height - HEIGHT) / 2)
    image = image[top : top + HEIGHT, left : left + WIDTH]
    width, height = WIDTH, HEIGHT"""
_PAD = """\
    after = ((0, HEIGHT - height), (0, WIDTH - width), (0, 0))
    pixels = np.pad(pixels, after, constant_values=PADDING)"""
_PREPARE = '''
def prepare(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """(H, W, 3) uint8 -> (3, HEIGHT, WIDTH) float32, and (width, height) of the image in it."""
{lines}
    return pixels.transpose(2, 0, 1), (width, height)
'''
_OF_A_CAMERA = '''
def prepare(image: np.ndarray) -> tuple[np.ndarray, tuple[float, int, int]]:
    """(H, W, 3) uint8 -> (3, HEIGHT, WIDTH) float32; by what the image was scaled, and what of it
    was then cut off at the left and at the top."""
    scale = WIDTH / image.shape[1] + SCALE_MORE
    width, height = int(image.shape[1] * scale), int(image.shape[0] * scale)
    left, top = max(0, width - WIDTH) // 2, int((1 - CUT_BELOW) * height) - HEIGHT
    resized = Image.fromarray(image).resize((width, height))
    image = np.asarray(resized.crop((left, top, left + WIDTH, top + HEIGHT)))
    pixels = {pixels}
    return pixels.transpose(2, 0, 1), (scale, left, top)
'''


def preparation(cfg: Config, given: Mapping[str, Any], batch: int, crops: bool) -> Part:
    """``prepare(image)``: what the test pipeline and the preprocessor make of an image.

    Where the pipeline keeps an image's ratio, it is scaled to fit into the size of the file and
    padded below and at the right.

    Args:
        cfg: the config.
        given: ``input`` of the description of the file.
        batch: what the constant ``BATCH`` is to be.
        crops: whether an image may lose its edges.

    Raises:
        NoScript: the pipeline does something else, or is not there.
    """
    height, width = given["shape"][-2:]
    preprocessor = cfg.model.get("data_preprocessor") or {}
    constants: dict[str, Any] = {
        "WIDTH": width,
        "HEIGHT": height,
        "BATCH": batch,
        "MEAN": [float(value) for value in given["mean"] or (0, 0, 0)],
        "STD": [float(value) for value in given["std"] or (1, 1, 1)],
    }
    # OpenCV reads blue first
    colours = "image" if given["channels"] == "BGR" else "image[..., ::-1]"
    pixels = f"({colours} - np.float32(MEAN)) / np.float32(STD)"
    cameras, steps = _steps(cfg)
    if cameras is not None:
        constants["SCALE_MORE"] = float(cameras.get("resize_test", 0))
        constants["CUT_BELOW"] = sum(cameras["crop_h"]) / 2
        return _part(_OF_A_CAMERA.format(pixels=pixels), constants, pillow=True)
    resize, *rest = steps or [{}]
    kind, keep = _name(resize), bool(resize.get("keep_ratio"))
    if kind == "Resize" and resize.get("scale"):
        fit = _fit(cfg, resize["scale"], (height, width), bool(rest))
        constants["FIT"], lines = (fit[1], fit[0]), [_KEEP_RATIO if keep else _STRETCH]
    elif kind == "ResizeEdge" and resize.get("edge", "short") == "short" and rest:
        constants["EDGE"], lines = int(resize["scale"]), [_EDGE]
    else:
        raise NoScript(f"the test pipeline begins with {kind or 'no step that resizes'}")
    way, pillow = _resizing(resize)
    lines.append(way)
    if rest:
        smallest = constants.get("EDGE", min(constants.get("FIT", (0, 0))))
        _require_crop(rest, (height, width), smallest, crops and not (kind == "Resize" and keep))
        lines.append(_CROP)
    lines.append(f"    pixels = {pixels}")
    if not rest and (keep or constants["FIT"] != (width, height)):
        value = preprocessor.get("pad_value", preprocessor.get("pad_val", 0))
        constants["PADDING"] = float(value)
        lines.append(_PAD)
    return _part(_PREPARE.format(lines="\n".join(lines)), constants, pillow)


def _part(code: str, constants: Mapping[str, Any], pillow: bool) -> Part:
    if not pillow:
        return Part(code, constants=constants)
    return Part(code, ("from PIL import Image",), constants, ("pillow",))


def _steps(cfg: Config) -> tuple[Any, list[Any]]:
    """What says how images of several cameras are loaded, if they are, and what changes images."""
    found = test_pipeline(cfg)
    if not found:
        raise NoScript("the config has no test pipeline")
    for step in found:
        if _name(step) == _SIX_CAMERAS:
            return step["data_config"], []
        if _name(step).startswith("Load") and step.get("color_type", "color") != "color":
            raise NoScript(f"the test pipeline loads images as {step['color_type']}")
    return None, [step for step in found if is_geometry(step["type"])]


def _name(step: Mapping[str, Any]) -> str:
    return type_name(step.get("type", ""))


def _fit(cfg: Config, scale: Any, size: Size, cropped: bool) -> Size:
    """The size to scale to: that of the pipeline, where its images are then padded to ``size``."""
    width, height = (scale, scale) if isinstance(scale, int) else map(int, scale)
    if cropped:
        return height, width
    pad = padding(cfg)
    # which of a scale's sides is the longer one makes no difference to the pipeline
    either = ((height, width), (width, height))
    return next((one for one in either if min(one) > 0 and pad(one) == size), size)


def _resizing(step: Mapping[str, Any]) -> tuple[str, bool]:
    """The line that resizes, and whether it takes Pillow."""
    backend, kind = step.get("backend", "cv2"), step.get("interpolation", "bilinear")
    if backend == "cv2" and kind in _CV2:
        return _CV2_RESIZE.format(kind=_CV2[kind]), False
    if backend == "pillow" and kind in _PILLOW:
        return _PILLOW_RESIZE.format(kind=kind.upper()), True
    raise NoScript(f"the test pipeline resizes by {backend}, {kind}")


def _require_crop(steps: Sequence[Any], size: Size, smallest: int, crops: bool) -> None:
    crop = steps[0].get("crop_size")
    wanted = (crop, crop) if isinstance(crop, int) else tuple(crop or ())
    if len(steps) > 1 or _name(steps[0]) != "CenterCrop" or not crops:
        names = ", ".join(map(_name, steps))
        raise NoScript(f"the test pipeline has {names} after it resizes")
    if wanted != size[::-1] or smallest < max(size):
        raise NoScript(
            f"the test pipeline crops to {wanted[0]}x{wanted[-1]}, and the file takes "
            f"{size[1]}x{size[0]}"
        )
