"""What a script finds by a segmentor's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsevit.tasks.script import Finding, NoScript, class_list

_FIND = '''
COLOURS = np.random.default_rng(0).integers(0, 256, (len(CLASSES), 3))


def find(run, image: np.ndarray) -> np.ndarray:
    """The class of every pixel: (H, W) integers."""
    pixels, (width, height) = prepare(image)
    logits = run(np.repeat(pixels[None], BATCH, axis=0))[0][0, :, :height, :width]
    logits = np.stack([cv2.resize(one, image.shape[1::-1]) for one in logits])
    return {choose}


def show(image: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Prints how much of the image each class has, and lays their colours over it."""
    for label in np.unique(found):
        print(f"{{np.mean(found == label):7.2%}}  {{CLASSES[label]!r}}")
    return (0.5 * image + 0.5 * COLOURS[found]).astype(np.uint8)
'''


def finding(model: Any, described: Mapping[str, Any]) -> Finding:
    """See :meth:`sparsevit.tasks.Task.finding`."""
    if described["slide"]:
        raise NoScript("the segmentor slides over its images, and the file takes a crop")
    if model.align_corners:
        raise NoScript("the segmentor aligns corners where it resizes")
    constants: dict[str, Any] = {
        "CLASSES": class_list(described["classes"], described["num_classes"])
    }
    choose = "logits.argmax(axis=0)"
    if model.out_channels == 1:
        constants["THRESHOLD"] = float(model.decode_head.threshold)
        choose = "(1 / (1 + np.exp(-logits[0])) > THRESHOLD).astype(int)"
    code = _FIND.format(choose=choose)
    return Finding(code, constants=constants, what="the class of each pixel of an image")
