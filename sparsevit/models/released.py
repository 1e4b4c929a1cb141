"""Weights as the authors of DeiT, LV-ViT, Sparsifiner and SViTE release them, read into our models.

>>> load(model, "svite_deit_small.pth")  # the smaller dense model where heads were pruned
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.methods.weights.blocks import blocks_of
from sparsevit.methods.weights.shrink import narrow, shrink

State = Mapping[str, Tensor]

_REMEDY = "Use the config of the architecture that the weights are of."


@dataclass(frozen=True)
class Form:
    """A released form of weights.

    Attributes:
        name: for people.
        is_of: whether weights, by their names, are of it.
        fits: whether it is one for such a model.
        renamed: the weights under the model's names; the model takes the shapes that they have.
    """

    name: str
    is_of: Callable[[State], bool]
    fits: Callable[[nn.Module], bool]
    renamed: Callable[[nn.Module, State], dict[str, Tensor]]


def load(
    model: nn.Module, state_dict_or_path: State | str | os.PathLike[str], *, shrunk: bool = True
) -> str:
    """Load released weights into a model, in place; those under our own names too.

    Zeros stay zeros: a training that goes on reads its masks off them. A structured DeiT of SViTE
    becomes the smaller dense model that its zeros stand for.

    Args:
        model: mmpretrain's ``VisionTransformer`` or ``DistilledVisionTransformer``, ``SViTE``, or a
            classifier with one, of the architecture that the weights are of; or what
            :func:`~sparsevit.models.sparsifiner.build_sparsifiner` makes, whose names are the
            released ones.
        state_dict_or_path: weights by name, or a checkpoint file.
        shrunk: take dead heads and neurons out; False keeps them where the weights have them.

    Returns:
        A sentence on what was loaded.

    Raises:
        UserError: the file cannot be read, or the weights are for another model.
    """
    if _is_timm(model.state_dict()):
        return _load_as_named(model, state_dict_or_path)
    state = state_dict_or_path if isinstance(state_dict_or_path, Mapping) else None
    if state is None:
        from sparsevit.engine.checkpoint import load_weights, read_checkpoint

        read = read_checkpoint(state_dict_or_path)["state_dict"]  # type: ignore[arg-type]
        form = form_of(read)
        if form is None:
            said = load_weights(model, state_dict_or_path).summary()  # type: ignore[arg-type]
        else:
            said = _take(model, read, form)
    else:
        said = _take(model, state, form_of(state))
    if shrunk and blocks_of(model):
        shrink(model)
    return said


def form_of(state: State) -> Form | None:
    """The released form that weights are in; None where none is known."""
    return next((form for form in FORMS if form.is_of(state)), None)


def _take(model: nn.Module, state: State, form: Form | None) -> str:
    if form is not None and not form.fits(model):
        raise UserError(
            f"Weights in the form of {form.name} are not for a {type(model).__name__}.", _REMEDY
        )
    given = dict(state) if form is None else form.renamed(model, state)
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in given and not any(own in n for own in _BESIDE)]
    differ = [name for name, one in given.items() if _differs(one, wanted.get(name))]
    if missing or differ:
        name, what = (missing[0], "is missing") if missing else (differ[0], "has another shape")
        raise UserError(f"The weights are for a different model: {name} {what}.", _REMEDY)
    given = {name: one for name, one in given.items() if name in wanted}
    model.load_state_dict(given, strict=False)
    return f"{len(given)} weights loaded in the form of {form.name if form else 'the model'}"


_BESIDE = ("token_selector.", "mask_predictor.")
"""What a release may not have: it is trained beside the rest."""


def _differs(given: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and given.shape != wanted.shape


# --- DeiT under timm's names, as DeiT and SViTE released it --------------------------------------

_TIMM = (
    (r"(cls_token|dist_token|pos_embed)$", r"backbone.\1"),
    (r"patch_embed\.proj\.(\w+)$", r"backbone.patch_embed.projection.\1"),
    (r"blocks\.(\d+)\.norm(\d)\.(\w+)$", r"backbone.layers.\1.ln\2.\3"),
    (r"blocks\.(\d+)\.attn\.(qkv|proj)\.(\w+)$", r"backbone.layers.\1.attn.\2.\3"),
    (r"blocks\.(\d+)\.attn\.(mask_predictor\.[\w.]+)$", r"backbone.layers.\1.attn.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)$", r"backbone.layers.\1.ffn.layers.0.0.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)$", r"backbone.layers.\1.ffn.layers.1.\2"),
    (r"norm\.(\w+)$", r"backbone.ln1.\1"),
    (r"gumbel\.(\w+)$", r"backbone.token_selector.\1"),
    (r"(head|head_dist)\.(\w+)$", r"head.layers.\1.\2"),
)


def _is_timm(state: State) -> bool:
    return "blocks.0.attn.qkv.weight" in state and "patch_embed.proj.weight" in state


def _timm_to_mmpretrain(model: nn.Module, state: State) -> dict[str, Tensor]:
    """mmpretrain's names; what neither has a place for is left out."""
    alone = not hasattr(model, "backbone")
    named = {}
    for name, value in state.items():
        found = next((re.sub(old, new, name) for old, new in _TIMM if re.match(old, name)), None)
        if found is not None:
            named[found.removeprefix("backbone.") if alone else found] = value
    return _without_padding(model, named)


def _without_padding(model: nn.Module, named: dict[str, Tensor]) -> dict[str, Tensor]:
    """SViTE's structured models may have queries, keys and values of the heads that are left alone,
    and pad what these give with zeros up to the width of a projection that was not cut. The columns
    that meet the padding go, and the model gets as many heads."""
    blocks = blocks_of(model)
    heads, neurons = [block.heads for block in blocks], [b.fc1.out_features for b in blocks]
    for i, block in enumerate(blocks):
        qkv, proj = (f"{block.name}.attn.{layer}.weight" for layer in ("qkv", "proj"))
        hidden = named.get(f"{block.name}.ffn.layers.0.0.weight")
        if qkv in named and proj in named and not len(named[qkv]) % (3 * block.head_width):
            heads[i] = min(heads[i], len(named[qkv]) // (3 * block.head_width))
            named[proj] = named[proj][:, : heads[i] * block.head_width]
        if hidden is not None:
            neurons[i] = min(neurons[i], len(hidden))
    before = [(block.heads, block.fc1.out_features) for block in blocks]
    if before != list(zip(heads, neurons, strict=True)):
        narrow(model, heads, neurons)
    return named


FORMS = (Form("timm's DeiT", _is_timm, lambda model: bool(blocks_of(model)), _timm_to_mmpretrain),)
"""Every form that is known; the first that weights are of is taken."""


# --- DeiT, LV-ViT and Sparsifiner, into models that have the released names ----------------------

PREDICTOR = ".mask_predictor."


def _load_as_named(
    model: nn.Module, state_dict_or_path: Mapping[str, Any] | str | os.PathLike[str]
) -> str:
    """All weights must be the model's. A dense checkpoint leaves the predictors of connections as
    they are, and its positions are resized where the model's images are of another size."""
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
    return f"{len(fitted)} weights loaded under their own names"


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
