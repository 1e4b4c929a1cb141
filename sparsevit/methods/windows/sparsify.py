"""``sparsify(model)``: window attention anywhere in a model, on the windows that matter.

Each block becomes an instance of its adapter's class, which has the same parts and another forward;
nothing else in the model changes. Blocks that follow one another on one map are a group: they share
a ranking of the windows, and their ratios never fall from one to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.methods.windows.adapters import LIBRARIES, adapter_of
from sparsevit.methods.windows.block import WindowBlock
from sparsevit.methods.windows.forward import (
    RankOver,
    Route,
    Stage,
    StageTokens,
    check_rank_over,
)
from sparsevit.methods.windows.method import Windows
from sparsevit.methods.windows.routes import eager
from sparsevit.methods.windows.routes.exported import exported_route
from sparsevit.methods.windows.selection import Selection, record
from sparsevit.ops.tracing import exporting
from sparsevit.ops.windows import Pair
from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.handle import ATTACHED, SparsityHandle, sparse_parts
from sparsevit.sparsity.space import Space

_PASS = "_sparsevit_pass"
"""Attribute of a map on its way from one block to the next: the pass that it belongs to."""


def sparsify(
    model: nn.Module,
    ratios: float | Mapping[str, float] = 0.0,
    *,
    choices: Sequence[float] | None = None,
    rank_over: RankOver | None = None,
) -> nn.Module:
    """Make every window attention block of a model skip its least active windows (SparseViT).

    The model is changed in place; its ``state_dict`` keeps its keys. ``SparsityHandle(model)`` has
    the knobs, one for each pair of blocks, and :func:`densify` undoes it. A model that is already
    sparse keeps its knobs and gets the new ratios.

    Args:
        model: a model or a part of one, from mmdet, timm, torchvision or Hugging Face transformers.
        ratios: the share of windows to skip, in [0, 1): a number for all blocks, or a number for
            each knob by name.
        choices: ratios that a search may give a knob; None for 0 to 0.8 in steps of 0.1.
        rank_over: which windows are ranked together: those of an ``"image"``, of the whole
            ``"batch"``, or of so many images that follow one another. None for what a sparse model
            has already, and else for an image.

    Returns:
        The model.

    Raises:
        UserError: the model has no window attention that sparsevit supports, or ``rank_over`` is
            none of these.
        ConfigurationError: the ratios are not valid for the model's knobs.
    """
    if rank_over is not None:
        check_rank_over(rank_over)
    if sparse_parts(model):
        handle = SparsityHandle(model)
        handle.set(_configuration(handle.space, ratios))
        for found in sparse_parts(model).values():
            if rank_over is not None and hasattr(found, "rank_over"):
                found.rank_over = rank_over
        return model
    groups = [WindowGroup(name, blocks) for name, blocks in _window_blocks(model)]
    if not groups:
        raise UserError(
            f"{type(model).__name__} has no window attention that sparsevit supports.",
            f"Supported models: {'; '.join(LIBRARIES.values())}.",
        )
    part = SparseWindows(groups, choices)
    part.rank_over = "image" if rank_over is None else rank_over
    part.set_sparsity(_configuration(part.sparsity_space(), ratios))
    part.attach()
    setattr(model, ATTACHED, part)
    return model


def _configuration(space: Space, ratios: float | Mapping[str, float]) -> Configuration:
    return space.validate(ratios) if isinstance(ratios, Mapping) else space.uniform(ratios)


def densify(model: nn.Module) -> nn.Module:
    """Undo :func:`sparsify`, in place: every block is the library's own again.

    Returns:
        The model.
    """
    for module in model.modules():
        if isinstance(module, SparseBlock):
            module.__class__ = module.library_block  # type: ignore[assignment]
            del module.group
        if ATTACHED in vars(module):
            delattr(module, ATTACHED)
    return model


class SparseBlock(nn.Module):
    """What a library's block becomes: a mixin of its adapter's classes.

    Attributes:
        library_block: what it was, and is when it is dense again.
        group: the blocks that it shares a map with.
    """

    library_block: ClassVar[type[nn.Module]]
    group: WindowGroup

    @classmethod
    def has_windows(cls, block: Any) -> bool:
        """Whether a block of this class attends within windows, not over the whole map."""
        return True

    def view(self, hw: Pair) -> WindowBlock:
        """The parts of this block on a map of (height, width) tokens."""
        raise NotImplementedError

    def run(self, x: Tensor, hw: Pair) -> Tensor:
        """The block on a map (B, H * W, C) or (B, H, W, C), which stays as it is."""
        return self.group.run(self, x, hw)


@dataclass(eq=False)
class WindowGroup:
    """Blocks that follow one another on one map.

    Attributes:
        name: of the group of knobs.
        blocks: in the order in which they are called.
        ratios: one a block.
        watch: is told what each block keeps: (block, kept windows, where they are).
        rank_over: which windows are ranked together.
    """

    name: str
    blocks: list[Any]
    watch: Any = None
    rank_over: RankOver = "image"

    def __post_init__(self) -> None:
        self.ratios = [0.0] * len(self.blocks)
        self._stage: Stage | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copied and saved without the pass it is in."""
        return {**vars(self), "watch": None, "_stage": None}

    def run(self, block: SparseBlock, x: Tensor, hw: Pair) -> Tensor:
        """One of the blocks on a map (B, H * W, C) or (B, H, W, C), which stays as it is."""
        i = next(n for n, one in enumerate(self.blocks) if one is block)
        recorded = exporting() or torch.compiler.is_compiling()
        # later blocks go by the ranking of the first, also where they are computed once more for
        # the sake of their gradients: the map says which pass it is of
        stage = (None if recorded else getattr(x, _PASS, None)) or self._stage
        if i == 0 or stage is None or stage.hw != hw:
            views = [one.view(hw) for one in self.blocks]
            device, rank_over = x.device, self.rank_over
            stage = Stage(views, self.ratios, hw, device, Route(), self.watch, rank_over)
        in_place = not torch.is_grad_enabled() and not recorded
        stage.route = _route(in_place)
        tokens = StageTokens.of(x.reshape(len(x), hw[0] * hw[1], -1), stage.layouts[i])
        if in_place and tokens.x_RC.data_ptr() == x.data_ptr():
            tokens = replace(tokens, x_RC=tokens.x_RC.clone())
        tokens = stage.run(i, tokens)
        out = tokens.by_image(tokens.x_RC).view(x.shape)
        last = i == len(self.blocks) - 1
        self._stage = None if last and not (torch.is_grad_enabled() or block.training) else stage
        if not last and not recorded:
            setattr(out, _PASS, stage)
        return out


