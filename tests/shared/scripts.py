"""Scripts beside exported files, run where there is neither sparsevit nor any of its frameworks."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

_ALONE = """\
import pickle, runpy, sys
script, image, out, reads, *blocked = sys.argv[1:]

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not here")

# a .pth file may have brought some before the first line
for name in [name for name in sys.modules if name.partition(".")[0] in blocked]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocked())
sys.argv = [script] + ([image] if image else [])
made = runpy.run_path(script, run_name="__main__")
if out:
    found = made["find"](made["load"](), made[reads](image))
    with open(out, "wb") as stream:
        pickle.dump(found, stream)
assert not [name for name in sys.modules if name.partition(".")[0] in blocked]
"""
FRAMEWORKS = ("sparsevit", "mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain")


@dataclass(frozen=True)
class Ran:
    """What a script did: exit code, what it printed, and what its ``find`` gives."""

    code: int
    out: str
    err: str
    found: Any


def run_script(script: Path, image: Path | str = "", find: bool = True, reads: str = "read") -> Ran:
    """A script by itself, in the folder of the image, or its own.

    Args:
        script: to run.
        image: its argument; none where empty.
        find: call its ``find``, too.
        reads: its function that reads the argument.
    """
    uses_torch = "import torch" in script.read_text(encoding="utf-8")
    blocked = (*FRAMEWORKS, *(() if uses_torch else ("torch",)))
    folder = Path(image).parent if image else script.parent
    out = script.with_suffix(".pickle") if find else ""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _ALONE, *map(str, (script, image, out, reads)), *blocked],
        capture_output=True,
        text=True,
        cwd=folder if folder.is_dir() else script.parent,
        timeout=120,
    )
    found = pickle.loads(out.read_bytes()) if find and done.returncode == 0 else None
    return Ran(done.returncode, done.stdout, done.stderr, found)


def resized(source: Path, out: Path, width: int, height: int) -> Path:
    """A copy of an image in another size."""
    pixels = cv2.resize(cv2.imread(str(source)), (width, height))
    assert cv2.imwrite(str(out), pixels)
    return out


def packed(cfg: Any, image: Path, scale: tuple[int, int] | None = None) -> dict[str, Any]:
    """A batch of an image by the test pipeline, which resizes to a scale; as it does where None."""
    init_default_scope(cfg.default_scope)
    steps = [dict(step) for step in cfg.test_dataloader.dataset.pipeline]
    steps = [step for step in steps if step["type"] != "LoadAnnotations"]
    for step in steps:
        if scale is not None and step["type"] == "Resize":
            step["scale"] = scale
    info = {"img_path": str(image), "img_id": 0, "seg_fields": [], "reduce_zero_label": False}
    sample = Compose(steps)(info)
    return {key: [value] for key, value in sample.items()}


def prepared(cfg: Any, model: Any, image: Path, scale: tuple[int, int] | None = None) -> Any:
    """What a model's preprocessor makes of :func:`packed`."""
    return model.data_preprocessor(packed(cfg, image, scale), False)


def by_the_pipeline(cfg: Any, model: Any, image: Path, scale: tuple[int, int]) -> Any:
    """What a model finds in :func:`packed`: a sample."""
    model.eval()
    with torch.no_grad():
        (found,) = model.test_step(packed(cfg, image, scale))
    return found


def changed_pixels(image: Path, drawn: Path) -> float:
    """Share of the pixels in which two pictures of one size differ."""
    return float(np.any(cv2.imread(str(image)) != cv2.imread(str(drawn)), axis=2).mean())
