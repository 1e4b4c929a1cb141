"""Weights on disk: every form they come in, loaded into a model with an account of what fitted."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.atomic import replacing
from sparsevit.engine.finite import not_finite
from sparsevit.engine.safe_load import (
    MapLocation,
    load_file,
    make_loading_safe,
    no_weights,
    weights_in,
)
from sparsevit.errors import RunFailed, UserError, shortened
from sparsevit.tasks import TASKS

__all__ = ["LoadReport", "load_weights", "make_loading_safe", "read_checkpoint", "write_weights"]

_WRAPPERS = ("module.", "_orig_mod.")
# Computed by the model itself, so files have them or not.
_COMPUTED = ("relative_position_index", "attn_mask", "num_batches_tracked")
_RESIZABLE = ("relative_position_bias_table", "absolute_pos_embed")
_BACKBONES = tuple(dict.fromkeys(f"{task.backbone}." for task in TASKS.values()))
_NAMED = 3


@dataclass(frozen=True)
class LoadReport:
    """What became of the weights of a file.

    Attributes:
        source_form: "mmengine", "mmdet 2.x", "Swin release", "plain" or "safetensors".
        loaded: names in the model that took a weight from the file.
        missing: names in the model that the file has nothing for; they keep their values.
        unexpected: names in the file that the model has no place for.
        mismatched: names found in both with different shapes, with these shapes; not loaded.
    """

    source_form: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every weight of the model came from the file."""
        return not self.missing and not self.mismatched

    def summary(self) -> str:
        """One line for people."""
        parts = [
            f"{len(self.loaded)} weights loaded from a checkpoint in {self.source_form} format"
        ]
        for names, what in (
            (self.mismatched, "left unchanged: the shape in the file differs"),
            (self.missing, "left unchanged: missing from the file"),
            (self.unexpected, "in the file are not part of the model"),
        ):
            if names:
                parts.append(f"{len(names)} {what} ({_some(names)})")
        return "; ".join(parts)


def read_checkpoint(
    path: str | os.PathLike[str], map_location: MapLocation = "cpu"
) -> dict[str, Any]:
    """The content of a checkpoint file, read as data.

    Takes what mmengine, mmdet 2.x, Microsoft's Swin repository, ``torch.save(state_dict)`` and
    safetensors write.

    Returns:
        All that the file holds beside weights (``meta``, ``optimizer``, ...), and:
        ``state_dict``: name to tensor, without ``module.`` prefixes and without the copies that
        mmdet 2.x keeps for averaging; ``source_form``: as in :class:`LoadReport`.

    Raises:
        UserError: the file is missing, no checkpoint, damaged, holds more than data or no weights.
    """
    content = load_file(path, map_location)
    try:
        container, held = weights_in(content)
    except TypeError as error:
        raise no_weights(path, error) from None
    weights = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    if not weights:
        names = (n if isinstance(n, str) else f"a {type(n).__name__}" for n in content)
        raise UserError(
            f"{path} holds no weights (it has {_some(names) or 'nothing'}).",
            "Use the checkpoint of a model, not, for example, the state of an optimizer.",
        )
    rest = {name: value for name, value in content.items() if container and name != container}
    form = _form(Path(path), content, container, weights)
    return {**rest, "state_dict": _bare(weights), "source_form": form}


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    min_match: float = 0.9,
) -> LoadReport:
    """Load the weights of a file into a model, in place.

    Heads may differ (another number of classes): what does not fit is left as it is and reported.
    The backbone may not: a file whose backbone is another one is refused, and then nothing is
    loaded. Where the model has no backbone of a task's name, all of it counts as backbone.

    Args:
        model: a detector, or a backbone alone; a wrapper such as DDP is looked through.
        path: see :func:`read_checkpoint`. A backbone's weights fit a detector and the reverse.
        strict: refuse whatever leaves a weight of the model unset.
        min_match: share of the weights of the model's backbone that must be in the file, and of the
            file's backbone that must have a place in the model.

    Raises:
        UserError: the file is no checkpoint, or one of another model.
        RunFailed: a weight in it is NaN or infinite.
    """
    checkpoint = read_checkpoint(path)
    target = _unwrapped(model)
    wanted = target.state_dict()
    given = _renamed(checkpoint["state_dict"], wanted)
    from sparsevit.models.swin_weights import fits_in

    given = {name: _fitted(name, value, wanted) for name, value in given.items()}

    names = [n for n in wanted if not n.endswith(_COMPUTED)]
    fits = {n: v for n, v in given.items() if n in wanted and fits_in(v, wanted[n])}
    report = LoadReport(
        source_form=checkpoint["source_form"],
        loaded=tuple(n for n in names if n in fits),
        missing=tuple(n for n in names if n not in given),
        unexpected=tuple(n for n in given if n not in wanted and not n.endswith(_COMPUTED)),
        mismatched=tuple(
            f"{n}: {_account(given[n], wanted[n])}" for n in names if n in given and n not in fits
        ),
    )
    _refuse_other_model(Path(path), report, names, given, min_match)
    if strict and not report.complete:
        raise UserError(
            f"{path} does not cover the whole model: {_some(report.mismatched + report.missing)}.",
            "Use the config that the checkpoint was trained with.",
        )
    _refuse_not_finite(path, fits, target)
    try:
        target.load_state_dict(fits, strict=False)
    except (RuntimeError, NotImplementedError) as error:
        # numbers of a type that this PyTorch cannot turn into another
        said = shortened(" ".join(str(error).split()), 300)
        raise UserError(
            f"The weights of {path} cannot be copied: {said}", "Save them as float32."
        ) from error
    return report


