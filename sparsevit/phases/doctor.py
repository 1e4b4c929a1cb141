"""What is installed, what is used, and what is missing: the facts a bug report needs.

Nothing here may raise because something is broken, as that is what it is asked to report. Packages
are imported only to see whether they import, and each import stands alone.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import sparsevit
from sparsevit.errors import UserError

MIN_PYTHON = (3, 10)
DEFAULT_WORKSPACE = "work_dirs"

CLASSIC_NAMES = {
    "onedl-mmengine": ("mmengine", "mmengine-lite"),
    "onedl-mmcv": ("mmcv", "mmcv-lite", "mmcv-full"),
    "onedl-mmdetection": ("mmdet",),
    "onedl-mmpretrain": ("mmpretrain", "mmcls"),
    "onedl-mmsegmentation": ("mmsegmentation",),
}
"""Distributions of the older OpenMMLab line that bring the same import name, by the newer name."""

CLASSIC_MINIMUM = {"mmcv": "2.0", "mmcv-lite": "2.0", "mmcv-full": "2.0", "mmdet": "3.0"}

SHARED_IMPORT_NAMES = ("mmengine", "mmcv", "mmdet", "mmpretrain", "mmseg", "cv2", "torch")
"""Import names that several distributions are known to fight over."""


class Status(str, Enum):
    """What a finding means for the user."""

    ok = "ok"
    note = "note"
    warning = "warning"
    problem = "problem"


@dataclass(frozen=True)
class Finding:
    """One fact.

    Attributes:
        group: heading it belongs under.
        name: what was looked at.
        status: ``note``: optional and absent. ``warning``: works, may surprise. ``problem``: needed
            and missing or broken.
        value: what was found.
        remedy: what to do about it; empty where nothing is to be done.
    """

    group: str
    name: str
    status: Status
    value: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order to show them, and whether nothing needed is missing."""

    ok: bool
    findings: tuple[Finding, ...]

    def find(self, name: str) -> Finding | None:
        """The finding called ``name``, if there is one."""
        return next((finding for finding in self.findings if finding.name == name), None)


def diagnose(workspace: Path | None = None) -> Diagnosis:
    """Look at this Python environment.

    Args:
        workspace: directory that must be writable; by default ``$SPARSEVIT_WORKSPACE``, else
            ``work_dirs``.
    """
    findings = (
        *_system(),
        *_required_packages(),
        *_imports(),
        *_devices(),
        *_shared_names(),
        *_backends(),
        *_optional(),
        _workspace(workspace),
    )
    return Diagnosis(
        ok=all(finding.status is not Status.problem for finding in findings), findings=findings
    )


# --- system -------------------------------------------------------------------------------------


def _system() -> Iterator[Finding]:
    yield Finding("System", "sparsevit", Status.ok, sparsevit.__version__)
    supported = sys.version_info >= MIN_PYTHON
    yield Finding(
        "System",
        "Python",
        Status.ok if supported else Status.problem,
        f"{platform.python_version()} ({sys.executable})",
        "" if supported else "Use Python 3.10 or newer.",
    )
    yield Finding("System", "platform", Status.ok, platform.platform())
    yield Finding("System", "CPU cores", Status.ok, str(os.cpu_count()))


# --- packages -----------------------------------------------------------------------------------


def _required_packages() -> Iterator[Finding]:
    requirements = _requirements(extra=None)
    if not requirements:
        yield Finding(
            "Packages",
            "sparsevit's requirements",
            Status.warning,
            "unknown, as sparsevit is imported from a directory and not installed",
            "Run `pip install -e .` in the checkout.",
        )
    for requirement in requirements:
        yield _required(requirement)


def _requirements(extra: str | None) -> list[Requirement]:
    """What the installed sparsevit asks for, or what one of its extras does."""
    try:
        lines = metadata.requires("sparsevit") or []
    except metadata.PackageNotFoundError:
        return []
    parsed = [Requirement(line) for line in lines]
    return [requirement for requirement in parsed if _belongs_to(requirement, extra)]


def _belongs_to(requirement: Requirement, extra: str | None) -> bool:
    if requirement.marker is None:
        return extra is None
    always = requirement.marker.evaluate({"extra": ""})
    if extra is None:
        return always
    return not always and requirement.marker.evaluate({"extra": extra})


