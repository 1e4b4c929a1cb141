"""The space of configurations: which knobs there are, and which settings of them go together."""

from __future__ import annotations

import difflib
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from sparsevit.errors import shortened
from sparsevit.sparsity.configuration import (
    Configuration,
    ConfigurationError,
    Knob,
    default_choices,
    format_ratio,
    to_ratio,
)


class Space:
    """Knobs, and the rule that within a group ratios never fall from one knob to the next.

    What is once dropped in a stage stays dropped there, so that kept indices can be reused.

    Args:
        knobs: in the order of the model; those of one group in the order of its layers.

    Raises:
        ConfigurationError: where two knobs share a name, or the choices of a group admit no
            setting that never falls.
    """

    def __init__(self, knobs: Iterable[Knob]) -> None:
        self.knobs: tuple[Knob, ...] = tuple(knobs)
        self.names: tuple[str, ...] = tuple(knob.name for knob in self.knobs)
        groups: dict[str, list[Knob]] = {}
        for knob in self.knobs:
            groups.setdefault(knob.group, []).append(knob)
        self.groups: dict[str, tuple[Knob, ...]] = {
            group: tuple(members) for group, members in groups.items()
        }
        self._refuse_shared_names()
        self._ceilings: dict[str, float] = {}
        for members in self.groups.values():
            self._ceilings.update(_ceilings(members))

    @classmethod
    def staged(
        cls,
        depths: Sequence[int],
        *,
        choices: Sequence[float] | None = None,
        prefix: str = "stages",
        pair: int = 2,
    ) -> Space:
        """The space of a model made of stages, with one knob for every ``pair`` layers.

        A stage with one knob is named ``stages.0``; with several ``stages.2_1``, ``stages.2_2``
        and so on. Where the depth is no multiple of ``pair``, the last knob sets what is left.

        Args:
            depths: layers of each stage.
            choices: of every knob; 0 to 0.8 by 0.1 where left out.
        """
        names = (f"{prefix}.{stage}" if prefix else str(stage) for stage in range(len(depths)))
        return cls.grouped(dict(zip(names, depths, strict=True)), choices=choices, pair=pair)

    @classmethod
    def grouped(
        cls, depths: Mapping[str, int], *, choices: Sequence[float] | None = None, pair: int = 2
    ) -> Space:
        """As :meth:`staged`, of groups by name.

        Args:
            depths: name of a group -> its layers.
            choices, pair: see :meth:`staged`.
        """
        options = default_choices() if choices is None else tuple(choices)
        knobs = []
        for group, depth in depths.items():
            sizes = [min(pair, depth - start) for start in range(0, depth, pair)]
            for index, layers in enumerate(sizes, start=1):
                name = group if len(sizes) == 1 else f"{group}_{index}"
                knobs.append(Knob(name, group, options, layers))
        return cls(knobs)

    def prefixed(self, prefix: str) -> Space:
        """The same space with ``prefix.`` before every knob and group; as it is for ``""``."""
        if not prefix:
            return self
        return Space(
            Knob(f"{prefix}.{knob.name}", f"{prefix}.{knob.group}", knob.choices, knob.layers)
            for knob in self.knobs
        )

    def __add__(self, other: Space) -> Space:
        return Space((*self.knobs, *other.knobs))

    def __len__(self) -> int:
        return len(self.knobs)

    def __eq__(self, other: object) -> bool:
        return self.knobs == other.knobs if isinstance(other, Space) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.knobs)

    def __repr__(self) -> str:
        return f"Space({list(self.knobs)!r})"

    def __contains__(self, values: object) -> bool:
        if not isinstance(values, Mapping):
            return False
        try:
            self.validate(values, strict=True)
        except ConfigurationError:
            return False
        return True

    def to_dict(self) -> list[dict[str, Any]]:
        """The knobs as plain data, for a record or a comparison."""
        return [
            {"name": k.name, "group": k.group, "choices": list(k.choices), "layers": k.layers}
            for k in self.knobs
        ]

    @classmethod
    def from_dict(cls, knobs: Sequence[Mapping[str, Any]]) -> Space:
        """The space that :meth:`to_dict` wrote."""
        return cls(
            Knob(k["name"], k["group"], tuple(k["choices"]), int(k["layers"])) for k in knobs
        )

    def size(self) -> int:
        """The exact number of configurations."""
        return math.prod(_count(members) for members in self.groups.values())

    # --- settings ---------------------------------------------------------------------------

    def dense(self) -> Configuration:
        """Ratio 0 everywhere: the dense model, also where 0 is not among the choices."""
        return self.uniform(0.0)

    def uniform(self, ratio: float) -> Configuration:
        """One ratio everywhere; it need not be among the choices.

        Raises:
            ConfigurationError: where it is no ratio.
        """
        value = to_ratio(ratio, "The ratio")
        return Configuration(dict.fromkeys(self.names, value))

    def min(self) -> Configuration:
        """The least sparse configuration of the space."""
        return self._nearest(dict.fromkeys(self.names, 0.0))

    def max(self) -> Configuration:
        """The sparsest configuration of the space."""
        return Configuration({name: self._ceilings[name] for name in self.names})

    def every(self) -> Iterator[Configuration]:
        """Every configuration of the space, once each, from the least sparse on."""
        settings = (_settings(members, 0.0) for members in self.groups.values())
        order = [knob.name for members in self.groups.values() for knob in members]
        for groups in itertools.product(*map(list, settings)):
            ratios = dict(zip(order, itertools.chain.from_iterable(groups), strict=True))
            yield Configuration({name: ratios[name] for name in self.names})

    def sample(self, rng: random.Random) -> Configuration:
        """A random configuration, drawn as the paper's code does.

        Every knob uniformly from its choices, in order, then sorted within each group. (So it is
        not uniform over configurations: in a group, different draws sort to the same setting.)
        """
        return self.sorted({knob.name: rng.choice(knob.choices) for knob in self.knobs})

    def sorted(self, values: Mapping[str, float]) -> Configuration:
        """The configuration of the space that values become when sorted within each group.

        Values that are not among a knob's choices then move to the nearest one that keeps the
        rule, so what comes back is always a configuration of the space.

        Args:
            values: a ratio for every knob, in any order.

        Raises:
            ConfigurationError: where a knob is missing or unknown, or a value is no ratio.
        """
        ratios = self._ratios(values)
        for members in self.groups.values():
            if len(members) == 1:
                continue
            ordered = sorted(ratios[knob.name] for knob in members)
            ratios.update(zip((knob.name for knob in members), ordered, strict=True))
        return self._nearest(ratios)

    def _nearest(self, ratios: Mapping[str, float]) -> Configuration:
        nearest: dict[str, float] = {}
        for members in self.groups.values():
            floor = 0.0
            for knob in members:
                allowed = [c for c in knob.choices if floor <= c <= self._ceilings[knob.name]]
                floor = min(allowed, key=lambda choice: abs(choice - ratios[knob.name]))
                nearest[knob.name] = floor
        return Configuration({name: nearest[name] for name in self.names})

    # --- checks -----------------------------------------------------------------------------

    def validate(self, values: Mapping[str, float], strict: bool = False) -> Configuration:
        """Checks a setting, and gives it in the space's order.

        Args:
            values: knob name to ratio.
            strict: also refuse a ratio that is not among the knob's choices.

        Raises:
            ConfigurationError: naming the knob: unknown, missing, no number, not within [0, 1),
                below the knob before it in its group, or (strict) not one of its choices.
        """
        ratios = self._ratios(values)
        for members in self.groups.values():
            for before, knob in itertools.pairwise(members):
                if ratios[knob.name] < ratios[before.name]:
                    raise ConfigurationError(
                        f"Knob {knob.name!r} is {format_ratio(ratios[knob.name])}, below the "
                        f"{format_ratio(ratios[before.name])} of {before.name!r} before it.",
                        f"Within {knob.group} ratios must not fall from one knob to the next.",
                        knob.name,
                    )
        if strict:
            self._refuse_other_choices(ratios)
        return Configuration(ratios)

    def _ratios(self, values: Mapping[str, float]) -> dict[str, float]:
        if not isinstance(values, Mapping):
            raise ConfigurationError(
                f"Expected a ratio for each knob by name, not {type(values).__name__}.",
                f"The knobs are {_listed(self.names)}.",
            )
        known = set(self.names)
        for name in values:
            if name not in known:
                raise ConfigurationError(
                    f"There is no knob {shortened(repr(name))}.",
                    self._suggestion(shortened(str(name), 200)),
                    str(name),
                )
        missing = [name for name in self.names if name not in values]
        if missing:
            raise ConfigurationError(
                f"Knob{'s' if len(missing) > 1 else ''} {_listed(missing)} "
                f"{'are' if len(missing) > 1 else 'is'} missing.",
                "Give a ratio for every knob.",
                missing[0],
            )
        return {
            name: to_ratio(values[name], f"The ratio of knob {name!r}", name) for name in self.names
        }

    def _suggestion(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names, n=1)
        if close:
            return f"Did you mean {close[0]!r}?"
        return f"The knobs are {_listed(self.names)}."

    def _refuse_other_choices(self, ratios: Mapping[str, float]) -> None:
        for knob in self.knobs:
            if ratios[knob.name] not in knob.choices:
                raise ConfigurationError(
                    f"Knob {knob.name!r} is {format_ratio(ratios[knob.name])}, which is not among "
                    f"its choices.",
                    f"Use one of {', '.join(format_ratio(c) for c in knob.choices)}.",
                    knob.name,
                )

    def _refuse_shared_names(self) -> None:
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise ConfigurationError(
                    f"Two knobs are named {name!r}.", "Names must differ.", name
                )
            seen.add(name)

    # --- the paper's nested lists -----------------------------------------------------------

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Layers of each group."""
        return tuple(sum(knob.layers for knob in members) for members in self.groups.values())

    def to_nested(self, configuration: Mapping[str, float]) -> list[list[float]]:
        """One list a group, one ratio a layer: the ``pruning_ratios`` of the paper's configs."""
        return [
            [configuration[knob.name] for knob in members for _ in range(knob.layers)]
            for members in self.groups.values()
        ]

    def from_nested(self, nested: float | Sequence[float | Sequence[float]]) -> Configuration:
        """Reads ``pruning_ratios``: one number, one a group, or a list a group with one a layer.

        Raises:
            ConfigurationError: where a length does not fit, the layers of one knob differ, or the
                setting is not valid (see :meth:`validate`).
        """
        if not _is_list(nested):
            return self.uniform(to_ratio(nested, "The ratio"))
        assert isinstance(nested, Sequence)
        if len(nested) != len(self.groups):
            raise ConfigurationError(
                f"There are {len(nested)} lists of ratios for {len(self.groups)} stages.",
                f"Give one each for {_listed(self.groups)}, with {_listed(self.depths)} ratios.",
            )
        ratios: dict[str, float] = {}
        for (group, members), entry in zip(self.groups.items(), nested, strict=True):
            ratios.update(_group_ratios(group, members, entry))
        return self.validate({name: ratios[name] for name in self.names})


