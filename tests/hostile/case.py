"""What one case is: files, words, surroundings, and which exit codes are right."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

SECRET = "hunter2Zq9xK"
"""A password. Where it is found in what a command prints or writes, a secret was shown."""

CANARY_NAME = "CANARY"
"""What an executed payload creates, beside the folder of the case."""

MISTAKE = frozenset({2})
MAYBE = frozenset({0, 2})
FINE = frozenset({0})
FOUND = frozenset({0, 1, 2})
"""For commands that may end with what they were asked to look for, such as NaN: exit code 1."""


@dataclass(frozen=True)
class Place:
    """Where a case happens.

    Args:
        folder: the working directory. It has ``ws`` (a workspace in which every phase ran),
            ``tiny.py`` (a config) and files of somebody else.
        canary: the path that a payload creates.
        fixture: shared files that may be read only.
    """

    folder: Path
    canary: Path
    fixture: Path

    @property
    def workspace(self) -> Path:
        return self.folder / "ws"

    @property
    def shell(self) -> str:
        """A shell command that shows that code ran."""
        return f"touch {self.canary}"

    @property
    def python(self) -> str:
        """A Python expression that shows that code ran."""
        return f"open({str(self.canary)!r}, 'w').close()"


@dataclass(frozen=True)
class Case:
    """One command on one hostile input.

    Args:
        name: what is hostile about it, in a few words.
        words: of the command, after ``sparsevit``. ``{folder}`` and ``{canary}`` are filled in.
        make: writes or damages files before the command starts.
        codes: exit codes that are right. 2 alone for what is certainly a mistake.
        env: variables that are set, or with None removed.
        setup: called in the process of the command, before anything of it runs.
        fresh: start a new interpreter, as a user does, instead of a copy of a warm one.
        workspace: whether a finished workspace is needed.
        writes: patterns of files that the command may write in the working directory.
        silent: nobody can read what it says, so no message is asked for.
    """

    name: str
    words: tuple[str, ...]
    make: Callable[[Place], object] | None = None
    codes: frozenset[int] = MISTAKE
    env: Mapping[str, str | None] = field(default_factory=dict)
    setup: Callable[[], object] | None = None
    fresh: bool = False
    workspace: bool = True
    writes: tuple[str, ...] = ()
    silent: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of hostile input: known attacks, and as many mutations as one asks for."""

    name: str
    catalogue: list[Case]
    mutation: Callable[[random.Random], Case]

    @classmethod
    def of(cls, name: str, module: ModuleType) -> Kind:
        return cls(name, module.catalogue(), module.mutation)

    def case(self, index: int, seed: int) -> Case:
        """Case ``index``: of the catalogue, beyond it a mutation drawn from ``seed``."""
        if index < len(self.catalogue):
            return self.catalogue[index]
        return self.mutation(random.Random(f"{seed}:{self.name}:{index}"))
