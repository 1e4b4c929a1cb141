"""The made-up landscape that the search's tests share."""

import importlib.util
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("slow_search.py")


@pytest.fixture(scope="session")
def landscape():
    """The module ``slow_search.py``: SPACE, latency, score, evolution, the interval."""
    spec = importlib.util.spec_from_file_location("slow_search", _SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_search(landscape):
    """Calls search on the landscape; keywords replace what it is called with."""
    from sparsevit.search import search

    def run(**changes):
        arguments = {
            "space": landscape.SPACE,
            "measure": landscape.latency,
            "score": landscape.score,
            "min_ms": landscape.MIN_MS,
            "max_ms": landscape.MAX_MS,
            "trials": landscape.TRIALS,
            "sampler": landscape.evolution(),
            **changes,
        }
        return search(**arguments)

    return run
