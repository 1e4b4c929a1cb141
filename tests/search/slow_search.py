"""A search over a made-up landscape; run as a script, one that is slow enough to be killed.

    python slow_search.py FOLDER [STORAGE [WORKER]]

works on the study in STORAGE, else FOLDER/study.db, and writes into FOLDER the log, and ``calls``
(``calls-WORKER``), a line as each latency and score is asked for and as each was given. While there
is a file ``hold`` in FOLDER, no score is given after the first ``HELD_AFTER``.
"""

import sys
import time
from pathlib import Path

from sparsevit.search.loop import search
from sparsevit.search.options import SearchOptions
from sparsevit.search.samplers import EvolutionSampler
from sparsevit.sparsity import Space

SPACE = Space.staged((2, 2, 6, 2), prefix="backbone.stages")
# What a knob at 1 would save of DENSE_MS, and what it costs in score: separable, and unlike.
SAVED_MS = dict(zip(SPACE.names, (14.0, 10.0, 8.0, 7.0, 6.0, 5.0), strict=True))
COST = dict(zip(SPACE.names, (1.0, 6.0, 2.0, 3.0, 1.5, 9.0), strict=True))
DENSE_MS = 60.0
MIN_MS, MAX_MS = 37.0, 42.0
TRIALS = 16
HELD_AFTER = 5


def latency(configuration):
    return DENSE_MS - sum(SAVED_MS[name] * ratio for name, ratio in configuration.items())


def score(configuration):
    return 40.0 - sum(COST[name] * ratio**2 for name, ratio in configuration.items())


def evolution(seed=0):
    """Small enough that a short search has several generations."""
    return EvolutionSampler(SPACE, seed, population=6, parents=3)


def main(folder, storage=None, worker=None):
    name = "calls" if worker is None else f"calls-{worker}"
    given = 0
    with (folder / name).open("a", buffering=1) as calls:

        def noted(what, function, seconds):
            def call(configuration):
                nonlocal given
                calls.write(f"asked {what} {configuration}\n")
                time.sleep(seconds)
                while what == "score" and given >= HELD_AFTER and (folder / "hold").exists():
                    time.sleep(0.01)
                given += what == "score"
                value = function(configuration)
                calls.write(f"given {what} {configuration}\n")
                return value

            return call

        search(
            SPACE,
            noted("latency", latency, 0.001),
            noted("score", score, 0.02),
            SearchOptions(
                min_ms=MIN_MS,
                max_ms=MAX_MS,
                trials=TRIALS,
                storage=storage or folder / "study.db",
                study="search",
            ),
            sampler=evolution(),
            log_path=folder / "log.txt" if worker is None else None,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