def _required(requirement: Requirement) -> Finding:
    name, version = _installed(requirement.name)
    if version is None:
        return Finding(
            "Packages",
            requirement.name,
            Status.problem,
            "not installed",
            f'pip install "{requirement.name}{requirement.specifier}"',
        )
    minimum = _minimum(requirement, name)
    if not minimum.contains(version, prereleases=True):
        return Finding(
            "Packages",
            requirement.name,
            Status.problem,
            f"{name} {version}, but {minimum} is needed",
            f'pip install "{requirement.name}{requirement.specifier}"',
        )
    value = version if name == requirement.name else f"{version} (as {name})"
    return Finding("Packages", requirement.name, Status.ok, value)


def _minimum(requirement: Requirement, found: str) -> SpecifierSet:
    """The versions that will do; the older line of a package counts its versions differently."""
    if found == requirement.name:
        return requirement.specifier
    return SpecifierSet(f">={CLASSIC_MINIMUM[found]}" if found in CLASSIC_MINIMUM else "")


def _installed(distribution: str) -> tuple[str, str | None]:
    """Name and version of ``distribution`` or of one that brings the same import name."""
    for name in (distribution, *CLASSIC_NAMES.get(distribution, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return name, metadata.version(name)
    return distribution, None


def _shared_names() -> Iterator[Finding]:
    owners = metadata.packages_distributions()
    for import_name in SHARED_IMPORT_NAMES:
        names = sorted({_normalized(name) for name in owners.get(import_name, ()) if name})
        if len(names) < 2:
            continue
        yield Finding(
            "Packages",
            f"owners of {import_name}",
            Status.warning,
            f"{' and '.join(names)} both install {import_name}/; the last one installed has "
            "overwritten part of the other",
            _remedy_for_owners(import_name, names),
        )


def _remedy_for_owners(import_name: str, names: list[str]) -> str:
    keep = next((name for name in names if name.startswith("onedl-")), names[0])
    if import_name == "cv2":
        keep = next((name for name in names if name.endswith("headless")), keep)
    others = " ".join(name for name in names if name != keep)
    return (
        f"Keep one: pip uninstall -y {others}, then pip install --force-reinstall --no-deps "
        f"{keep}=={_installed(keep)[1]}"
    )


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- imports ------------------------------------------------------------------------------------


def _imports() -> Iterator[Finding]:
    yield _opencv()
    torch, error = _import("torch")
    if torch is None:
        yield _broken("PyTorch", error, "pip install torch (docs/installation.md: CPU and CUDA)")
        return
    yield _op_backend()
    # mmdet imports mmcv's compiled ops, which the step above supplies where they are missing
    with _openmmlab_errors_only():
        models, error = _import("mmdet.models")
    if models is None:
        yield _broken("mmdet", error, 'pip install "onedl-mmdetection>=3.5"')
        return
    yield Finding("In use", "mmdet", Status.ok, str(Path(models.__file__).parents[1]))


def _import(name: str) -> tuple[Any, str]:
    """The module, or None and why it does not import."""
    try:
        return importlib.import_module(name), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0]


@contextlib.contextmanager
def _openmmlab_errors_only() -> Iterator[None]:
    """Importing all of mmdet's models logs a warning about a CUDA op that none of ours uses."""
    logging, _ = _import("mmengine.logging")
    if logging is None:
        yield
        return
    logger = logging.MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _broken(name: str, error: str, remedy: str) -> Finding:
    return Finding("In use", name, Status.problem, f"cannot be imported: {error}", remedy)


def _opencv() -> Finding:
    cv2, error = _import("cv2")
    if cv2 is not None:
        build = "headless build" if _opencv_is_headless() else "build with windows (needs libGL)"
        return Finding("In use", "OpenCV", Status.ok, f"{cv2.__version__}, {build}")
    if "libGL" in error or "libgthread" in error:
        remedy = (
            "This machine has no libGL. Use the headless build: pip uninstall -y opencv-python, "
            "then pip install --force-reinstall --no-deps opencv-python-headless"
        )
    else:
        remedy = "pip install --force-reinstall --no-deps opencv-python-headless"
    return _broken("OpenCV", error, remedy)


def _opencv_is_headless() -> bool:
    version, _ = _import("cv2.version")
    return bool(getattr(version, "headless", False))


def _op_backend() -> Finding:
    name = "detector ops"
    ops, error = _import("sparsevit.ops.mmcv_ext")
    if ops is None:
        return _broken(name, error, "pip install --force-reinstall --no-deps sparsevit")
    try:
        chosen = ops.install()
        makers = Counter(maker.partition(" (")[0] for maker in ops.describe().values())
    except UserError as failure:
        return Finding("In use", name, Status.problem, failure.problem, failure.remedy)
    except Exception as failure:
        return _broken(
            name, f"{type(failure).__name__}: {failure}", 'pip install "onedl-mmcv>=2.3"'
        )
    counts = ", ".join(f"{count} ops from {maker}" for maker, count in makers.most_common())
    return Finding("In use", name, Status.ok, f"{chosen} ({counts})" if counts else chosen)


# --- devices ------------------------------------------------------------------------------------


def _devices() -> Iterator[Finding]:
    torch, _ = _import("torch")
    if torch is None:
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    yield Finding(
        "In use",
        "PyTorch",
        Status.ok,
        f"{torch.__version__} ({build}, {torch.get_num_threads()} threads)",
    )
    names = list(_guarded(lambda: _cuda_devices(torch))) + list(_guarded(lambda: _mps(torch)))
    yield Finding("In use", "devices", Status.ok, ", ".join(["cpu", *names]))
    if torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        return
    yield Finding(
        "In use",
        "CUDA",
        Status.warning,
        "this machine has an NVIDIA driver, but PyTorch sees no CUDA device",
        "Install the CUDA build of torch that fits the driver (docs/installation.md).",
    )


def _guarded(look: Callable[[], list[str]]) -> list[str]:
    """A driver that is half there raises all kinds of errors; none of them is the user's device."""
    try:
        return look()
    except Exception:
        return []


def _cuda_devices(torch: Any) -> list[str]:
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory_gib = properties.total_memory / 2**30
        found.append(f"cuda:{index} ({properties.name}, {memory_gib:.0f} GiB)")
    return found


def _mps(torch: Any) -> list[str]:
    return ["mps"] if torch.backends.mps.is_available() else []


# --- backends -----------------------------------------------------------------------------------


def _backends() -> Iterator[Finding]:
    torch, _ = _import("torch")
    backends, _ = _import("sparsevit.latency.backends")
    if torch is None or backends is None:
        return
    devices = ["cpu", *(["cuda"] if _guarded(lambda: _cuda_devices(torch)) else [])]
    for name in backends.BACKENDS:
        yield _backend(name, [torch.device(one) for one in devices], backends)


def _backend(name: str, devices: list[Any], backends: Any) -> Finding:
    found: dict[str, list[str]] = {}
    refused, remedy = "", ""
    for device in devices:
        for precision in backends.PRECISIONS:
            try:
                backends.require_backend(name, precision, device)
            except UserError as error:
                # the last device is the one that there is most for
                refused, remedy = error.problem, error.remedy
            except Exception as error:
                refused, remedy = f"does not work: {type(error).__name__}: {error}", ""
            else:
                found.setdefault(device.type, []).append(precision)
    if not found:
        return Finding("Backends", name, Status.note, refused, remedy)
    told = "; ".join(f"{device}: {', '.join(able)}" for device, able in found.items())
    return Finding("Backends", name, Status.ok, told)


# --- optional -----------------------------------------------------------------------------------


def _optional() -> Iterator[Finding]:
    for requirement in _requirements(extra="all"):
        if requirement.name == "ninja":
            continue
        version = _installed(requirement.name)[1]
        yield _optional_finding(requirement.name, version, 'pip install "sparsevit[all]"')
    yield _optional_finding("ninja", _program("ninja"), "pip install ninja")
    compiler = os.environ.get("CXX") or "g++"
    yield _optional_finding(
        "C++ compiler",
        _program(compiler),
        "Install g++ or clang++: torch.compile needs one on the CPU; nothing else does.",
    )
    yield _optional_finding(
        "native code",
        _native_code(),
        "It needs g++ and OpenMP; without it, the backend compile is a quarter slower in fp32.",
    )


def _native_code() -> str | None:
    native, _ = _import("sparsevit.ops.native.swin")
    return "compiled" if native is not None and native.usable() else None


def _optional_finding(name: str, found: str | None, remedy: str) -> Finding:
    if found is None:
        return Finding("Optional", name, Status.note, "not installed", remedy)
    return Finding("Optional", name, Status.ok, found)


def _program(name: str) -> str | None:
    """Where a program is, also one that pip put beside a Python that is not on PATH."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


# --- workspace ----------------------------------------------------------------------------------


def _workspace(workspace: Path | None) -> Finding:
    path = Path(workspace or os.environ.get("SPARSEVIT_WORKSPACE") or DEFAULT_WORKSPACE)
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        problem = f"not writable: {error.strerror or error}"
        remedy = (
            "Choose a directory that you can write to: --workspace DIR, or SPARSEVIT_WORKSPACE."
        )
        return Finding("Workspace", str(path), Status.problem, problem, remedy)
    free_gib = shutil.disk_usage(place).free / 2**30
    state = "writable" if place == path else "can be created"
    return Finding("Workspace", str(path), Status.ok, f"{state}, {free_gib:.0f} GiB free")
