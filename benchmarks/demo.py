"""The demo from the beginning, its table kept with the machine it ran on.

python benchmarks/demo.py                      # writes benchmarks/results/demo.json
python benchmarks/demo.py --workspace runs/demo --output -
python benchmarks/demo.py --task segmentation  # writes benchmarks/results/demo_segmentation.json
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from shared.record import account, write

from sparsevit.cli.console import to_plain
from sparsevit.phases.demo import CONFIGS, DETECTION, demo
from sparsevit.report.demo import demo_table
from sparsevit.report.reporter import ConsoleReporter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="kept; a temporary one where left out")
    parser.add_argument("--output", help="JSON file, or - for none")
    parser.add_argument("--task", default=DETECTION, choices=list(CONFIGS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = demo(
            task=arguments.task,
            workspace=arguments.workspace or temporary,
            reporter=ConsoleReporter(Console(stderr=True)),
        )
    Console().print(demo_table(result))
    figures = to_plain(result)
    # where they were on this machine says nothing to a reader
    for private in ("workspace", "picture"):
        del figures[private]
    name = "demo" if arguments.task == DETECTION else f"demo_{arguments.task}"
    write(name, {**account(), **figures}, arguments.output)


if __name__ == "__main__":
    main()
