"""The interface of a method: all that phases, search, latency and reports know of a sparsity."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.sparsity.handle import sparse_parts

if TYPE_CHECKING:
    from mmengine.config import Config

Nested = float | Sequence[float] | Sequence[Sequence[float]]
"""Ratios without names: one number, one a stage, or a list a stage with one a block."""


class Method:
    """One kind of sparsity in one model.

    Every part of a model that can be skipped (:class:`~sparsevit.sparsity.handle.SparseModule`)
    names its method in ``sparsity_method``; :func:`methods_in` makes one object of each for a
    model. What a method does not override does nothing.

    Args:
        model: with parts of this kind, as :meth:`convert` leaves it.

    Attributes:
        name: for people and records, such as ``windows``.
        backbones: types that a config's backbone has where it is of this kind.
        module: registers them.
        from_weights: whether a training starts from weights that were trained before; set by who
            trains.
    """

    name: ClassVar[str]
    backbones: ClassVar[tuple[str, ...]] = ()
    module: ClassVar[str] = ""
    from_weights: bool = True

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def parts(self) -> dict[str, Any]:
        """The model's parts of this kind, by the name of their module."""
        parts = sparse_parts(self.model)
        return {name: part for name, part in parts.items() if part.sparsity_method is type(self)}

    @classmethod
    def convert(cls, model: nn.Module, **options: Any) -> nn.Module:
        """Make a dense model one with parts of this kind, in place; nothing is skipped yet.

        Raises:
            UserError: the model has nothing that this method can skip.
        """
        raise NotImplementedError(f"{cls.__name__} converts no model")

    # --- in a config ----------------------------------------------------------------------------

    @classmethod
    def config_has(cls, cfg: Config) -> bool:
        """Whether the model of a config has parts of this kind."""
        model = cfg.get("model") or {}
        backbone = model.get("backbone") or {}
        kind = backbone.get("type", "") if isinstance(backbone, dict) else ""
        if isinstance(kind, type):
            return kind.__module__ == cls.module and kind.__name__ in cls.backbones
        scope, _, name = str(kind).rpartition(".")
        return name in cls.backbones and scope in ("", "mmpretrain", cls.module)

    @classmethod
    def convert_config(cls, cfg: Config) -> Config:
        """A copy of a config whose model has parts of this kind, at ratio 0 where it had none, and
        what registers them imported.

        Raises:
            UserError: the model has nothing that this method can skip.
        """
        if not cls.config_has(cfg):
            raise UserError(
                f"The method {cls.name} cannot skip any part of the config's model.",
                f"Its backbones are {' and '.join(cls.backbones)}." if cls.backbones else "",
            )
        importlib.import_module(cls.module)
        return copy.deepcopy(cfg)

    def nested(self, configuration: Mapping[str, float]) -> list[list[float]] | None:
        """A configuration in the form that a config of this kind has within its model, for tools
        that know no ``sparsity``; None where there is none.

        Args:
            configuration: a ratio for every knob of the model.
        """
        return None

    @classmethod
    def write_nested(cls, cfg: Config, nested: Nested) -> None:
        """Write what :meth:`nested` gives into a config, in place."""
        raise NotImplementedError(f"{cls.__name__} has no nested form")

    # --- training -------------------------------------------------------------------------------

    def before_training(self, iterations: int, seed: int) -> None:
        """Called once before the first iteration, with weights loaded; also where a run is
        resumed, before :meth:`load_state_dict`.

        Args:
            iterations: of the whole training.
            seed: of the run, the same in every process.
        """

    def before_step(self, step: int) -> None:
        """Called before the forward of an iteration, counted from 0; the configuration of the
        iteration is set."""

    def extra_loss(self) -> dict[str, Tensor]:
        """Called after every forward: losses by name, to be added to the task's. They are logged
        as ``loss_<method>_<name>``."""
        return {}

    def after_optimizer_step(self, step: int, optimizer: Any) -> None:
        """Called after a step that the optimiser really took, gradients still in place; may change
        weights and the optimiser's state. Accumulation and overflow leave steps out.

        Args:
            step: the iteration, counted from 0.
            optimizer: ``torch.optim.Optimizer``.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint carries beside the weights, to resume a training: tensors and plain
        data. What a forward needs belongs into buffers of the model."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` gave."""

    # --- execution ------------------------------------------------------------------------------

    @classmethod
    def compiled(cls, part: nn.Module, frozen: bool) -> nn.Module | None:
        """A part with a compiled forward, or None where :func:`torch.compile` takes it as a whole.

        Args:
            part: is left as it is; parameters are shared.
            frozen: for inference, with weights that do not change any more.
        """
        return None

    @classmethod
    def exported(cls, part: nn.Module) -> nn.Module:
        """A part in the form that graph runtimes execute best, for inference alone."""
        return part

    def counting(self) -> AbstractContextManager[Any]:
        """Entered while a forward is counted for :meth:`work`."""
        return nullcontext()

    def work(self, counted: float) -> float:
        """The multiply-accumulates that a forward needs, of those that were counted in it.

        They differ where a mask makes some of them vain. Called after the forward.
        """
        return counted

    def parameters(self, counted: int) -> int:
        """The parameters that a model needs, of those that it has; see :meth:`work`."""
        return counted

    def effective(
        self, configuration: Mapping[str, float], image_sizes: Collection[tuple[int, int]]
    ) -> Hashable:
        """What of a configuration counts on images of these sizes: where this is equal, the model
        computes the same, whatever the ratios.

        Args:
            configuration: a ratio for every knob of the model.
            image_sizes: (height, width) of what the model's parts of this kind are given.

        Returns:
            Plain data; the configuration itself where a method does not know better.
        """
        return tuple(sorted(configuration.items()))

    def shrink(self, cfg: Config) -> Config:
        """Take out of the model's tensors, in place, what is skipped whatever the input.

        Args:
            cfg: that the model was built from.

        Returns:
            A copy of it that builds the smaller model.

        Raises:
            UserError: nothing of the model can be taken out.
        """
        raise UserError(
            f"What {self.name} skip is another part of each input, and stays in the model.",
            "Set the sparsity with a file or in the config; `sparsevit export` takes it along.",
        )

    # --- what it looks like ---------------------------------------------------------------------

    def picture(self, image: Tensor, pixels: Any, out: Path) -> Path | None:
        """Draw what the model skips on an image.

        Args:
            image: (1, 3, H, W), normalised, on the model's device.
            pixels: (H, W, 3) uint8 RGB of the same.
            out: the PNG to write.

        Returns:
            ``out``, or None where there is nothing to be seen.
        """
        return None


