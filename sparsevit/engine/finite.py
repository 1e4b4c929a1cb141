"""Numbers that are not finite (NaN, infinite): found where they first show, before they spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsevit.errors import RunFailed

AMP_PATIENCE = 20
"""Iterations in a row whose loss may overflow in mixed precision: it then takes no step."""

DIVERGED = (
    "Lower the learning rate (--set optim_wrapper.optimizer.lr=...), clip gradients "
    "(optim_wrapper.clip_grad), train in fp32, or look for wrong annotations."
)


def not_finite(tensors: Mapping[str, Any], buffers: Callable[[str], bool] | None = None) -> str:
    """The name of the first tensor that is not finite; empty where all are.

    Args:
        tensors: by name; what is no dense tensor of floats is passed over.
        buffers: says of a name that its tensor may be infinite, such as that of a mask.
    """
    for name, value in tensors.items():
        if not _is_dense(value):
            continue
        numbers = value.float() if value.element_size() == 1 else value
        wrong = torch.isnan if buffers is not None and buffers(name) else _wrong
        if bool(wrong(numbers).any()):
            return name
    return ""


def not_finite_in(model: nn.Module) -> str:
    """The name of the first parameter that is not finite; empty where all are."""
    return not_finite(dict(model.named_parameters()))


@contextmanager
def finite_maps(part: nn.Module | None, subject: Callable[[], str]) -> Iterator[None]:
    """Within this context the feature maps that a part of a model gives are finite.

    Args:
        part: a backbone, or what stands for it; None: nothing is looked at.
        subject: says what it was given.

    Raises:
        RunFailed: one is not.
    """

    def look(module: nn.Module, inputs: Any, maps: Any) -> None:
        if torch.compiler.is_compiling():
            return  # a backend takes the model as a graph: these are no numbers
        if any(_is_dense(one) and bool(_wrong(one).any()) for one in tree_leaves(maps)):
            raise RunFailed(
                "The backbone gives numbers that are not finite (NaN or infinite) for "
                f"{subject()}.",
                "If it runs in fp16, which overflows, use --precision bf16 or fp32. Else look at "
                "the training that made the checkpoint, and at this image.",
            )

    handle = part.register_forward_hook(look) if part is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


class FiniteHook(Hook):
    """Stops a training whose loss or weights are no longer finite, before they are saved.

    In mixed precision a loss that overflows now and then is none: the scaler takes no step, and
    lowers its scale.
    """

    # before what saves checkpoints
    priority = "HIGH"

    def __init__(self) -> None:
        self._in_a_row = 0

    def before_train(self, runner: Runner) -> None:
        _refuse(not_finite_in(runner.model), "before training")

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        loss = (outputs or {}).get("loss")
        if loss is None:
            return
        loss = torch.as_tensor(loss).detach()
        bad = _wrong(loss.float()).any().to(torch.int32)
        # one process would stop, and the others wait for it
        if dist.get_world_size() > 1:
            dist.all_reduce(bad, "max")
        self._in_a_row = self._in_a_row + 1 if bool(bad) else 0
        if self._in_a_row > (AMP_PATIENCE if _scales_loss(runner.optim_wrapper) else 0):
            raise RunFailed(
                f"The loss is {float(loss):g} at iteration {runner.iter + 1}: training has "
                "diverged, and was stopped.",
                DIVERGED,
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        _refuse(not_finite_in(runner.model), f"after iteration {runner.iter + 1}")


def diverged(model: nn.Module) -> RunFailed | None:
    """What to say of a training that failed, where weights that are not finite made it fail."""
    name = not_finite_in(model)
    return _diverged(name, "when training failed") if name else None


def _refuse(name: str, when: str) -> None:
    if name:
        raise _diverged(name, when)


def _diverged(name: str, when: str) -> RunFailed:
    return RunFailed(
        f"The weight {name} is not finite (NaN or infinite) {when}: training has diverged, and "
        "was stopped.",
        DIVERGED,
    )


def _scales_loss(wrapper: Any) -> bool:
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return any(isinstance(one, AmpOptimWrapper) for one in wrappers)


def _is_dense(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and not value.is_meta
    )


def _wrong(value: Tensor) -> Tensor:
    return ~torch.isfinite(value)
