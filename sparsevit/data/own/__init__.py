"""A user's own data: what is in a folder, as a description from which a task makes a config."""

from sparsevit.data.own.description import Choice, OwnData, Split
from sparsevit.data.own.recognise import recognise

__all__ = ["Choice", "OwnData", "Split", "recognise"]