def methods_in(model: nn.Module) -> list[Method]:
    """The methods of a model's parts, one object of each, in the order of the parts."""
    model = getattr(model, "module", model)
    kinds = dict.fromkeys(part.sparsity_method for part in sparse_parts(model).values())
    return [kind(model) for kind in kinds]


def networks_of(
    model: nn.Module, image_sizes: Collection[tuple[int, int]]
) -> Callable[[Mapping[str, float]], Hashable]:
    """Tells configurations by the network that they make of a model: equal for those that compute
    the same on images of these sizes.

    Args:
        model: with sparse parts, in evaluation mode.
        image_sizes: (height, width) of what the parts are given; where there are none, they are not
            known, and no two configurations are taken for the same.
    """
    if not image_sizes:
        return lambda configuration: tuple(sorted(configuration.items()))
    methods, sizes = methods_in(model), sorted(image_sizes)
    return lambda configuration: tuple(m.effective(configuration, sizes) for m in methods)


def compiled_form(module: nn.Module, frozen: bool) -> nn.Module | None:
    """A sparse module in the form that compiles best; None for any other, to be compiled whole."""
    part = sparse_parts(module).get("")
    return None if part is None else part.sparsity_method.compiled(module, frozen)


def exported_form(module: nn.Module) -> nn.Module:
    """A sparse module in the form that exports best; any other is returned as it is."""
    part = sparse_parts(module).get("")
    return module if part is None else part.sparsity_method.exported(module)
