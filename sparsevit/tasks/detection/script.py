"""What a script finds by a two-stage detector's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsevit.tasks.script import WRITE, Finding, class_list

_SHOWN = 0.3
"""Least score of a detection that is shown; as mmdet draws."""

_FIND = '''
COLOURS = np.random.default_rng(0).integers(0, 256, (len(CLASSES), 3))


def find(run, image: np.ndarray) -> list[dict]:
    """Objects, best first: score, label, box (x1, y1, x2, y2 in pixels of the image){and_mask}."""
    pixels, (width, height) = prepare(image)
    images = np.repeat(pixels[None], BATCH, axis=0)
    sizes = np.repeat(np.float32([[height, width]]), BATCH, axis=0)
    boxes, scores, labels{masks} = (output[0] for output in run(images, sizes))
    rows, columns = image.shape[:2]
    boxes = boxes / np.float32([width / columns, height / rows] * 2)
    found = []
    # a place that is not taken has the label -1
    for index in np.flatnonzero((labels >= 0) & (scores >= LEAST_SCORE)):
        one = {{"score": scores[index], "label": labels[index], "box": boxes[index]}}{paste}
        found.append(one)
    return found
{paste_function}

def show(image: np.ndarray, found: list[dict]) -> np.ndarray:
    """Prints objects and draws them."""
    for one in reversed(found):
        colour = COLOURS[one["label"]]{fill}
        x1, y1, x2, y2 = (round(float(side)) for side in one["box"])
        cv2.rectangle(image, (x1, y1), (x2, y2), colour.tolist(), 2)
        write(image, CLASSES[one["label"]], (x1, y1 + 12), colour.tolist())
    for one in found:
        sides = " ".join(f"{{side:.1f}}" for side in one["box"])
        print(f"{{one['score']:.3f}}  {{CLASSES[one['label']]!r}}  {{sides}}")
    return image
'''
_PASTE_FUNCTION = '''

def paste(mask: np.ndarray, box: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mask of a box (h, w) as one of the image: (height, width) bool."""
    x1, y1, x2, y2 = box
    x = (np.arange(width) + 0.5 - x1) / max(x2 - x1, 1e-3) * mask.shape[1] - 0.5
    y = (np.arange(height) + 0.5 - y1) / max(y2 - y1, 1e-3) * mask.shape[0] - 0.5
    grid = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(mask, *grid, cv2.INTER_LINEAR) >= MASK_THRESHOLD
'''


def finding(model: Any, described: Mapping[str, Any]) -> Finding:
    """See :meth:`sparsevit.tasks.Task.finding`."""
    constants: dict[str, Any] = {
        "CLASSES": class_list(described["classes"], described["num_classes"]),
        "LEAST_SCORE": _SHOWN,
    }
    masks = model.roi_head.with_mask
    if masks:
        threshold = model.roi_head.test_cfg.get("mask_thr_binary", 0.5)
        # mmdet takes a negative one for probabilities
        constants["MASK_THRESHOLD"] = float(threshold) if threshold >= 0 else 0.5
    code = _FIND.format(
        and_mask=", mask" if masks else "",
        masks=", masks" if masks else "",
        paste=(
            '\n        one["mask"] = paste(masks[index], boxes[index], columns, rows)'
            if masks
            else ""
        ),
        paste_function=_PASTE_FUNCTION if masks else "",
        fill=(
            '\n        image[one["mask"]] = 0.5 * image[one["mask"]] + 0.5 * colour'
            if masks
            else ""
        ),
    )
    return Finding(code + WRITE, constants=constants, what="the objects in an image")
