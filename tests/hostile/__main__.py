"""The campaign: ``python tests/hostile --help``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [p for p in sys.path if p and str(Path(p).resolve()) != here]
    # behind everything: a folder of tests must not stand in for an installed module
    sys.path.append(str(Path(here).parent))
    from hostile.campaign import main

    sys.exit(main())
