"""Weights as a method: which are kept alive in a training, and how that changes.

Masks are exact. A dead connection's weight is zero, so its file is that of the dense model with
zeros in it. Its gradient is masked in the backward already, so that clipping and the optimiser
never see it, and its moments stay at zero by themselves; only where a mask changes is anything
else written. The gradient that decides on growth is the dense one, taken before it is masked.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, distributed, nn
from torch.utils.hooks import RemovableHandle

from sparsevit.errors import UserError
from sparsevit.methods.base import Method
from sparsevit.methods.weights.blocks import Block, blocks_of
from sparsevit.methods.weights.recipe import HEADS, NEURONS, TOKENS, WEIGHTS, Recipe, parse_pattern
from sparsevit.methods.weights.shrink import alive_heads, alive_neurons, shrink
from sparsevit.methods.weights.tokens import TokenSelector
from sparsevit.sparsity.configuration import Configuration, Knob
from sparsevit.sparsity.handle import ATTACHED
from sparsevit.sparsity.space import Space
from sparsevit.sparsity.weights import (
    TOKEN_SELECTOR,
    death_rate,
    erk_densities,
    head_scores,
    prunable,
    prune_and_grow,
    prune_and_grow_heads,
    prune_and_grow_n_m,
    prune_and_grow_neurons,
    random_mask,
    random_n_m_mask,
)

if TYPE_CHECKING:
    from mmengine.config import Config

UPDATES_END = 0.8
"""Share of a training after which masks stand still (SViTE, section 4)."""

_BIAS_STD = 0.02
_DENSE = 0.999
"""Share of nonzero weights from which on they are not those of a sparse training."""


class Weights(Method):
    """Connections, or heads and neurons, that a training keeps alive (SViTE, arXiv 2106.04533)."""

    name = "weights"
    backbones = ("SViTE", "DistilledSViTE")
    module = "sparsevit.models.svite"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.part: SparseWeights = next(iter(self.parts().values()))
        self.masks: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self.updates = 0
        self._total, self._seed = 0, 0
        self._begun = self._due = False
        self._dense: dict[str, Tensor] = {}
        self._factors: dict[str, Tensor] = {}
        self._scores: dict[str, tuple[Tensor, Tensor]] = {}
        self._listening: list[RemovableHandle] = []
        self._seen: dict[str, torch.Size] = {}

    # --- what becomes sparse --------------------------------------------------------------------

    @classmethod
    def convert(cls, model: nn.Module, **options: Any) -> nn.Module:
        """Let a vision transformer be trained sparse, in place. Its ``state_dict`` keeps its keys;
        the one that chooses tokens adds its own.

        Args:
            model: mmpretrain's ``VisionTransformer`` or ``DistilledVisionTransformer``, or a
                classifier with one as its backbone.
            **options: of a :class:`~sparsevit.methods.weights.recipe.Recipe`.

        Raises:
            UserError: the model has no block that is known, or an option does not suit it.
        """
        recipe = Recipe(**options)
        backbone = model if blocks_of(model) and hasattr(model, "layers") else None
        backbone = backbone or getattr(model, "backbone", None)
        if backbone is None or not blocks_of(backbone):
            raise UserError(
                f"{type(model).__name__} has no transformer block whose weights can be pruned.",
                "Use mmpretrain's VisionTransformer or DistilledVisionTransformer.",
            )
        setattr(backbone, ATTACHED, SparseWeights(backbone, recipe))
        return model

    # --- training -------------------------------------------------------------------------------

    def before_training(self, iterations: int, seed: int) -> None:
        self._total, self._seed = iterations, seed

    def before_step(self, step: int) -> None:
        if not self._begun:
            self._begin()
        interval = self.part.recipe.update_interval
        done = step + 1
        if interval and done < UPDATES_END * self._total and done // interval > self.updates:
            self._due = True
            if self.kept and not self._listening:
                self._listening = [self._listen(block) for block in blocks_of(self.model)]
        if self.part.selector is not None:
            self.part.selector.anneal(step / max(self._total, 1), self._seed, step, _rank())

    def after_optimizer_step(self, step: int, optimizer: Any) -> None:
        if not self._due:
            return
        rate = death_rate(step + 1, self._total)
        before = self.masks
        if self.kept:
            self._update_units(rate, step)
        else:
            self._update_connections(rate)
        weights = self._weights()
        for name, mask in self.masks.items():
            # what grew starts from zero, weight and moments, for dead it was zero
            dead = ~(mask & before[name])
            state = optimizer.state.get(weights[name], {}).values()
            moments = [one for one in state if isinstance(one, Tensor)]
            with torch.no_grad():
                for held in (weights[name], weights[name].grad, *moments):
                    if held is not None and held.shape == mask.shape:
                        held.masked_fill_(dead, 0)
        for handle in self._listening:
            handle.remove()
        self._listening, self._dense, self._scores, self._factors = [], {}, {}, {}
        self.updates = (step + 1) // self.part.recipe.update_interval  # type: ignore[operator]
        self._due = False

    def state_dict(self) -> dict[str, Any]:
        """Masks of connections, or which heads and neurons are kept, and how often they changed."""
        if not self._begun:
            return {}
        held = {"kept": dict(self.kept)} if self.kept else {"masks": dict(self.masks)}
        return {**held, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` gave.

        Raises:
            UserError: the masks are those of another model, or of another kind of training.
        """
        weights = self._weights()
        wanted = {name: tuple(weights[name].shape) for name in self._pruned(weights)}
        units = {name: (size,) for name, size in self._units().items()}
        masks, kept = state.get("masks", {}), state.get("kept", {})
        found = {name: tuple(mask.shape) for name, mask in (masks or kept).items()}
        if found != (units or wanted):
            differ = next(iter(dict(found.items() ^ (units or wanted).items())), "none")
            raise UserError(
                f"The checkpoint's masks are not those of this model ({differ} differs).",
                "Resume with the config that the run was begun with.",
            )
        on = {name: mask.to(weights[name].device, torch.bool) for name, mask in masks.items()}
        self.kept = {name: mask.to(torch.bool) for name, mask in kept.items()}
        self.masks = self._masks_of_units() if self.kept else on
        self.updates, self._factors = int(state["updates"]), {}
        self._watch()

    # --- execution ------------------------------------------------------------------------------

    @contextmanager
    def counting(self) -> Iterator[None]:
        self._seen = {}
        hooks = []
        for name, module in self.model.named_modules():
            if f"{name}.weight" in self._weights():
                see = partial(self._seen.__setitem__, f"{name}.weight")
                hooks.append(
                    module.register_forward_hook(lambda m, i, out, see=see: see(out.shape))
                )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def work(self, counted: float) -> float:
        """What is counted without the products of dead weights, and of what a dead head gives."""
        weights, shares = self._weights(), self._shares()
        for name, shape in self._seen.items():
            rows = math.prod(shape) // (shape[1] if weights[name].dim() == 4 else shape[-1])
            counted -= rows * weights[name].numel() * (1 - shares[name])
        for block in blocks_of(self.model) if HEADS in self.part.ratios else ():
            name = self._name_of(block.qkv.weight)
            if name in self._seen:
                images, tokens, width = self._seen[name]
                # queries by keys, and what these weigh by values
                counted -= 2 * images * tokens**2 * (width // 3) * (1 - shares[name])
        return counted

    def parameters(self, counted: int) -> int:
        weights = self._weights()
        dead = (weights[n].numel() * (1 - share) for n, share in self._shares().items())
        return counted - round(sum(dead))

    def _shares(self) -> dict[str, float]:
        """Of each weight the share that is needed: by its zeros, and in a model whose weights are
        not those of a training, by what a training would keep."""
        weights = self._weights()
        shares = {name: float((one != 0).float().mean()) or 1.0 for name, one in weights.items()}
        names, density = self._pruned(weights), 1 - self.part.ratios.get(WEIGHTS, 0.0)
        if names and all(shares[name] > _DENSE for name in names):
            if self.part.recipe.pattern is None:
                shapes = {name: tuple(weights[name].shape) for name in names}
                shares |= erk_densities(shapes, density)
            else:
                shares |= dict.fromkeys(names, density)
        for block in blocks_of(self.model) if HEADS in self.part.ratios else ():
            for kind, alive, layers in (
                (HEADS, alive_heads(block), (block.qkv, block.proj)),
                (NEURONS, alive_neurons(block), (block.fc1, block.fc2)),
            ):
                left = int(alive.sum())
                if left == len(alive):
                    left = _count(left, 1 - self.part.ratios[kind], kind)
                shares |= {self._name_of(one.weight): left / len(alive) for one in layers}
        return shares

    def shrink(self, cfg: Config) -> Config:
        """See :meth:`Method.shrink`: dead heads and neurons go; zeros elsewhere stay zeros.

        Raises:
            UserError: no head and no neuron is dead.
        """
        blocks = blocks_of(self.model)
        before = [(block.heads, block.fc1.out_features) for block in blocks]
        widths = shrink(self.model)
        if before == list(zip(*widths.values(), strict=True)):
            raise UserError(
                "No head and no neuron of the model is zero, so nothing can be taken out.",
                "Convert what was trained with svite=dict(heads=..., neurons=...); zeros of single "
                "connections make no tensor smaller.",
            )
        return _with_widths(cfg, widths)

    # --- masks ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Draw masks, or read them off the zeros of weights that were trained sparse."""
        generator = Generator().manual_seed(self._seed)
        if self.part.ratios.keys() & {HEADS, NEURONS}:
            self.kept = self._first_units(generator)
            self.masks = self._masks_of_units()
        elif self.part.ratios.get(WEIGHTS):
            self.masks = self._first_masks(generator)
        weights = self._weights()
        with torch.no_grad():
            for name, mask in self.masks.items():
                weights[name].masked_fill_(~mask, 0)
        self._watch()

    def _first_masks(self, generator: Generator) -> dict[str, Tensor]:
        weights, pattern = self._weights(), self.part.recipe.pattern
        shapes = {name: tuple(weights[name].shape) for name in self._pruned(weights)}
        alive = {name: weights[name].detach() != 0 for name in shapes}
        density = 1 - self.part.ratios[WEIGHTS]
        if pattern is not None:
            n, m = parse_pattern(pattern)
            drawn = {x: random_n_m_mask(shape, n, m, generator) for x, shape in shapes.items()}
            sparse = all(mask.view(-1, m).sum(dim=1).max() <= n for mask in alive.values())
        else:
            densities = erk_densities(shapes, density)
            drawn = {x: random_mask(s, densities[x], generator) for x, s in shapes.items()}
            sparse = _is_sparse(alive, density)
        return {
            # a head for other classes starts from zeros alone, which are no mask
            name: mask if sparse and mask.any() else drawn[name].to(mask.device)
            for name, mask in alive.items()
        }

    def _first_units(self, generator: Generator) -> dict[str, Tensor]:
        kept = {}
        for block in blocks_of(self.model):
            for kind, alive in ((HEADS, alive_heads(block)), (NEURONS, alive_neurons(block))):
                share = 1 - self.part.ratios.get(kind, 0.0)
                count = _count(len(alive), share, kind)
                left = int(alive.sum())
                if left == len(alive):
                    order = torch.randperm(len(alive), generator=generator)
                    alive = torch.zeros(len(alive), dtype=torch.bool)
                    alive[order[:count]] = True
                elif left > count:
                    raise _sparse_otherwise(f"{left} of {len(alive)} {kind}", f"{count}")
                kept[f"{block.name}.{kind}"] = alive.cpu()
        return kept

    def _masks_of_units(self) -> dict[str, Tensor]:
        """What of qkv, fc1 and fc2 belongs to heads and neurons that are kept."""
        masks = {}
        for block in blocks_of(self.model):
            device = block.qkv.weight.device
            heads = self.kept[f"{block.name}.{HEADS}"].to(device)
            neurons = self.kept[f"{block.name}.{NEURONS}"].to(device)
            rows = heads.repeat_interleave(block.head_width).repeat(3)
            for layer, mask in (
                (block.qkv, rows[:, None]),
                (block.fc1, neurons[:, None]),
                (block.fc2, neurons[None, :]),
            ):
                masks[self._name_of(layer.weight)] = mask.expand(layer.weight.shape).contiguous()
        return masks

    def _update_connections(self, rate: float) -> None:
        weights, pattern = self._weights(), self.part.recipe.pattern
        grow: Callable[..., Tensor] = prune_and_grow
        if pattern is not None:
            grow = partial(prune_and_grow_n_m, m=parse_pattern(pattern)[1])
        self.masks = {
            name: grow(weights[name].detach(), mask, self._pull(weights[name], name), rate=rate)
            if weights[name].requires_grad
            else mask
            for name, mask in self.masks.items()
        }

    def _update_units(self, rate: float, step: int) -> None:
        generator = Generator().manual_seed(self._seed + 1 + step)
        for block in blocks_of(self.model):
            layers = (block.qkv, block.fc1, block.fc2)
            if not all(layer.weight.requires_grad for layer in layers):
                continue
            heads, neurons = f"{block.name}.{HEADS}", f"{block.name}.{NEURONS}"
            unheard = (torch.zeros(block.heads, device=block.qkv.weight.device),) * 2
            scores = self._scores.get(block.name, unheard)
            death, growth = (_shared(one).cpu() for one in scores)
            fc1, fc2 = block.fc1.weight, block.fc2.weight
            pulls = [self._pull(weight, self._name_of(weight)) for weight in (fc1, fc2)]
            before = {heads: self.kept[heads], neurons: self.kept[neurons]}
            self.kept[heads] = prune_and_grow_heads(death, growth, before[heads], rate)
            self.kept[neurons] = prune_and_grow_neurons(
                fc1.detach(), fc2.detach(), pulls[0], pulls[1], before[neurons].to(fc1.device), rate
            ).cpu()
            grown = {name: self.kept[name] & ~mask for name, mask in before.items()}
            queries = grown[heads].repeat_interleave(block.head_width)
            _draw_biases(block.qkv.bias, queries, generator)
            _draw_biases(block.fc1.bias, grown[neurons], generator)
        self.masks = self._masks_of_units()

    def _pull(self, weight: Tensor, name: str) -> Tensor:
        """The dense gradient of a weight over all processes; every one of them has to ask."""
        seen = self._dense.get(name)
        return _shared(torch.zeros_like(weight) if seen is None else seen)

    # --- the model ------------------------------------------------------------------------------

    def _weights(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.model.named_parameters() if prunable(n, p.shape)}

    def _name_of(self, weight: Tensor) -> str:
        return next(name for name, one in self._weights().items() if one is weight)

    def _pruned(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Names of the weights that have masks of connections."""
        if not self.part.ratios.get(WEIGHTS):
            return []
        if self.part.recipe.pattern is None:
            return list(weights)
        m = parse_pattern(self.part.recipe.pattern)[1]
        return [name for name, one in weights.items() if one.dim() == 2 and not one.shape[1] % m]

    def _units(self) -> dict[str, int]:
        """Names and numbers of heads and neurons, where these are what is pruned."""
        if not self.part.ratios.keys() & {HEADS, NEURONS}:
            return {}
        return {
            f"{block.name}.{kind}": size
            for block in blocks_of(self.model)
            for kind, size in ((HEADS, block.heads), (NEURONS, block.fc1.out_features))
        }

    def _watch(self) -> None:
        """From now on the gradients of dead connections are zero."""
        if not self._begun:
            for name, weight in self._weights().items():
                if name in self.masks and weight.requires_grad:
                    # the model outlives its training, and then nothing is masked any more
                    weight.register_hook(partial(_masked, weakref.ref(self), name))
        self._begun = True

    def masked(self, name: str, gradient: Tensor) -> Tensor:
        """A weight's gradient without that of dead connections; the dense one is kept for an
        update that is due."""
        if self._due:
            self._dense[name] = gradient.detach()
        factor = self._factors.get(name)
        if factor is None or factor.dtype != gradient.dtype:
            # products with numbers are ten times as fast on a CPU as with bool
            factor = self._factors[name] = self.masks[name].to(gradient.dtype)
        return gradient * factor

    def _listen(self, block: Block) -> RemovableHandle:
        """Score the heads of a block by what they give to the projection behind them."""

        def hear(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if args[0].requires_grad:
                args[0].register_hook(partial(score, args[0].detach()))

        def score(output: Tensor, gradient: Tensor) -> None:
            self._scores[block.name] = head_scores(output, gradient, block.heads)

        return block.proj.register_forward_pre_hook(hear)


def _masked(method: weakref.ref[Weights], name: str, gradient: Tensor) -> Tensor | None:
    alive = method()
    return None if alive is None else alive.masked(name, gradient)


def _is_sparse(alive: Mapping[str, Tensor], density: float) -> bool:
    """Whether weights were trained sparse at this density.

    Raises:
        UserError: they were, at a higher one.
    """
    some = [mask for mask in alive.values() if mask.any()]
    connections = sum(mask.numel() for mask in some)
    left = sum(int(mask.sum()) for mask in some)
    if not connections or left > _DENSE * connections:
        return False
    if left > 1.01 * density * connections:
        raise _sparse_otherwise(f"{left / connections:.1%} of their connections", f"{density:.1%}")
    return True


def _sparse_otherwise(have: str, keep: str) -> UserError:
    return UserError(
        f"The weights to start from are sparse already, with {have}; the config keeps {keep}.",
        "Start from dense weights, from none, or with what the weights were trained with.",
    )


def _count(size: int, share: float, kind: str) -> int:
    """How many of a layer's heads or neurons are kept: ``int(size * share)``."""
    # 1 - 0.4 is a little less than 0.6
    count = int(size * share + 1e-9)
    if count < 1:
        raise UserError(
            f"Of {size} {kind}, a share of {share:g} keeps none.",
            f"Set svite.{kind} to {1 / size:.2f} or more.",
        )
    return count


def _draw_biases(bias: Tensor | None, which: Tensor, generator: Generator) -> None:
    """What has grown has zeros on both sides, between which no gradient would ever pass: its bias
    is drawn anew, which changes nothing that the model gives out yet."""
    if bias is None or not which.any():
        return
    drawn = torch.randn(int(which.sum()), generator=generator) * _BIAS_STD
    with torch.no_grad():
        bias[: len(which)][which.to(bias.device)] = drawn.to(bias)


def _with_widths(cfg: Config, widths: Mapping[str, Sequence[int]]) -> Config:
    """A copy of a config for the model that is left when heads and neurons are taken out.

    Args:
        widths: ``heads`` and ``neurons``: how many each block has.
    """
    changed = copy.deepcopy(cfg)
    backbone = changed.model.backbone
    backbone.widths = {name: list(counts) for name, counts in widths.items()}
    taken = (HEADS, NEURONS)
    backbone.svite = {k: v for k, v in (backbone.get("svite") or {}).items() if k not in taken}
    ratios = changed.get("sparsity") or {}
    left = {name: r for name, r in ratios.items() if name.rpartition(".")[2] not in taken}
    changed.pop("sparsity", None)
    if left:
        changed.sparsity = left
    return changed


def _rank() -> int:
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if ready else 0


def _shared(scores: Tensor) -> Tensor:
    """The sum over all processes, in fp32: what each saw counts, and all come to the same."""
    total = scores.float().contiguous()
    if distributed.is_available() and distributed.is_initialized():
        total = total.clone()
        distributed.all_reduce(total)
    return total


class SparseWeights:
    """The knobs of a vision transformer that is trained sparse, which carries it.

    A ratio says what a training leaves out. Weights that were trained away do not come back at
    ratio 0, so each knob but that of the tokens has one choice; tokens can be chosen at will.

    Args:
        backbone: the transformer.
        recipe: what of it is sparse.

    Attributes:
        selector: of tokens; None where all are kept.
    """

    sparsity_method = Weights

    def __init__(self, backbone: Any, recipe: Recipe) -> None:
        self.recipe = recipe
        self.ratios = recipe.ratios
        self.selector: TokenSelector | None = None
        for block in blocks_of(backbone):
            for kind, size in ((HEADS, block.heads), (NEURONS, block.fc1.out_features)):
                _count(size, 1 - self.ratios.get(kind, 0.0), kind)
        if TOKENS in self.ratios:
            self.selector = _select_tokens(backbone)
            self.selector.ratio = self.ratios[TOKENS]

    def sparsity_space(self) -> Space:
        """A knob for each kind of thing that is left out."""
        return Space(Knob(name, name, (ratio,)) for name, ratio in self.recipe.ratios.items())

    def get_sparsity(self) -> Configuration:
        """The share of each that is left out."""
        return Configuration(self.ratios)

    def set_sparsity(self, configuration: Configuration) -> None:
        """Leave out this share of tokens from now on, and these of all else in a training."""
        self.ratios = dict(configuration)
        if self.selector is not None:
            self.selector.ratio = self.ratios[TOKENS]


def _select_tokens(backbone: Any) -> TokenSelector:
    if backbone.out_type not in ("cls_token", "avg_featmap"):
        raise UserError(
            f"A backbone that gives out {backbone.out_type!r} needs all of its tokens.",
            "Leave svite.tokens out, or set out_type to 'cls_token'.",
        )
    selector = TokenSelector(backbone.embed_dims, backbone.num_extra_tokens)
    setattr(backbone, TOKEN_SELECTOR, selector)
    backbone.layers[0].register_forward_pre_hook(selector.before_block)
    return selector
