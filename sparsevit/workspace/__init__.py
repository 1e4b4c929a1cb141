"""What ran, with what, and what came of it: atomic, locked, versioned, resumable. No torch here."""

from sparsevit.interruption import Terminated
from sparsevit.workspace.digest import file_digest, inputs_digest
from sparsevit.workspace.lock import Holder
from sparsevit.workspace.record import FORMAT_VERSION, RECORD_NAME, RunRecord
from sparsevit.workspace.run import Run
from sparsevit.workspace.workspace import (
    DEFAULT_DIRECTORY,
    ENVIRONMENT_VARIABLE,
    Resolved,
    Workspace,
)

__all__ = [
    "DEFAULT_DIRECTORY",
    "ENVIRONMENT_VARIABLE",
    "FORMAT_VERSION",
    "RECORD_NAME",
    "Holder",
    "Resolved",
    "Run",
    "RunRecord",
    "Terminated",
    "Workspace",
    "file_digest",
    "inputs_digest",
]
