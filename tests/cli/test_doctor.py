"""`sparsevit doctor` reports what is broken, and is never broken by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sparsevit.cli.main import main
from sparsevit.latency.backends import BACKENDS
from sparsevit.phases import doctor as phase
from sparsevit.phases.doctor import Status, diagnose

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise {error}
        return None

sys.meta_path.insert(0, Blocker())
from sparsevit.cli.main import main
sys.exit(main(["doctor", "--json"]))
"""


def run_blocked(names: list[str], error: str) -> tuple[int, dict]:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER.format(names=names, error=error)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    document = json.loads(done.stdout)
    assert "Traceback" not in done.stderr
    return done.returncode, {finding["name"]: finding for finding in document["findings"]}


def fake_distribution(site: Path, name: str, version: str, *packages: str) -> None:
    """What pip leaves behind of a distribution that installed ``packages``."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{package}/__init__.py,,\n" for package in packages))


@pytest.fixture
def no_imports(monkeypatch):
    """Leave out what takes seconds, where a test is about metadata alone."""
    monkeypatch.setattr(phase, "_import", lambda name: (None, "ImportError: left out"))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A directory of distributions that Python sees before its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_whole_environment_is_reported_with_every_requirement():
    found = diagnose()
    required = {
        phase.Requirement(line).name
        for line in metadata.requires("sparsevit") or []
        if "extra ==" not in line
    }
    for name in required:
        finding = found.find(name)
        assert finding is not None
        assert finding.status is Status.ok, finding
    for name in ("PyTorch", "OpenCV", "mmdet", "devices", "detector ops"):
        finding = found.find(name)
        assert finding is not None
        assert finding.status is Status.ok, finding
    assert found.ok


def test_every_backend_is_named_and_what_to_install_for_it():
    code, findings = run_blocked(["openvino", "tensorrt"], "ModuleNotFoundError('no', name=name)")
    assert code == 0
    assert set(BACKENDS) <= set(findings)
    assert findings["eager"]["value"].startswith("cpu: fp32, fp16, bf16")
    for name in ("openvino", "tensorrt"):
        assert findings[name]["status"] == "note"
        assert findings[name]["value"] == f"{name} is not installed."
        assert f"pip install 'sparsevit[{name}]'" in findings[name]["remedy"]


@pytest.mark.parametrize(
    ("names", "error", "broken"),
    [
        (["torch"], "ImportError('no torch here')", "PyTorch"),
        (["torch"], "OSError('libtorch_cpu.so: cannot open')", "PyTorch"),
        (["mmdet"], "ImportError('no mmdet here')", "mmdet"),
    ],
)
def test_a_package_that_does_not_import_is_a_problem_with_a_remedy(names, error, broken):
    code, findings = run_blocked(names, error)
    assert code == 1
    assert findings[broken]["status"] == "problem"
    assert "pip install" in findings[broken]["remedy"]


def test_opencv_without_libgl_is_told_to_use_the_headless_build():
    code, findings = run_blocked(
        ["cv2", "torch"], "ImportError('libGL.so.1: cannot open shared object file')"
    )
    assert code == 1
    assert "opencv-python-headless" in findings["OpenCV"]["remedy"]


def test_a_wrong_choice_of_ops_is_a_problem_with_its_own_remedy(monkeypatch):
    monkeypatch.setenv("SPARSEVIT_OPS", "abacus")
    found = phase._op_backend()
    assert found.status is Status.problem
    assert "abacus" in found.value
    assert "pytorch" in found.remedy


@pytest.mark.parametrize(
    ("import_name", "names", "kept", "removed"),
    [
        ("mmdet", ("mmdet", "onedl-mmdetection"), "onedl-mmdetection", "mmdet"),
        ("mmcv", ("mmcv-full", "onedl-mmcv"), "onedl-mmcv", "mmcv-full"),
        ("cv2", ("opencv-python", "opencv-python-headless"), "opencv-python-headless", "opencv-py"),
    ],
)
def test_two_owners_of_one_import_name_are_a_warning(
    site, no_imports, import_name, names, kept, removed
):
    for name in names:
        fake_distribution(site, name, "9.9.9", import_name)
    finding = diagnose().find(f"owners of {import_name}")
    assert finding is not None
    assert finding.status is Status.warning
    for name in names:
        assert name in finding.value
    assert f"--no-deps {kept}==9.9.9" in finding.remedy
    assert f"uninstall -y {removed}" in finding.remedy


def test_one_owner_is_no_warning(no_imports, monkeypatch):
    owners = {"cv2": ["opencv-python-headless", "opencv_python.headless"], "mmdet": ["mmdet"]}
    monkeypatch.setattr(phase.metadata, "packages_distributions", lambda: owners)
    assert not [finding for finding in diagnose().findings if finding.status is Status.warning]


def test_the_older_distributions_fulfil_the_requirement(no_imports, monkeypatch):
    classic = {"mmcv": "2.1.0", "mmdet": "3.3.0", "mmengine": "0.10.7"}
    real = metadata.version

    def version(name):
        if name in classic:
            return classic[name]
        if name.startswith("onedl-"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(phase.metadata, "version", version)
    found = diagnose().find("onedl-mmdetection")
    assert found is not None
    assert found.status is Status.ok
    assert found.value == "3.3.0 (as mmdet)"


def test_a_version_that_is_too_old_is_a_problem(site, no_imports):
    fake_distribution(site, "optuna", "2.10.0", "optuna")
    found = diagnose().find("optuna")
    assert found is not None
    assert found.status is Status.problem
    assert "2.10.0" in found.value
    assert "optuna>=4" in found.remedy


def test_a_workspace_that_cannot_be_written_is_a_problem(no_imports, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    found = diagnose(file / "inside").find(str(file / "inside"))
    assert found is not None
    assert found.status is Status.problem
    assert "--workspace" in found.remedy


def test_a_workspace_that_is_not_there_yet_is_not_made(no_imports, tmp_path):
    found = diagnose(tmp_path / "a" / "b").find(str(tmp_path / "a" / "b"))
    assert found is not None
    assert found.status is Status.ok
    assert list(tmp_path.iterdir()) == []


def test_the_table_shows_findings_with_their_remedies(no_imports, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "Packages" in text
    assert "pip install torch" in text
    assert "Something that is needed is missing" in text


def test_the_json_document_is_what_python_returns(no_imports, capfd):
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    assert document["ok"] is False
    assert {"group", "name", "status", "value", "remedy"} == set(document["findings"][0])


def test_the_table_has_every_finding(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    findings = diagnose().findings
    assert {finding.group for finding in findings} >= {"System", "Backends", "Optional"}
    for finding in findings:
        assert finding.group in shown
        assert finding.name in shown
    assert "Everything that is needed is installed." in shown


def test_native_code(monkeypatch):
    for found, status in ((True, Status.ok), (False, Status.note)):
        monkeypatch.setattr("sparsevit.ops.native.swin.usable", lambda found=found: found)
        assert diagnose().find("native code").status is status
