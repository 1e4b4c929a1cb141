"""The vocabulary of sparsity: knobs, configurations, their space, and their files."""

from sparsevit.sparsity.configuration import (
    Configuration,
    ConfigurationError,
    Knob,
    choices_from,
    default_choices,
)
from sparsevit.sparsity.files import read_configuration, write_configuration
from sparsevit.sparsity.space import Space

__all__ = [
    "Configuration",
    "ConfigurationError",
    "Knob",
    "Space",
    "choices_from",
    "default_choices",
    "read_configuration",
    "write_configuration",
]