def _route(in_place: bool) -> Route:
    """The steps of a stage, which may write into the map that they are given or not."""
    if exporting():
        return exported_route()
    return eager() if in_place else replace(eager(), put=_put_in_copy)


def _put_in_copy(x_RC: Tensor, rows: Tensor, t_RC: Tensor) -> Tensor:
    return x_RC.index_copy(0, rows, t_RC)


class SparseWindows:
    """The knobs of a model that was made sparse, which carries it.

    Args:
        groups: of blocks.
        choices: of every knob; 0 to 0.8 by 0.1 where None.
    """

    sparsity_method = Windows

    def __init__(self, groups: Sequence[WindowGroup], choices: Sequence[float] | None) -> None:
        self.groups = groups
        self._space = Space.grouped({g.name: len(g.blocks) for g in groups}, choices=choices)

    def attach(self) -> None:
        """Let every block be one that skips."""
        for group in self.groups:
            for block in group.blocks:
                adapter = adapter_of(block)
                assert adapter is not None
                block.__class__ = adapter
                block.group = group

    @property
    def rank_over(self) -> RankOver:
        """Which windows are ranked together."""
        return self.groups[0].rank_over

    @rank_over.setter
    def rank_over(self, rank_over: RankOver) -> None:
        for group in self.groups:
            group.rank_over = check_rank_over(rank_over)

    def sparsity_space(self) -> Space:
        """One knob for each pair of blocks of a group."""
        return self._space

    def get_sparsity(self) -> Configuration:
        """The ratio of every knob as set now."""
        return self._space.from_nested([group.ratios for group in self.groups])

    def set_sparsity(self, configuration: Configuration) -> None:
        """Set every knob."""
        nested = self._space.to_nested(self._space.validate(configuration))
        for group, ratios in zip(self.groups, nested, strict=True):
            group.ratios = list(ratios)

    @contextmanager
    def record_selections(self) -> Iterator[list[Selection]]:
        """Within this context, every block that runs appends what it kept to the list."""
        seen: list[Selection] = []
        for number, group in enumerate(self.groups):
            group.watch = partial(record, seen, number)
        try:
            yield seen
        finally:
            for group in self.groups:
                group.watch = None


def _window_blocks(model: nn.Module) -> Iterator[tuple[str, list[nn.Module]]]:
    """Runs of blocks with window attention that follow one another in a container, by name.

    A run is named after its container, or after its first block where it is not all of it: in a
    plain ViT, blocks with attention over the whole map stand between.
    """
    for path, parent in model.named_modules():
        found = [(name, child, adapter_of(child)) for name, child in parent.named_children()]
        whole = all(adapter is not None for _, _, adapter in found)
        for windows, run in itertools.groupby(found, key=lambda each: each[2] is not None):
            if windows:
                members = list(run)
                name = path.removesuffix(".blocks") if whole else f"{path}.{members[0][0]}"
                yield name.removeprefix(".") or "blocks", [child for _, child, _ in members]
