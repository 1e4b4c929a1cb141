"""Dynamic sparse training as functions of tensors: SViTE (Chen et al., NeurIPS 2021, arXiv
2106.04533), section 3.

Masks are bool, True for what is alive. Between two updates a mask stands still; an update lets some
of the connections die and as many grow, so that the number alive never changes. Where two scores
are equal, the lower index goes first, so that every process comes to the same mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from sparsevit.errors import UserError

TOKEN_SELECTOR = "token_selector"
"""What the module that chooses tokens is called in a model; its weights are never pruned."""

_PRUNED_DIMENSIONS = (2, 4)


def prunable(name: str, shape: Sequence[int]) -> bool:
    """Whether a parameter is a weight that may be pruned: one of two or four dimensions, which no
    bias, norm and embedding of positions or of the class token is; and not of the token selector.

    Args:
        name: dotted, as in ``named_parameters``.
        shape: of the parameter.
    """
    return len(shape) in _PRUNED_DIMENSIONS and TOKEN_SELECTOR not in name.split(".")


def erk_densities(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """How dense each layer is, so that all of them together have a density (Erdős–Rényi–Kernel).

    A layer's density is ``epsilon * sum(shape) / prod(shape)``: large layers are sparser. Where the
    largest comes out above 1, that layer is dense, and epsilon is solved again for the others.

    Args:
        shapes: name of a layer -> shape of its weight.
        density: share of all connections that is alive, in (0, 1].

    Returns:
        A density in (0, 1] for each layer.

    Raises:
        UserError: the density is not within (0, 1].
    """
    check_density(density)
    if density == 1:
        return dict.fromkeys(shapes, 1.0)
    budget = density * sum(math.prod(shape) for shape in shapes.values())
    free = dict(shapes)
    while free:
        dense = sum(math.prod(shape) for name, shape in shapes.items() if name not in free)
        epsilon = (budget - dense) / sum(sum(shape) for shape in free.values())
        found = {name: epsilon * sum(s) / math.prod(s) for name, s in free.items()}
        largest = max(found.values())
        if largest <= 1:
            return {name: found.get(name, 1.0) for name in shapes}
        free = {name: free[name] for name in free if found[name] < largest}
    return dict.fromkeys(shapes, 1.0)


def check_density(density: float, what: str = "The density") -> float:
    """A density as a float.

    Raises:
        UserError: it is not within (0, 1].
    """
    known = isinstance(density, (int, float)) and not isinstance(density, bool)
    if not known or not 0 < density <= 1:
        raise UserError(
            f"{what} is {density!r}, which is not within (0, 1].",
            "A density is the share that is kept: 0.5 keeps half, 1 keeps all.",
        )
    return float(density)


def death_rate(step: int, total: int, start: float = 0.5, end: float = 0.005) -> float:
    """The share of what is alive that dies in an update: a cosine from ``start`` to ``end``.

    Args:
        step: iteration of the update, counted from 0.
        total: iterations of the whole training.
    """
    return end + (start - end) * (1 + math.cos(math.pi * min(step / total, 1.0))) / 2


# --- single connections --------------------------------------------------------------------------


def random_mask(shape: Sequence[int], density: float, generator: Generator) -> Tensor:
    """A mask with ``round(density * size)`` connections alive, at least one, drawn on the CPU."""
    size = math.prod(shape)
    alive = max(1, round(density * size))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=generator)[:alive]] = True
    return mask.view(*shape)


def prune_and_grow(weight: Tensor, mask: Tensor, gradient: Tensor, rate: float) -> Tensor:
    """Let the smallest connections of a layer die, and as many grow where the loss pulls most.

    Of the n alive, the ``ceil(rate * n)`` smallest in magnitude die; as many grow by the largest
    magnitude of the gradient among all dead ones, those just killed among them (RigL's rule, SViTE
    section 3.1).

    Args:
        weight: of any shape.
        mask: bool, of that shape; the mask until now.
        gradient: of the dense weight, of that shape.
        rate: share that dies, in [0, 1].

    Returns:
        The new mask, with as many alive. A layer that is wholly alive is left alone.
    """
    if bool(mask.all()):
        return mask.clone()
    replaced = _replace(mask.flatten(), weight.abs().flatten(), gradient.abs().flatten(), rate)
    return replaced.view_as(mask)


# --- neurons and heads ---------------------------------------------------------------------------


def prune_and_grow_neurons(
    fc1: Tensor, fc2: Tensor, fc1_grad: Tensor, fc2_grad: Tensor, kept: Tensor, rate: float
) -> Tensor:
    """:func:`prune_and_grow` for the hidden neurons of an MLP (S2ViTE, section 3.2).

    A neuron's magnitude is the L1 norm of its row of fc1 and its column of fc2; it grows by the
    same of their gradients.

    Args:
        fc1, fc1_grad: (hidden, C) first weight and the gradient of the dense one.
        fc2, fc2_grad: (C, hidden) second weight and its gradient.
        kept: (hidden) bool.
        rate: share that dies, in [0, 1].

    Returns:
        (hidden) bool, with as many kept.
    """
    death = fc1.abs().sum(dim=1) + fc2.abs().sum(dim=0)
    growth = fc1_grad.abs().sum(dim=1) + fc2_grad.abs().sum(dim=0)
    return _replace(kept, death, growth, rate)


def prune_and_grow_heads(
    death_scores: Tensor, growth_scores: Tensor, kept: Tensor, rate: float
) -> Tensor:
    """:func:`prune_and_grow` for the heads of an attention (S2ViTE, section 3.2).

    Args:
        death_scores, growth_scores: (heads), see :func:`head_scores`.
        kept: (heads) bool.
        rate: share that dies, in [0, 1].

    Returns:
        (heads) bool, with as many kept.
    """
    return _replace(kept, death_scores, growth_scores, rate)


def head_scores(output: Tensor, gradient: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """What heads matter to the loss, from what they give out.

    Args:
        output: (B, N, heads * width) of all heads, one after the other.
        gradient: of the loss at it, of the same shape.

    Returns:
        (heads) each: death scores, the mean over the batch of ``|sum(output * gradient)|``, and
        growth scores, the mean over the batch of the L1 norm of the gradient.
    """
    shape = (*output.shape[:2], heads, -1)
    out, grad = output.float().reshape(shape), gradient.float().reshape(shape)
    return (out * grad).sum(dim=(1, 3)).abs().mean(dim=0), grad.abs().sum(dim=(1, 3)).mean(dim=0)


def _replace(alive: Tensor, death_scores: Tensor, growth_scores: Tensor, rate: float) -> Tensor:
    """Those that die have the lowest death scores; those that grow have the highest growth scores.

    Args:
        alive: (n) bool.
        death_scores, growth_scores: (n).
    """
    count = math.ceil(rate * int(alive.sum()))
    survivors = alive & ~_first(death_scores, alive, count)
    return survivors | _first(-growth_scores, ~survivors, count)


def _first(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """(n) bool: the ``count`` lowest scores of some, by index where they are equal."""
    chosen = torch.zeros_like(among)
    if not count:
        return chosen
    candidates = among.nonzero().squeeze(1)
    found = scores[candidates]
    # a selection in linear time; to sort millions of weights takes as long as an iteration
    limit = found.kthvalue(count).values
    below = found < limit
    equal = (found == limit).nonzero().squeeze(1)[: count - int(below.sum())]
    chosen[candidates[below]] = True
    chosen[candidates[equal]] = True
    return chosen


# --- n of every m --------------------------------------------------------------------------------


def random_n_m_mask(shape: Sequence[int], n: int, m: int, generator: Generator) -> Tensor:
    """A mask (out, in) with n of every m neighbours of a row alive, drawn on the CPU.

    Args:
        shape: (out, in), ``in`` a multiple of m.
    """
    order = torch.rand(math.prod(shape) // m, m, generator=generator).argsort(dim=1)
    return (order < n).view(*shape)


def prune_and_grow_n_m(
    weight: Tensor, mask: Tensor, gradient: Tensor, rate: float, m: int
) -> Tensor:
    """:func:`prune_and_grow` where every m neighbours of a row keep the number that they have.

    The smallest of the layer die, as there; in each group as many grow as died in it.

    Args:
        weight, gradient: (out, in), ``in`` a multiple of m.
        mask: (out, in) bool.
        rate: share that dies, in [0, 1].
        m: size of a group.
    """
    alive = mask.flatten()
    dying = _first(weight.abs().flatten(), alive, math.ceil(rate * int(alive.sum())))
    dead = (~alive | dying).view(-1, m)
    pull = gradient.abs().view(-1, m).masked_fill(~dead, -1.0)
    rank = pull.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    grown = rank < dying.view(-1, m).sum(dim=1, keepdim=True)
    return (~dead | grown).view_as(mask)
