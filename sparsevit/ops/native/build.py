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
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from sparsevit.ops.native.private import doubt_of

FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC"]
COMPILERS = ["g++", "c++", "clang++"]
SECONDS = 120

logger = logging.getLogger(__name__)


@cache
def load(source: Path) -> ctypes.CDLL | None:
    """The library made of a C++ file, or None where there is none to be had.

    It is kept in a folder of the user's cache (``SPARSEVIT_CACHE``, or ``sparsevit`` in
    ``XDG_CACHE_HOME``, by default ``~/.cache``), by what it was made of, with what, and on which
    CPU. Nobody else may be able to write there, as what is kept is run: else it is compiled for
    this process alone, which is logged as a warning. ``SPARSEVIT_NATIVE=off`` in the environment
    leaves it out. Why it is missing is logged at level INFO.
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
            if not _is_ours(built):
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
    texts = [one.read_text(encoding="utf-8") for one in (source, *_headers(source))]
    parts = [*texts, compiler, version, *FLAGS, _cpu()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _headers(source: Path) -> list[Path]:
    """What a source may include: all that is beside it."""
    return sorted(source.parent.glob("*.h"))


def _cpu() -> str:
    """What ``-march=native`` stands for here: a home may be shared by machines that differ."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.split()))
    return platform.processor() + platform.machine()


def _folder(stack: contextlib.ExitStack) -> Path:
    """Where builds are kept; a temporary folder where the user's cache is not private to write."""
    try:
        kept = _cache()
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = kept.resolve(strict=True)
        if doubt := doubt_of(kept):
            logger.warning(
                "Native code is not kept: %s. It is compiled for this process alone; to keep it, "
                "make that private (chmod go-w), or set SPARSEVIT_CACHE to a folder of your own.",
                doubt,
            )
        elif os.access(kept, os.W_OK):
            return kept
    except (OSError, RuntimeError) as error:
        logger.info("Native code is not kept: %s", error)
    # what is loaded stays loaded when its file is gone
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsevit-")))


def _cache() -> Path:
    if chosen := os.environ.get("SPARSEVIT_CACHE"):
        return Path(chosen).expanduser().absolute()
    home = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if not home.is_absolute():  # then it counts as not set
        home = Path("~/.cache").expanduser()
    if not home.is_absolute():
        raise OSError("there is no home directory")
    return home / "sparsevit"


def _is_ours(built: Path) -> bool:
    """Whether a build is there that nobody else can have written."""
    try:
        status = built.lstat()
    except FileNotFoundError:
        return False
    user = os.getuid() if hasattr(os, "getuid") else status.st_uid
    return stat.S_ISREG(status.st_mode) and status.st_uid == user and not status.st_mode & 0o022


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
        linked.chmod(0o600)
        os.replace(linked, built)
