"""Weights as the authors of DeiT, LV-ViT and Sparsifiner release them, read into models of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.errors import UserError

PREDICTOR = ".mask_predictor."


def load(model: nn.Module, state_dict_or_path: Mapping[str, Any] | str | os.PathLike[str]) -> None:
    """Load released weights into a model, in place; all of them must be the model's.

    A dense checkpoint leaves the predictors of connections as they are, and its positions are
    resized where the model's images are of another size.

    Args:
        model: its weights have the released names, as :func:`~sparsevit.models.sparsifiner.
            build_sparsifiner` makes it.
        state_dict_or_path: weights by name, or a file, which is read as data. In either they may
            be under ``model`` or ``state_dict``.

    Raises:
        UserError: the file cannot be read, or the weights are another model's.
    """
    from sparsevit.engine.safe_load import load_file, weights_in

    if isinstance(state_dict_or_path, Mapping):
        name, content = "The state dict", state_dict_or_path
    else:
        name, content = str(state_dict_or_path), load_file(state_dict_or_path)
    try:
        found = weights_in(content)[1]
    except TypeError as error:
        raise UserError(f"{name} holds {error} and no weights.", "Give weights by name.") from error
    own = model.state_dict()
    weights = {str(k).removeprefix("module."): v for k, v in found.items()}
    dense = not any(PREDICTOR in k for k in weights)
    fitted = {k: _fitted(k, v, own[k], dense) for k, v in weights.items() if k in own}
    _refuse_other_model(name, weights, fitted, own, dense)
    model.load_state_dict(fitted, strict=False)


def _fitted(name: str, weight: Tensor, own: Tensor, dense: bool) -> Tensor:
    """A weight in the shape of the model's own, where it is the same one in another form."""
    if name == "patch_embed.proj.weight" and weight.numel() == own.numel():
        return weight.view_as(own)  # early files have that of a linear layer
    if name == "pos_embed" and dense and weight.shape[2:] == own.shape[2:]:
        return resized_positions(weight, own.shape[1] - 1)
    return weight


def resized_positions(positions: Tensor, patches: int) -> Tensor:
    """Positions (1, 1 + side * side, C) of a class token and a square grid of patches, for a square
    grid of so many; as they are where one of the two is no square."""
    before, after = (round(count**0.5) for count in (positions.shape[1] - 1, patches))
    if before**2 + 1 != positions.shape[1] or after**2 != patches or before == after:
        return positions
    square = positions[:, 1:].transpose(1, 2).unflatten(2, (before, before))
    resized = F.interpolate(square, size=(after, after), mode="bilinear")
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def _refuse_other_model(
    name: str,
    weights: Mapping[str, Tensor],
    fitted: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    dense: bool,
) -> None:
    tokens = next((len(v) for k, v in weights.items() if k.endswith(f"{PREDICTOR}proj_n")), None)
    ours = own["pos_embed"].shape[1]
    if tokens not in (None, ours):
        raise UserError(
            f"{name} has predictors of connections for {tokens} tokens, and the model's images "
            f"have {ours}.",
            f"Build the model with the img_size of the checkpoint; or leave the weights with "
            f"'{PREDICTOR.strip('.')}' in their name out: positions are then resized, and the "
            "predictors trained anew.",
        )
    missing = [k for k in own if k not in weights and not (dense and PREDICTOR in k)]
    foreign = [k for k in weights if k not in own]
    other = [k for k, v in fitted.items() if v.shape != own[k].shape]
    if missing or foreign or other:
        why = [
            f"{text} {keys[0]}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
            for text, keys in (
                ("it lacks", missing),
                ("the model has no", foreign),
                ("of another shape is", other),
            )
            if keys
        ]
        raise UserError(
            f"{name} is of another model: {'; '.join(why)}.",
            "Build the model with the architecture, widths and depth of the checkpoint.",
        )
