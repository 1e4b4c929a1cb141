"""A figure in the README comes from a file in benchmarks/results/."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tables():
    path = ROOT / "benchmarks" / "shared" / "tables.py"
    spec = importlib.util.spec_from_file_location("tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_results_are_those_of_the_files(tables):
    text = (ROOT / "README.md").read_text()
    assert tables.with_results(text) == text


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda p: p.stem
)
def test_every_result_names_its_machine_versions_and_command(path):
    result = json.loads(path.read_text())
    assert result["machine"]["cores"]
    assert result["versions"]["torch"]
    assert result["command"].startswith("python benchmarks/")
