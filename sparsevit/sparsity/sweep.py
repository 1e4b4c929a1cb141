"""One knob at a time: the configurations that show what a knob does."""

from __future__ import annotations

from dataclasses import dataclass

from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.space import Space


@dataclass(frozen=True)
class SweepPoint:
    """A knob at a ratio, and what follows from it by the rule of its group.

    Attributes:
        knob: its name.
        ratio: of it, and of the knobs after it in its group.
        configuration: these, and 0 for all others.
    """

    knob: str
    ratio: float
    configuration: Configuration


def sweep(space: Space, *, of_earlier: bool = False) -> list[SweepPoint]:
    """Each knob at each of its choices above 0, all others dense.

    Within a group ratios never fall, so the knobs after it in its group are raised to it: the least
    that the rule allows, and also to a ratio that is not among their own choices.

    Args:
        space: the knobs.
        of_earlier: each knob also at the choices of those before it in its group, so that what two
            neighbours do can be subtracted.
    """
    points = []
    for members in space.groups.values():
        names = [knob.name for knob in members]
        for index, knob in enumerate(members):
            sources = members[: index + 1] if of_earlier else (knob,)
            ratios = {choice for source in sources for choice in source.choices}
            for ratio in sorted(ratios - {0.0}):
                raised = dict.fromkeys(names[index:], ratio)
                configuration = Configuration({**space.dense(), **raised})
                points.append(SweepPoint(knob.name, ratio, configuration))
    return points