def _group_ratios(group: str, members: Sequence[Knob], entry: Any) -> dict[str, float]:
    depth = sum(knob.layers for knob in members)
    if not _is_list(entry):
        entry = [entry] * depth
    if len(entry) != depth:
        raise ConfigurationError(
            f"{group} has {depth} layers, and {len(entry)} ratios are given for it.",
            f"Give {depth} ratios, one per layer.",
            members[0].name,
        )
    ratios: dict[str, float] = {}
    start = 0
    for knob in members:
        layers = [
            to_ratio(value, f"Ratio {start + index + 1} of {group} (knob {knob.name!r})", knob.name)
            for index, value in enumerate(entry[start : start + knob.layers])
        ]
        if len(set(layers)) > 1:
            raise ConfigurationError(
                f"The layers of knob {knob.name!r} have the ratios "
                f"{', '.join(map(format_ratio, layers))}.",
                f"Its {knob.layers} layers share one ratio: give them the same.",
                knob.name,
            )
        ratios[knob.name] = layers[0]
        start += knob.layers
    return ratios


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)


def _ceilings(members: Sequence[Knob]) -> dict[str, float]:
    """For each knob the highest choice that leaves the knobs after it one that is not below."""
    ceilings: dict[str, float] = {}
    ceiling = 1.0
    for knob in reversed(members):
        allowed = [choice for choice in knob.choices if choice <= ceiling]
        if not allowed:
            raise ConfigurationError(
                f"The choices of knob {knob.name!r} are all above those of the knobs after it in "
                f"{knob.group}.",
                "Ratios must be able to rise or stay from one knob of a stage to the next.",
                knob.name,
            )
        ceiling = allowed[-1]
        ceilings[knob.name] = ceiling
    return ceilings


def _settings(members: Sequence[Knob], floor: float) -> Iterator[tuple[float, ...]]:
    """Every setting of one group that never falls, from a ratio on."""
    if not members:
        yield ()
        return
    for choice in members[0].choices:
        if choice >= floor:
            yield from ((choice, *rest) for rest in _settings(members[1:], choice))


def _count(members: Sequence[Knob]) -> int:
    """Settings of one group that never fall: how many end in each choice, knob after knob."""
    ending: dict[float, int] = {0.0: 1}
    for knob in members:
        ending = {
            choice: sum(count for last, count in ending.items() if last <= choice)
            for choice in knob.choices
        }
    return sum(ending.values())
