"""How a module of ours is run in a process of its own."""

from __future__ import annotations

import os
import sys

# `python -m` and `python -c` look for modules in the working directory first, where a file such as
# yaml.py would run in place of the library. Python 3.10 has no option against it.
_RUN_MODULE = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0); "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """The words that run ``module`` as ``python -m`` does, but for the working directory."""
    return [sys.executable, "-c", _RUN_MODULE, module, *arguments]


def module_environment() -> dict[str, str]:
    """The environment for it: this process's, with its path of modules."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # for what it starts itself, from Python 3.11 on
        "PYTHONSAFEPATH": "1",
    }
