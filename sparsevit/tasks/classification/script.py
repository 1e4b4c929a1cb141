"""What a script finds by a classifier's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsevit.tasks.script import WRITE, Finding, NoScript, class_list

_FIND = '''
def find(run, image: np.ndarray) -> np.ndarray:
    """A score for each class: (K,), 1 in all."""
    pixels, _ = prepare(image)
    logits = run(np.repeat(pixels[None], BATCH, axis=0))[0][0]
    scores = np.exp(logits - logits.max())
    return scores / scores.sum()


def show(image: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Prints the likeliest classes, and writes the first into the image."""
    best = np.argsort(-found)[:5]
    for label in best:
        print(f"{found[label]:.3f}  {CLASSES[label]!r}")
    write(image, CLASSES[best[0]], (4, 16), [0, 0, 255])
    return image
'''


def finding(model: Any, described: Mapping[str, Any]) -> Finding:
    """See :meth:`sparsevit.tasks.Task.finding`."""
    from mmpretrain.models.heads import ClsHead

    if not isinstance(model.head, ClsHead):
        raise NoScript(f"a {type(model.head).__name__} may give its classes other scores")
    classes = class_list(described["classes"], described["outputs"][0]["shape"][1])
    return Finding(
        _FIND + WRITE,
        constants={"CLASSES": classes},
        what="the class of an image",
        crops=True,
    )
