"""The compiled ops that mmdet needs of mmcv, where the installed mmcv came without them.

``install()`` once, before mmdet is imported, puts a module in the place of ``mmcv._ext``: the ops
of torchvision where it works, PyTorch code otherwise. Where mmcv was built with its ops it does
nothing. No installed file is touched. ``SPARSEVIT_OPS`` = ``auto``, ``mmcv``, ``torchvision`` or
``pytorch`` decides instead of what is there.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from sparsevit.errors import UserError
from sparsevit.ops.mmcv_ext.module import NAME, ExtModule, MissingOpError

__all__ = ["BACKENDS", "MissingOpError", "backend", "describe", "install", "unavailable"]

VARIABLE = "SPARSEVIT_OPS"
BACKENDS = ("mmcv", "torchvision", "pytorch")


def install() -> str:
    """Makes ``mmcv._ext`` importable; safe to call again.

    Returns:
        The backend: "mmcv" (mmcv's own compiled ops), "torchvision" or "pytorch".

    Raises:
        UserError: ``SPARSEVIT_OPS`` names no backend, one that is not available, or another than
            the one that mmcv.ops has been imported with; mmcv is not installed.
    """
    wanted = _wanted()
    loaded = sys.modules.get(NAME)
    if loaded is not None and "mmcv.ops" in sys.modules:
        _refuse_change(wanted, _backend_of(loaded))
    if isinstance(loaded, ExtModule) and wanted in ("auto", _backend_of(loaded)):
        return _backend_of(loaded)
    chosen = _choose(wanted)
    if chosen == "mmcv":
        return chosen
    mmcv = _import_mmcv()
    module = ExtModule(chosen, supplied(chosen))
    sys.modules[NAME] = module
    mmcv._ext = module  # type: ignore[attr-defined]
    return chosen


def backend() -> str:
    """The backend in use, or the one that ``install()`` would take."""
    loaded = sys.modules.get(NAME)
    return _backend_of(loaded) if loaded is not None else _choose(_wanted())


def describe() -> dict[str, str]:
    """Which implementation each op has, by the op's name in ``mmcv._ext``."""
    in_use = backend()
    names = supplied("pytorch")
    if in_use != "torchvision":
        return dict.fromkeys(names, {"mmcv": "mmcv (compiled)"}.get(in_use, "PyTorch"))
    from sparsevit.ops.mmcv_ext import torchvision_ops

    described = dict.fromkeys(names, "PyTorch")
    described["nms"] = "torchvision (with an offset: PyTorch)"
    described["roi_align_forward"] = "torchvision (largest sample: PyTorch)"
    if torchvision_ops.compiled_backward() is not None:
        described["roi_align_backward"] = "torchvision (largest sample: PyTorch)"
    return described


def unavailable() -> dict[str, str]:
    """The backends that cannot be used here, each with the reason."""
    reasons = {name: _why_not(name) for name in BACKENDS}
    return {name: reason for name, reason in reasons.items() if reason}


def _wanted() -> str:
    wanted = os.environ.get(VARIABLE, "").strip().lower() or "auto"
    if wanted in ("auto", *BACKENDS):
        return wanted
    raise UserError(
        f"{VARIABLE}={wanted} is not a backend for mmcv's ops.",
        f"Use one of auto, {', '.join(BACKENDS)}, or unset it.",
    )


def _choose(wanted: str) -> str:
    if wanted == "auto":
        return next(name for name in BACKENDS if not _why_not(name))
    reason = _why_not(wanted)
    if not reason:
        return wanted
    raise UserError(
        f"{VARIABLE}={wanted}, but {wanted}'s ops are not available: {reason}.",
        f"Unset {VARIABLE} to use what is available, or install {wanted} with its compiled ops.",
    )


def _why_not(name: str) -> str:
    """Why a backend cannot be used; empty where it can."""
    if name == "pytorch":
        return ""
    if name == "mmcv":
        return _why_not_mmcv()
    from sparsevit.ops.mmcv_ext import torchvision_ops

    return torchvision_ops.why_not()


def _why_not_mmcv() -> str:
    ours = "the installed mmcv was built without its ops"
    if isinstance(sys.modules.get(NAME), ExtModule):
        return ours
    try:
        mmcv = importlib.import_module("mmcv")
        # only what lies in mmcv's folder: other finders may answer with what stands in for it
        if PathFinder.find_spec(NAME, mmcv.__path__) is None:
            return ours
        importlib.import_module(NAME)
    except ModuleNotFoundError as error:
        return "mmcv is not installed" if error.name == "mmcv" else f"mmcv needs {error.name}"
    except (ImportError, OSError) as error:
        # Built for another torch: the loader names a symbol that it did not find.
        return f"mmcv's compiled ops cannot be loaded: {error}"
    return ""


def _import_mmcv() -> ModuleType:
    try:
        return importlib.import_module("mmcv")
    except ModuleNotFoundError as error:
        raise UserError(
            f"mmcv cannot be imported: {error}.", "Run: pip install onedl-mmcv"
        ) from error


def _backend_of(module: ModuleType) -> str:
    return getattr(module, "__sparsevit_backend__", "mmcv")


def _refuse_change(wanted: str, in_use: str) -> None:
    if wanted in ("auto", in_use):
        return
    raise UserError(
        f"{VARIABLE}={wanted}, but mmcv.ops has already been imported with the ops of {in_use}.",
        f"Set {VARIABLE} before the program starts.",
    )


def supplied(name: str) -> dict[str, Callable[..., Any]]:
    """The ops of a backend ("torchvision" or "pytorch"), by their names in ``mmcv._ext``."""
    from sparsevit.ops.mmcv_ext import deform_attn, focal_loss, nms, roi_align, torchvision_ops

    compiled_by = f"none (sparsevit, backend {name})"
    ops: dict[str, Callable[..., Any]] = {
        "roi_align_forward": roi_align.roi_align_forward,
        "roi_align_backward": roi_align.roi_align_backward,
        "nms": nms.nms,
        "softnms": nms.softnms,
        "nms_match": nms.nms_match,
        "sigmoid_focal_loss_forward": focal_loss.sigmoid_focal_loss_forward,
        "sigmoid_focal_loss_backward": focal_loss.sigmoid_focal_loss_backward,
        "softmax_focal_loss_forward": focal_loss.softmax_focal_loss_forward,
        "softmax_focal_loss_backward": focal_loss.softmax_focal_loss_backward,
        "ms_deform_attn_forward": deform_attn.ms_deform_attn_forward,
        "ms_deform_attn_backward": deform_attn.ms_deform_attn_backward,
        "get_compiler_version": lambda: compiled_by,
        "get_compiling_cuda_version": lambda: "not available",
    }
    if name == "torchvision":
        ops["nms"] = torchvision_ops.nms
        ops["roi_align_forward"] = torchvision_ops.roi_align_forward
        ops["roi_align_backward"] = torchvision_ops.roi_align_backward
    return ops
