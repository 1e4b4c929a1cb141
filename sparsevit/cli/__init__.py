"""The command line: one file a command. Nothing here imports torch until a command runs."""

import os
import sys

from sparsevit import interruption

if sys.argv and os.path.basename(sys.argv[0]) in ("-m", "sparsevit"):
    # the program itself: Ctrl-C while it still imports is no traceback
    interruption.end_at_once()
