"""Search for the best configuration within a latency interval, on an Optuna study."""

from sparsevit.search.halving import Halving
from sparsevit.search.log import log_name, log_text, write_log
from sparsevit.search.loop import search
from sparsevit.search.results import Progress, SearchResult, write_best
from sparsevit.search.samplers import (
    SAMPLERS,
    EvolutionSampler,
    RandomSampler,
    SpaceSampler,
    make_sampler,
)
from sparsevit.search.seen import Seen
from sparsevit.search.study import open_study
from sparsevit.search.trial import Trial

__all__ = [
    "SAMPLERS",
    "EvolutionSampler",
    "Halving",
    "Progress",
    "RandomSampler",
    "SearchResult",
    "Seen",
    "SpaceSampler",
    "Trial",
    "log_name",
    "log_text",
    "make_sampler",
    "open_study",
    "search",
    "write_best",
    "write_log",
]
