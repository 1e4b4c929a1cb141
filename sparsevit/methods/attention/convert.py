"""Gives the attentions of other libraries' vision transformers predictors of their connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.methods.attention.forward import split_heads
from sparsevit.methods.attention.predictor import MaskPredictor, check_predictor
from sparsevit.methods.attention.routes import attend

_ATTENTIONS = {("mmpretrain", "MultiheadAttention"), ("timm", "Attention")}
_LAYERS = ("layers", "blocks")
# what comes behind attention, in this order, in either library
_BEHIND = ("norm", "proj", "proj_drop", "gamma1", "out_drop")

KNOWN = "Use a DeiT of mmpretrain (VisionTransformer) or of timm, with one class token."


def connect(
    model: nn.Module, keep_rate: float | Sequence[float] = 0.25, **options: Any
) -> tuple[nn.Module, dict[str, MaskPredictor]]:
    """See :meth:`sparsevit.methods.attention.Connections.convert`.

    Returns:
        The transformer in the model, and its predictors by the name of their layer.

    Raises:
        UserError: the model has no attention that is known, or an option does not suit it.
    """
    found = ((one, _attentions(one)) for one in model.modules())
    holder, attentions = next((pair for pair in found if pair[1]), (model, {}))
    if not attentions:
        raise UserError(
            f"{type(model).__name__} has no attention whose connections can be predicted.", KNOWN
        )
    _refuse_dropout(attentions)
    tokens = _tokens(holder)
    listed = isinstance(keep_rate, (list, tuple))
    rates: list[Any] = [*keep_rate] if listed else [keep_rate] * len(attentions)  # type: ignore[misc]
    if len(rates) != len(attentions):
        raise UserError(
            f"{len(rates)} keep rates are given for {len(attentions)} layers.",
            f"Give one number, or a list of {len(attentions)}.",
        )
    heads = {name: int(one.num_heads) for name, one in attentions.items()}
    width = {name: one.qkv.out_features // (3 * heads[name]) for name, one in attentions.items()}
    shared = bool(options.pop("share_projection", False))
    known = list(check_predictor.__kwdefaults__ or {})
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UserError(
            f"sparsifiner has no option {unknown[0]}.",
            f"It has keep_rate, share_projection, {', '.join(known)}.",
        )
    check_predictor(tokens, min(width.values()), rates, **options)
    predictors = {}
    for rate, (name, one) in zip(rates, attentions.items(), strict=True):
        one.mask_predictor = predictors[name] = MaskPredictor(
            tokens, width[name], heads[name], shared=shared, keep_rate=rate, **options
        ).to(one.qkv.weight)
        one.__class__ = _connected(type(one))
    return holder, predictors


class ConnectedAttention(nn.Module):
    """What a library's attention becomes: a mixin of its class."""

    mask_predictor: MaskPredictor
    qkv: nn.Linear
    num_heads: int

    def forward(self, x_BnC: Tensor, *_: Any, **__: Any) -> Tensor:
        """Attention of tokens, (B, n, C), to those that they choose."""
        q, k, v = split_heads(self.qkv(x_BnC), self.num_heads)
        q, k = self._through(q, "q_norm"), self._through(k, "k_norm")
        out = attend(self.mask_predictor, q, k, v).transpose(1, 2).flatten(2)
        return self._through(out, *_BEHIND)

    def _through(self, x: Tensor, *names: str) -> Tensor:
        """What modules of these names make of something, those that the library's class has."""
        for name in names:
            module = getattr(self, name, None)
            x = x if module is None else module(x)
        return x


_classes: dict[type[Any], type[Any]] = {}


def _connected(kind: type[Any]) -> type[Any]:
    if kind not in _classes:
        _classes[kind] = type(f"Connected{kind.__name__}", (ConnectedAttention, kind), {})
    return _classes[kind]


def _attentions(holder: Any) -> dict[str, Any]:
    """The attentions of a module's own layers, by the name of the layer."""
    for name in _LAYERS:
        layers = getattr(holder, name, None)
        if isinstance(layers, (nn.ModuleList, nn.Sequential)):
            found = {f"{name}.{i}": getattr(one, "attn", None) for i, one in enumerate(layers)}
            if found and all(_is_known(one) for one in found.values()):
                return found
    return {}


def _is_known(attention: Any) -> bool:
    kind = type(attention)
    return (kind.__module__.partition(".")[0], kind.__name__) in _ATTENTIONS


def _refuse_dropout(attentions: Mapping[str, Any]) -> None:
    for attention in attentions.values():
        dropped = getattr(attention, "attn_drop", 0)
        if (dropped.p if isinstance(dropped, nn.Dropout) else dropped) > 0:
            raise UserError(
                "The model drops attention at random, which sparse attention does not.",
                "Set the rate of attention dropout to 0.",
            )


def _tokens(holder: Any) -> int:
    """How many tokens the images of a transformer have, its class token among them.

    Raises:
        UserError: it has no class token, or more tokens of its own than that.
    """
    own = getattr(holder, "num_extra_tokens", getattr(holder, "num_prefix_tokens", None))
    if getattr(holder, "cls_token", None) is None or own != 1 or holder.pos_embed is None:
        raise UserError(
            f"{type(holder).__name__} has {own} tokens beside the patches, and predictors of "
            "connections know one class token.",
            KNOWN,
        )
    positions = int(holder.pos_embed.shape[1])
    return positions + 1 if getattr(holder, "no_embed_class", False) else positions
