"""Configurations as steps, in which the rule that ratios never fall cannot be broken."""

from __future__ import annotations

from collections.abc import Mapping

from sparsevit.sparsity import Configuration, Knob, Space


class Steps:
    """How many choices up each knob is from the lowest that the knob before it in its group allows.

    A model of single knobs, such as TPE's, that draws steps draws valid configurations only. Any
    steps of 0 or more are a configuration; those beyond the highest choice are the highest.

    Args:
        space: the knobs.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._ceilings = space.max()

    @property
    def most(self) -> dict[str, int]:
        """The most steps that each knob can be up."""
        return {knob.name: len(self._allowed(knob, 0.0)) - 1 for knob in self.space.knobs}

    def encode(self, configuration: Mapping[str, float]) -> dict[str, int]:
        """The steps of a configuration of the space."""
        steps = {}
        for members in self.space.groups.values():
            floor = 0.0
            for knob in members:
                ratio = configuration[knob.name]
                steps[knob.name] = self._allowed(knob, floor).index(ratio)
                floor = ratio
        return steps

    def decode(self, steps: Mapping[str, int]) -> Configuration:
        """The configuration of these steps."""
        ratios = {}
        for members in self.space.groups.values():
            floor = 0.0
            for knob in members:
                allowed = self._allowed(knob, floor)
                floor = allowed[min(steps[knob.name], len(allowed) - 1)]
                ratios[knob.name] = floor
        return Configuration({name: ratios[name] for name in self.space.names})

    def _allowed(self, knob: Knob, floor: float) -> list[float]:
        ceiling = self._ceilings[knob.name]
        return [choice for choice in knob.choices if floor <= choice <= ceiling]
