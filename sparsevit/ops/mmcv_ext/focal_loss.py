"""Sigmoid and softmax focal loss (Lin et al., 2017), called as ``mmcv._ext`` is.

Computed in float32 whatever the input (float64 for float64). Compiled mmcv has these on CUDA only;
here they run on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsevit.ops.mmcv_ext.arithmetic import exact_arithmetic, working_dtype

# The least probability that a logarithm is taken of: C's FLT_MIN.
LEAST = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """The loss of each class into ``output``.

    Args:
        input: (n, classes), logits.
        target: (n,) int64, the class; ``classes`` (or another number outside) is background.
        weight: (classes,), the weight of a row by its target (background: 1), or empty for none.
        output: (n, classes), written.
        gamma: focus. alpha: share of the positive class.
    """
    with exact_arithmetic(input):
        p, positive = _probability(input, target)
        of_positive = (1 - p) ** gamma * p.clamp(min=LEAST).log()
        of_negative = p**gamma * (1 - p).clamp(min=LEAST).log()
        loss = torch.where(positive, -alpha * of_positive, -(1 - alpha) * of_negative)
        output.copy_(loss * _row_weight(weight, target, loss)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """The derivative of each loss by its own logit into ``grad_input``; arguments as forward's."""
    with exact_arithmetic(input):
        p, positive = _probability(input, target)
        q = 1 - p
        of_positive = q**gamma * (q - gamma * p * p.clamp(min=LEAST).log())
        of_negative = p**gamma * (gamma * q * q.clamp(min=LEAST).log() - p)
        grad = torch.where(positive, -alpha * of_positive, -(1 - alpha) * of_negative)
        grad_input.copy_(grad * _row_weight(weight, target, grad)[:, None])


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """The loss of each row into ``output`` (n,).

    Args:
        input: (n, classes), probabilities (mmcv takes the softmax itself).
        target: (n,) int64; a row whose target is no class has the loss 0.
        weight: (classes,) or empty.
        output: (n,), written.
        gamma, alpha: as above.
    """
    with exact_arithmetic(input):
        p, known = _target_probability(input, target)
        loss = -alpha * (1 - p) ** gamma * p.clamp(min=LEAST).log()
        output.copy_(loss * known * _row_weight(weight, target, loss))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """The derivative of each row's loss by its logits into ``grad_input`` (n, classes).

    ``buff`` (n,) is written too: the derivative by the logit of the target, over (1 - p).
    """
    with exact_arithmetic(input):
        p, known = _target_probability(input, target)
        q = 1 - p
        slope = gamma * q ** (gamma - 1) * p * p.clamp(min=LEAST).log() - q**gamma
        scale = alpha * slope * known * _row_weight(weight, target, p)
        buff.copy_(scale)
        grad_input.copy_(scale[:, None] * (_is_target(input, target) - input.to(p.dtype)))


def _is_target(input: Tensor, target: Tensor) -> Tensor:
    classes = torch.arange(input.size(1), device=input.device)
    return (target[:, None] == classes).to(working_dtype(input))


def _probability(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return input.to(working_dtype(input)).sigmoid(), _is_target(input, target).bool()


def _target_probability(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The target's probability, and 1 where the target is a class (else 0): two of (n,)."""
    known = (target >= 0) & (target < input.size(1))
    at = target.clamp(0, input.size(1) - 1)[:, None]
    p = input.to(working_dtype(input)).gather(1, at).squeeze(1)
    return p, known.to(p.dtype)


def _row_weight(weight: Tensor, target: Tensor, like: Tensor) -> Tensor:
    if weight.numel() == 0:
        return like.new_ones(target.size(0))
    known = (target >= 0) & (target < weight.numel())
    row_weight = weight.to(like.dtype)[target.clamp(0, weight.numel() - 1)]
    return torch.where(known, row_weight, torch.ones_like(row_weight))