def write_weights(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor],
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Write weights in one step, in the form that mmengine and mmdet read.

    Args:
        path: ``*.safetensors``, or anything else for ``torch.save``. Folders are made.
        state_dict: name to tensor, on any device.
        meta: plain data (str, numbers, lists, dicts) to keep beside them.

    Raises:
        UserError: the path cannot be written.
    """
    target = Path(path)
    # copies, since safetensors refuses tensors that share memory, and torch.save keeps all of it
    plain = OrderedDict(
        (name, value.detach().to("cpu", copy=True).contiguous())
        for name, value in state_dict.items()
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            if target.suffix == ".safetensors":
                from safetensors.torch import save_file

                about = {"format": "pt", "meta": json.dumps(meta or {})}
                save_file(plain, temporary, metadata=about)
            else:
                torch.save({"meta": dict(meta or {}), "state_dict": plain}, temporary)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{target} cannot be written: {error}.",
            "Choose a folder that is writable and has free space.",
        ) from error
    return target


# --- forms ---------------------------------------------------------------------------------------


def _form(
    path: Path, content: Mapping[str, Any], container: str | None, weights: Iterable[str]
) -> str:
    if path.suffix == ".safetensors":
        return "safetensors"
    meta = content.get("meta")
    meta = meta if container and isinstance(meta, Mapping) else {}
    if any(".blocks." in n and n.startswith(("layers.", "module.layers.")) for n in weights):
        return "Swin release"
    if "message_hub" in content or "mmengine_version" in meta or "dataset_meta" in meta:
        return "mmengine"
    if "mmdet_version" in meta or "mmcv_version" in meta or "CLASSES" in meta:
        return "mmdet 2.x"
    return "plain"


def _bare(weights: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in weights):
            weights = {name[len(prefix) :]: value for name, value in weights.items()}
    # mmcv 1.x averages weights into buffers beside them: ema_backbone_norm0_weight for
    # backbone.norm0.weight, which holds the averaged value when a checkpoint is written
    copies = {"ema_" + name.replace(".", "_") for name in weights}
    return OrderedDict((n, v) for n, v in weights.items() if n not in copies)


def _renamed(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """The file's weights under the model's names: Swin's blocks, and before them what the model
    calls its backbone."""
    given, theirs, ours = dict(state), _prefix(state), _prefix(wanted)
    if any(n.startswith(f"{theirs}layers.") and ".blocks." in n for n in given) and any(
        n.startswith(f"{ours}stages.") for n in wanted
    ):
        given, theirs = _from_microsoft(given, theirs), "backbone."
    if theirs == ours:
        return given
    if not ours:
        return {n.removeprefix(theirs): v for n, v in given.items() if n.startswith(theirs)}
    others = {n: v for n, v in given.items() if theirs and not n.startswith(theirs)}
    named = {ours + n.removeprefix(theirs): v for n, v in given.items() if n not in others}
    return {**named, **others}


def _prefix(names: Iterable[str]) -> str:
    """What stands before the names of a backbone's weights; nothing where it is alone."""
    found = set(names)
    return next((one for one in _BACKBONES if any(n.startswith(one) for n in found)), "")


