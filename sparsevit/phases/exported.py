"""A file that ``sparsevit export`` wrote, to execute a model with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsevit.errors import UserError
from sparsevit.latency.backends.artefacts import FORMATS, Format
from sparsevit.phases.inputs import PathLike
from sparsevit.plain_files import expanded, read_plain
from sparsevit.tasks import Task


@dataclass(frozen=True)
class Exported:
    """An exported file, by the description beside it.

    Attributes:
        path: the file.
        sidecar: the description, which is a file with a configuration too.
        scope: what it executes: ``backbone``, ``detector`` ...
        format: one of ``FORMATS``.
        shape: (B, 3, H, W) of the images that it takes.
        weights: digest of the checkpoint that it was made of.
    """

    path: Path
    sidecar: Path
    scope: str
    format: str
    shape: tuple[int, ...]
    weights: str

    @classmethod
    def read(cls, path: PathLike) -> Exported:
        """Read the description; the file itself is not opened.

        Raises:
            UserError: there is no such file or no description, or it is none of ours.
        """
        file = expanded(path)
        sidecar = file.with_name(file.name + ".json")
        if not file.is_file():
            raise UserError(f"There is no file {file}.", "Write it with `sparsevit export`.")
        if not sidecar.is_file():
            raise UserError(
                f"{sidecar.name}, which says what {file.name} is, is not beside it.",
                "Keep both together, or write them again with `sparsevit export`.",
            )
        said = read_plain(sidecar)
        try:
            scope, form = str(said["scope"]), str(said["format"])
            shape = tuple(int(side) for side in said["input"]["shape"])
            weights = str(said["checkpoint"]["digest"])
        except (KeyError, TypeError, ValueError):
            shape = ()
        if len(shape) < 4:
            raise _unknown(sidecar)
        return cls(file, sidecar, scope, form, shape, weights)

    def loader(self, task: Task, device: torch.device) -> Callable[[Any], Any]:
        """What gives, for images, what executes the backbone or the whole model on them.

        The file is loaded once. Images of another size than its own are refused.

        Raises:
            UserError: it takes several samples at once, or its runtime is not installed, not for
                this device, or cannot load it.
        """
        if self.shape[0] != task.views:
            raise UserError(
                f"{self.path} takes {self.shape[0]} images a call, and they come one by one.",
                "Export it with --batch-size 1.",
            )
        formats = FORMATS if self.scope == "backbone" else task.formats()
        form: Format[Any] | None = formats.get(self.format)
        if form is None:
            raise _unknown(self.sidecar)
        form.check()
        try:
            run = form.load(self.path, "fp32", device)
        except UserError:
            raise
        except Exception as error:  # each runtime has its own
            raise UserError(
                f"{self.path} cannot be loaded: {' '.join(str(error).split())[:300]}",
                "Write it again with `sparsevit export`.",
            ) from error

        def loaded(images: Any) -> Any:
            shape = tuple(task.pixels_of(images).shape)
            if shape[-2:] != self.shape[-2:]:
                (height, width), (rows, columns) = self.shape[-2:], shape[-2:]
                raise UserError(
                    f"{self.path.name} takes images of {width}x{height}, and the test pipeline "
                    f"makes this one {columns}x{rows}.",
                    f"Export a file for it: sparsevit export --img-size {columns}x{rows}.",
                )
            return run

        return loaded


def _unknown(sidecar: Path) -> UserError:
    return UserError(
        f"{sidecar} is not a description that `sparsevit export` wrote.",
        "Write the file again with `sparsevit export`.",
    )
