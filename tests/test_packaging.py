"""What a user gets from pip: the package and its configs, from a checkout or from an sdist."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.py") if path.is_file()
)


def hatch(target: str, source: Path, destination: Path) -> Path:
    """Build ``source`` without any network, with the backend that is installed."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(destination)],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=60,
    )
    return next(destination.iterdir())


def names_of_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory) -> set[str]:
    return names_of_wheel(hatch("wheel", ROOT, tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    return hatch("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


def test_the_wheel_holds_the_configs_where_mmengine_looks(wheel_names):
    assert CONFIGS
    assert {f"sparsevit/.mim/{name}" for name in CONFIGS} <= wheel_names
    assert "sparsevit/.mim/model-index.yml" in wheel_names


def test_the_wheel_holds_the_package_and_nothing_else(wheel_names):
    kinds = ("*.py", "*.cpp", "*.h")
    sources = [path for kind in kinds for path in (ROOT / "sparsevit").rglob(kind)]
    assert {path.relative_to(ROOT).as_posix() for path in sources} <= wheel_names
    assert "sparsevit/py.typed" in wheel_names
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "sparsevit",
        "sparsevit_mmcv_ext.pth",
    }
    assert not [name for name in wheel_names if "__pycache__" in name]


def test_the_sdist_holds_what_it_takes_to_test_it(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE"):
        assert name in names
    assert "tests/test_packaging.py" in names
    assert set(CONFIGS) <= names
    assert not [name for name in names if name.startswith((".venv", "work_dirs", ".git/"))]


def test_a_wheel_from_the_sdist_is_that_from_the_checkout(sdist, wheel_names, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(tmp_path.iterdir())
    assert names_of_wheel(hatch("wheel", source, tmp_path / "out")) == wheel_names


def test_a_checkout_serves_its_configs_to_mmengine_too():
    link = ROOT / "sparsevit" / ".mim" / "configs"
    assert link.resolve() == (ROOT / "configs").resolve()


def test_constraints_are_plain_pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    for pin in pins:
        requirement, _, marker = pin.partition(" ; ")
        name, separator, version = requirement.partition("==")
        assert separator, pin
        assert name.replace("-", "").isalnum(), pin
        assert "+" not in version, pin
        assert "/" not in pin, pin
        assert marker in ("", 'python_version >= "3.11"'), pin


def test_make_installs_the_backends_that_the_tests_prove():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines}
    assert {"onnx", "onnxscript", "onnxruntime", "openvino"} <= pinned
    assert "[all,dev,onnx,openvino]" in make("--dry-run", "--always-make", "setup").stdout


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a fresh shell: a make around the tests hands its own variables down."""
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


def recipe_for(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What make would run, with an environment of the caller's own."""
    return make("--dry-run", "SPARSEVIT=sparsevit", *arguments)


def test_a_phase_recipe_passes_on_what_it_was_given():
    done = recipe_for("adapt", "CONFIG=a b.py", "CHECKPOINT=c.pth", "WORKSPACE=w", "ARGS=--seed 1")
    assert done.stdout == 'sparsevit adapt "a b.py" "c.pth" --workspace "w" --seed 1\n'


def test_a_phase_recipe_leaves_out_what_it_was_not_given():
    assert recipe_for("export-config").stdout.split() == ["sparsevit", "export-config"]


def test_a_checkpoint_without_a_config_is_refused():
    done = recipe_for("search", "CHECKPOINT=c.pth")
    assert done.returncode != 0
    assert "needs CONFIG" in done.stderr


@pytest.mark.parametrize("recipe", ["demo", "test", "setup", "lint", "benchmark", "status"])
def test_help_lists_the_recipe(recipe):
    done = make("help")
    assert recipe in [line.split(" ")[0] for line in done.stdout.splitlines()]
