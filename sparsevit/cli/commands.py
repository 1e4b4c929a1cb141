"""Typer's commands and groups: help that shows a value only where an option takes one, and no value
that nothing can be meant by."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def _without_flag_values(params: list[Any]) -> list[Any]:
    """Some versions of typer write ``--force <bool>``, which reads as if it took a value."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


MAY_BE_EMPTY = ("--validate-at",)
"""Options of which an empty value says: none."""


def _refuse_empty(ctx: Any, args: Sequence[str]) -> None:
    """An empty or blank word is what a shell makes of a variable that is not set: "$WORKSPACE"."""
    before = ""
    for word in args:
        option, equals, value = word.partition("=")
        given = option.startswith("--") and equals and not value.strip()
        named = option if given else before
        if (not word.strip() or given) and named not in MAY_BE_EMPTY:
            what = named if named.startswith("-") else "An argument"
            raise typer.BadParameter(f"{what} is empty.", ctx=ctx)
        before = word


def _refuse_what_no_one_means(ctx: Any, param: Any, value: Any) -> None:
    """Refuse a null byte in a text, and a number in a range that is none."""
    for each in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(each, (str, os.PathLike)) and "\0" in os.fspath(each):
            raise typer.BadParameter("it has a null byte.", ctx=ctx, param=param)
        # typer keeps the range with the parameter or with its type, by version
        ranges = (param, getattr(param, "type", None))
        bounded = any(getattr(it, "min", None) is not None for it in ranges)
        if bounded and isinstance(each, float) and not math.isfinite(each):
            raise typer.BadParameter(f"{each} is not a number.", ctx=ctx, param=param)


class Command(TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _refuse_empty(ctx, args)
        rest = super().parse_args(ctx, args)
        for param in self.get_params(ctx):
            _refuse_what_no_one_means(ctx, param, ctx.params.get(param.name))
        return rest

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_flag_values(super().get_params(ctx))


class Group(TyperGroup):
    """A command with commands of its own."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_flag_values(super().get_params(ctx))
