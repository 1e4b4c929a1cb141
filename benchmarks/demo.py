"""The demo from the beginning, its table kept with the machine it ran on.

python benchmarks/demo.py                      # writes benchmarks/results/demo.json
python benchmarks/demo.py --workspace runs/demo --output -
python benchmarks/demo.py --task segmentation  # writes benchmarks/results/demo_segmentation.json
python benchmarks/demo.py --data camvid.yaml   # the same on own data: .../results/demo_camvid.json
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from shared.record import account, write

from sparsevit.cli.console import to_plain
from sparsevit.phases.demo import CONFIGS, DETECTION, demo
from sparsevit.phases.own import make_config
from sparsevit.report.demo import demo_table
from sparsevit.report.reporter import ConsoleReporter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="kept; a temporary one where left out")
    parser.add_argument("--output", help="JSON file, or - for none")
    parser.add_argument("--task", default=DETECTION, choices=list(CONFIGS))
    parser.add_argument("--data", type=Path, help="own data, as `sparsevit demo --data` takes it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = arguments.workspace or temporary
        config = None
        if arguments.data is not None:
            config = make_config(arguments.data, workspace=workspace).config
        result = demo(
            config,
            task=arguments.task,
            workspace=workspace,
            reporter=ConsoleReporter(Console(stderr=True)),
        )
    Console().print(demo_table(result))
    figures = to_plain(result)
    # where they were on this machine says nothing to a reader
    for private in ("workspace", "picture", "predictions"):
        del figures[private]
    of = arguments.task if arguments.data is None else arguments.data.stem
    name = "demo" if of == DETECTION else f"demo_{of}"
    write(name, {**account(), **figures}, arguments.output)


if __name__ == "__main__":
    main()
