"""The predictor of connections: a low-rank guess at an attention (Sparsifiner, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.methods.attention.forward import Choice


class MaskPredictor(nn.Module):
    """Weighs the rows of a basis for each query, by reduced queries and keys.

    Args:
        num_tokens: N, of the images that it is made for, the class token among them.
        head_dim: channels of a head.
        num_heads: of the attention.
        reduce_n: keys are mixed over tokens to N // reduce_n.
        reduce_c: queries and keys are mapped to head_dim // reduce_c channels.
        shared: whether the basis is made of ``proj_n`` too.
        basis_threshold: entries of the basis up to this are 0.
        coefficients: a query uses the basis rows of so many largest coefficients; below 1, those of
            coefficients above it.
        connections: ``"topk"``, a query keeps its ``ceil(keep_rate * N)`` keys of the largest
            weights; a number below 1, the keys of weights above it; ``"blocks"``, see
            :class:`~sparsevit.methods.attention.forward.Choice`.
        keep_rate: share of the N keys that a query keeps; at 1 attention is dense.

    Attributes:
        learns: attention is dense, and each forward leaves in ``error`` how far the weights are
            from it: see :func:`~sparsevit.methods.attention.routes.attend`.
        error: of the last forward, where it learns.
        note: is told of every forward: the predictor, queries, keys, and which tokens they are.
    """

    learns = False
    error: Tensor | None = None
    note: Callable[[MaskPredictor, Tensor, Tensor, Tensor | None], None] | None = None

    def __init__(
        self,
        num_tokens: int,
        head_dim: int,
        num_heads: int,
        reduce_n: int = 6,
        reduce_c: int = 2,
        shared: bool = False,
        basis_threshold: float = 0.02,
        coefficients: int | float = 8,
        connections: str | float = "topk",
        keep_rate: float = 0.25,
    ) -> None:
        super().__init__()
        self.basis_threshold, self.coefficients = basis_threshold, coefficients
        self.connections, self.keep_rate = connections, keep_rate
        # of heads, not of a head's channels, in the reference as well
        self.scale = num_heads**-0.5
        self.proj_c_q = nn.Linear(head_dim, head_dim // reduce_c)
        self.proj_c_k = nn.Linear(head_dim, head_dim // reduce_c)
        self.proj_n = nn.Parameter(torch.empty(num_tokens, num_tokens // reduce_n))
        self.proj_back_n = self.proj_n if shared else nn.Parameter(torch.empty_like(self.proj_n))
        for weight in {self.proj_n, self.proj_back_n, self.proj_c_q.weight, self.proj_c_k.weight}:
            nn.init.trunc_normal_(weight, std=0.02)
        for layer in (self.proj_c_q, self.proj_c_k):
            nn.init.zeros_(layer.bias)

    @property
    def num_tokens(self) -> int:
        """N, that it is made for."""
        return len(self.proj_n)

    def choice(self, tokens: int) -> Choice:
        """How queries choose among so many keys; the share kept is of all N, pruned ones too."""
        if not isinstance(self.connections, str):
            return Choice(self.coefficients, self.connections)
        keep = min(math.ceil(self.keep_rate * self.num_tokens), tokens)
        return Choice(self.coefficients, keep, self.connections == "blocks")

    def is_dense(self, tokens: int) -> bool:
        """Whether nothing of so many tokens is left out."""
        return self.keep_rate == 1 or self.choice(tokens).keeps_all(tokens)

    def reduced(
        self, q_BHnd: Tensor, k_BHnd: Tensor, tokens_Bn: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What gives the logits of coefficients as a product: (B, H, n - 1, c) of the patches'
        queries, and (B, H, c, K) of all keys.

        Args:
            tokens_Bn: which of the N tokens there are; all of them where None.
        """
        proj_n = self.proj_n if tokens_Bn is None else self.proj_n[tokens_Bn].unsqueeze(1)
        mixed = self.proj_c_k(k_BHnd).transpose(-2, -1) @ proj_n
        return self.proj_c_q(q_BHnd[..., 1:, :]), mixed * self.scale

    def basis(self, tokens_Bn: Tensor | None = None) -> Tensor:
        """(K, N), most of it 0; (B, 1, K, n) of some tokens."""
        size = self.proj_back_n.abs()
        basis = torch.threshold(size, self.basis_threshold, 0.0)
        if tokens_Bn is None:
            return basis.t()
        return basis[tokens_Bn].unsqueeze(1).transpose(-2, -1)


def check_predictor(
    num_tokens: int,
    head_dim: int,
    keep_rates: Sequence[float],
    *,
    reduce_n: int = 6,
    reduce_c: int = 2,
    basis_threshold: float = 0.02,
    coefficients: int | float = 8,
    connections: str | float = "topk",
) -> None:
    """Check what predictors are to be made of; see :class:`MaskPredictor`.

    Args:
        keep_rates: of each layer.

    Raises:
        UserError: a value is none of those that are known, or leaves nothing.
    """
    for name, value in (("reduce_n", reduce_n), ("reduce_c", reduce_c)):
        require(
            is_count(value),
            f"{name}={value!r} is no positive whole number.",
            "Give a whole number from 1 up.",
        )
    require(
        reduce_c <= head_dim,
        f"reduce_c={reduce_c} leaves none of the {head_dim} channels of a head.",
        "Give a smaller reduce_c, such as 2.",
    )
    require(
        reduce_n <= num_tokens,
        f"reduce_n={reduce_n} leaves none of {num_tokens} tokens.",
        "Give a smaller reduce_n, such as 6, or larger images.",
    )
    for rate in keep_rates:
        require(
            _is_number(rate) and 0 < rate <= 1,
            f"keep_rate={rate!r} is not above 0 and up to 1.",
            "It is the share of the keys that a query keeps, such as 0.25; 1 keeps all.",
        )
    require(
        _is_number(basis_threshold) and basis_threshold >= 0,
        f"basis_threshold={basis_threshold!r} is not 0 or more.",
        "Give 0 or more, such as 0.02.",
    )
    require(
        _is_number(coefficients)
        and (0 < coefficients < 1 or (coefficients >= 1 and coefficients == int(coefficients))),
        f"coefficients={coefficients!r} is neither a count nor a threshold.",
        "Give a whole number, such as 8, or a threshold between 0 and 1, such as 0.05.",
    )
    by = connections
    require(
        by in ("topk", "blocks") if isinstance(by, str) else _is_number(by) and 0 < by < 1,
        f"connections={by!r} does not say how connections are chosen.",
        "Give 'topk', 'blocks', or a threshold between 0 and 1, such as 0.0001.",
    )


def require(holds: bool, problem: str, remedy: str) -> None:
    """Raise a :class:`UserError` where something does not hold."""
    if not holds:
        raise UserError(problem, remedy)


def is_count(value: Any) -> bool:
    """Whether something is a whole number from 1 up."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