def _from_microsoft(given: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """mmdet's names and layouts, with ``backbone.`` before them, for weights of Microsoft's Swin
    repositories."""
    from sparsevit.models.swin_weights import from_microsoft

    if not prefix:
        return from_microsoft(given)
    backbone = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
    others = {name: v for name, v in given.items() if not name.startswith(prefix)}
    return {**from_microsoft(backbone), **others}


def _fitted(name: str, value: Tensor, wanted: Mapping[str, Tensor]) -> Tensor:
    """Position tables that were made for another window or image size, resized."""
    if name not in wanted or value.shape == wanted[name].shape or not name.endswith(_RESIZABLE):
        return value
    from sparsevit.models.swin_weights import fit_weight

    return fit_weight(value, wanted[name])


# --- checks --------------------------------------------------------------------------------------


def _refuse_other_model(
    path: Path,
    report: LoadReport,
    names: list[str],
    given: Mapping[str, Tensor],
    min_match: float,
) -> None:
    prefix = _prefix(names)
    remedy = "Use the config that the checkpoint was trained with, or a checkpoint of this model."
    unfit = [entry for entry in report.mismatched if entry.startswith(prefix)]
    if unfit:
        raise UserError(f"{path} is for a different model: {_some(unfit)}.", remedy)
    own = [n for n in names if n.startswith(prefix)]
    taken = sum(n.startswith(prefix) for n in report.loaded)
    if taken < min_match * len(own):
        absent = [n for n in report.missing if n.startswith(prefix)]
        raise UserError(
            f"{path} is for a different model: it has {taken} of the {len(own)} backbone weights"
            f" (missing: {_some(absent)}).",
            remedy,
        )
    theirs = [n for n in given if n.startswith(prefix) and not n.endswith(_COMPUTED)]
    homeless = [n for n in report.unexpected if n.startswith(prefix)]
    if len(homeless) > (1 - min_match) * len(theirs):
        raise UserError(
            f"{path} is for a different model: {len(homeless)} of the {len(theirs)} weights of its"
            f" backbone do not exist in this one ({_some(homeless)}).",
            remedy,
        )


def _refuse_not_finite(
    path: str | os.PathLike[str], fits: Mapping[str, Tensor], target: nn.Module
) -> None:
    parameters = dict(target.named_parameters())
    weights = {name: value for name, value in fits.items() if not name.endswith(_COMPUTED)}
    # a buffer may be a mask of infinite numbers
    name = not_finite(weights, buffers=lambda name: name not in parameters)
    if name:
        raise RunFailed(
            f"{path} has weights that are not finite (NaN or infinite): {name}.",
            "Its training has diverged. Use an earlier checkpoint, or train again with a lower "
            "learning rate.",
        )


def _unwrapped(model: nn.Module) -> nn.Module:
    from mmengine.model import is_model_wrapper

    inner = model.module if is_model_wrapper(model) else model
    assert isinstance(inner, nn.Module)
    return inner


def _account(value: Tensor, wanted: Tensor) -> str:
    if value.shape != wanted.shape:
        return f"{_shape(value)} in the file, {_shape(wanted)} in the model"
    return f"{value.dtype} in the file, {wanted.dtype} in the model".replace("torch.", "")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(names: Iterable[str]) -> str:
    listed = [shortened(name, 160) for name in names]
    more = len(listed) - _NAMED
    return "; ".join(listed[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
