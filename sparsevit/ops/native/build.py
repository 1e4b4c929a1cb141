"""Compile a C++ file for this machine, once, and load it.

The code is plain C++ with vector extensions of GCC and OpenMP, and knows neither PyTorch nor
Python: it takes a second to compile, and one build serves all versions of both. OpenMP is the one
that PyTorch has loaded, so that both share their threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC"]
COMPILERS = ["g++", "c++", "clang++"]
SECONDS = 120

logger = logging.getLogger(__name__)


@cache
def load(source: Path) -> ctypes.CDLL | None:
    """The library made of a C++ file, or None where there is none to be had.

    It is kept in a folder of the user's cache (``SPARSEVIT_CACHE``, or ``sparsevit`` in
    ``XDG_CACHE_HOME``, by default ``~/.cache``), by what it was made of, with what, and on which
    CPU. ``SPARSEVIT_NATIVE=off`` in the environment leaves it out. Why it is missing is logged at
    level INFO.
    """
    if os.environ.get("SPARSEVIT_NATIVE") == "off":
        return None
    compiler = _compiler()
    if compiler is None:
        logger.info("%s is not compiled: no C++ compiler is on the path.", source.name)
        return None
    try:
        with contextlib.ExitStack() as stack:
            built = _folder(stack) / f"{source.stem}-{_digest(source, compiler)}.so"
            if not built.exists():
                _build(source, compiler, built)
            # PyTorch is imported before this, and its OpenMP with it
            return ctypes.CDLL(str(built))
    except subprocess.CalledProcessError as error:
        logger.info("%s does not compile here:\n%s", source.name, error.stderr)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.info("%s is not used: %s", source.name, error)
    return None


def _compiler() -> str | None:
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else COMPILERS:
        if found := shutil.which(name):
            return found
    return None


def _digest(source: Path, compiler: str) -> str:
    """Of everything that the machine code depends on."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=SECONDS
    ).stdout
    parts = [source.read_text(encoding="utf-8"), compiler, version, *FLAGS, _cpu()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """What ``-march=native`` stands for here: a home may be shared by machines that differ."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.split()))
    return platform.processor() + platform.machine()


def _folder(stack: contextlib.ExitStack) -> Path:
    """Where builds are kept; a temporary folder where the user's cache cannot be written."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    kept = Path(os.environ.get("SPARSEVIT_CACHE") or os.path.join(home, "sparsevit"))
    with contextlib.suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
        if os.access(kept, os.W_OK):
            return kept
    # what is loaded stays loaded when its file is gone
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsevit-")))


def _build(source: Path, compiler: str, built: Path) -> None:
    """Compile beside the target and rename, so that no other process loads half a file."""
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        compiled, linked = Path(folder, "object.o"), Path(folder, built.name)
        # linked apart and without -fopenmp: no second OpenMP comes along
        for command in (
            [compiler, *FLAGS, "-fopenmp", "-c", str(source), "-o", str(compiled)],
            [compiler, "-shared", str(compiled), "-o", str(linked)],
        ):
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
        os.replace(linked, built)
