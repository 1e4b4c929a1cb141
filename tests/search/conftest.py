"""The made-up landscape that the search's tests share."""

import dataclasses
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
    """Calls search on the landscape; keywords replace its arguments and fields of its options."""
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

    from sparsevit.search.halving import Halving
    from sparsevit.search.loop import search
    from sparsevit.search.options import SearchOptions
    from sparsevit.search.samplers import SpaceSampler

    fields = {field.name for field in dataclasses.fields(SearchOptions)}

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
        named = {name: value for name, value in arguments.items() if name in fields}
        # samplers, storages and the like that are objects go beside the options
        for name, value in [*named.items()]:
            if isinstance(value, BaseSampler | SpaceSampler | BaseStorage | Halving):
                del named[name]
        given = {name: value for name, value in arguments.items() if name not in named}
        return search(options=SearchOptions(**named), **given)

    return run
