"""The errors a user may see: what was done, what is wrong, what to do."""

from __future__ import annotations

from sparsevit.secrets import masked


class _Told(Exception):
    """What is told in two sentences. Passwords of URLs in either are masked."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        problem, remedy = masked(problem), masked(remedy)
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy


class UserError(_Told):
    """A mistake that the user can mend: the command line prints it, and exits with code 2.

    Args:
        problem: what the user did and what is wrong with it, in one or two sentences.
        remedy: what to do about it, as an instruction (a command where there is one).
    """


class RunFailed(_Told):
    """Work that failed by itself, as a training does that diverges: exit code 1, no traceback.

    Args:
        problem: what happened, in one or two sentences.
        remedy: what to look at, as an instruction.
    """


def shortened(value: object, most: int = 80) -> str:
    """``value`` as text of at most ``most`` characters; of a longer one the middle is left out."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 5]} ... {text[len(text) - end :]}"
