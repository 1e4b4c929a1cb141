"""First weights of a Swin backbone: random, or from a checkpoint of mmdet's or Microsoft's form.

mmdet's own loader reads only checkpoints with a ``backbone.`` prefix where ``convert_weights`` is
off, and fails on an absolute position embedding; this one reads every form it meets.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmdet.models.backbones.swin import SwinTransformer, swin_converter
from mmengine.logging import MMLogger
from mmengine.model.weight_init import constant_init, trunc_normal_, trunc_normal_init
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from sparsevit.errors import UserError

# follows from the window's size, which may be another than the checkpoint's
_TABLE = "relative_position_index"


def initialise(backbone: SwinTransformer) -> None:
    """Initialise a Swin backbone in place, as its ``init_cfg`` says.

    Raises:
        UserError: ``init_cfg`` names no checkpoint, or one of another model.
    """
    logger = MMLogger.get_current_instance()
    if backbone.init_cfg is None:
        _randomise(backbone)
        return
    if "checkpoint" not in backbone.init_cfg:
        raise UserError(
            f"init_cfg={backbone.init_cfg!r} of the backbone does not name a checkpoint.",
            "Write init_cfg=dict(type='Pretrained', checkpoint=...), or None.",
        )
    path = backbone.init_cfg["checkpoint"]
    weights = backbone_weights(
        CheckpointLoader.load_checkpoint(path, map_location="cpu"), backbone.convert_weights
    )
    own = backbone.state_dict()
    fitted = {
        k: fit_weight(v, own[k]) for k, v in weights.items() if k in own and not k.endswith(_TABLE)
    }
    wrong = next((k for k, v in fitted.items() if not fits_in(v, own[k])), None)
    if wrong is not None or not fitted:
        why = "no weight has a matching name"
        if wrong is not None:
            why = f"{wrong} is {_said(fitted[wrong])}, not {_said(own[wrong])}"
        raise UserError(
            f"{path}, which the backbone's init_cfg names, does not fit this "
            f"{type(backbone).__name__} ({why}).",
            "Use weights of a Swin of the same size (embed_dims, depths), or init_cfg=None.",
        )
    result = backbone.load_state_dict(fitted, strict=False)
    # output norms belong to the detector and are in no classification checkpoint
    missing = [k for k in result.missing_keys if not (k.startswith("norm") or k.endswith(_TABLE))]
    if missing:
        logger.warning(f"{path} is missing {len(missing)} weights of the backbone: {missing[:5]}")


def backbone_weights(checkpoint: dict[str, Any], convert: bool) -> dict[str, Tensor]:
    """The backbone's weights in a checkpoint, without prefix, under mmdet's names.

    Args:
        checkpoint: a loaded file: plain weights, or with them under ``state_dict`` or ``model``.
        convert: whether it may be in the form of Microsoft's Swin repository (``layers.0...``).
    """
    weights = next(
        (checkpoint[n] for n in ("state_dict", "model") if isinstance(checkpoint.get(n), dict)),
        checkpoint,
    )
    weights = {k.removeprefix("module."): v for k, v in weights.items() if isinstance(v, Tensor)}
    if any(k.startswith("backbone.") for k in weights):
        weights = {k[9:]: v for k, v in weights.items() if k.startswith("backbone.")}
    if convert and any(k.startswith("layers.") for k in weights):
        weights = {k.removeprefix("backbone."): v for k, v in from_microsoft(weights).items()}
    return weights


def from_microsoft(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of Microsoft's Swin repository under mmdet's names and in its layouts.

    Raises:
        UserError: a weight has not the shape that it has there.
    """
    try:
        return dict(swin_converter(weights))
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(
            "The checkpoint has the names of Microsoft's Swin, but not its shapes "
            f"({str(error).splitlines()[0]}).",
            "Use a checkpoint of Swin as it was released.",
        ) from error


def fits_in(value: Tensor, wanted: Tensor) -> bool:
    """Whether a weight can take the place of another: same shape, real numbers for real ones.

    Whole numbers in the place of real ones are quantised weights, or no weights.
    """
    real = wanted.is_floating_point()
    return value.shape == wanted.shape and value.is_floating_point() == real


def fit_weight(given: Tensor, wanted: Tensor) -> Tensor:
    """A weight made for another window or image size, resized; any other is returned as it is.

    Relative position tables (T, heads) and absolute embeddings (1, L, C) hold a square grid; both
    are resized bicubically.
    """
    if given.shape == wanted.shape or not given.is_floating_point() or not given.numel():
        return given
    if given.ndim == wanted.ndim == 2 and given.shape[1] == wanted.shape[1]:
        return _resize_grid(given, wanted.shape[0])
    if given.ndim == wanted.ndim == 3 and given.shape[2] == wanted.shape[2]:
        return _resize_grid(given[0], wanted.shape[1]).unsqueeze(0)
    return given


def _said(value: Tensor) -> str:
    kind = "" if value.is_floating_point() else f" of {value.dtype}".replace("torch.", "")
    return f"{tuple(value.shape)}{kind}"


def _resize_grid(grid_TC: Tensor, cells: int) -> Tensor:
    old, new = int(grid_TC.shape[0] ** 0.5), int(cells**0.5)
    if old * old != grid_TC.shape[0] or new * new != cells:
        return grid_TC
    image = grid_TC.t().reshape(1, -1, old, old).float()
    resized = F.interpolate(image, size=(new, new), mode="bicubic", align_corners=False)
    return resized.reshape(-1, cells).t().contiguous().to(grid_TC.dtype)


def _randomise(backbone: nn.Module) -> None:
    if backbone.use_abs_pos_embed:
        trunc_normal_(backbone.absolute_pos_embed, std=0.02)
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_init(module, std=0.02, bias=0.0)
        elif isinstance(module, nn.LayerNorm):
            constant_init(module, 1.0)
