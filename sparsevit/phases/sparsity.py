"""Which configuration a phase works at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from sparsevit.engine.config import set_sparsity
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.methods import methods_in
from sparsevit.phases.inputs import Inputs, PathLike
from sparsevit.report.ratios import short_ratios
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity import Configuration, read_configuration
from sparsevit.sparsity.handle import SparsityHandle


@dataclass(frozen=True)
class Chosen:
    """A configuration and where it came from.

    Attributes:
        configuration: a ratio for every knob.
        nested: the same in the form that the model's method has in configs, if it has one.
        source: for people.
    """

    configuration: Configuration
    nested: list[list[float]] | None
    source: str

    @property
    def beside(self) -> dict[str, Any]:
        """What a file says beside ``sparsity: {knob: ratio}``, for readers of the nested form."""
        return {} if self.nested is None else {"pruning_ratios": self.nested}

    def in_config(self, cfg: Config) -> Config:
        """A copy of a config with this configuration; see :func:`set_sparsity`."""
        return set_sparsity(cfg, self.configuration, self.nested)


def choose_sparsity(
    inputs: Inputs,
    file: PathLike | None,
    best: Path | None = None,
    *,
    dense: bool = False,
    reporter: Reporter = SILENT,
) -> Chosen:
    """The configuration to work at: of the file, else of the config, else the best found.

    Args:
        inputs: of the phase; its config may have a configuration.
        file: YAML or JSON; None where none is given.
        best: what a search found, if that shall count.
        dense: ratio 0 everywhere, whatever there is.
        reporter: is told what was taken.

    Raises:
        UserError: the file is wrong, or both it and ``dense`` are given.
    """
    if dense and file is not None:
        raise UserError(
            "A sparsity file and dense cannot be used together.", "Give only one of them."
        )
    model = build_model(inputs.cfg)[0]
    handle, methods = SparsityHandle(model, required=file is not None), methods_in(model)
    space, configured = handle.space, handle.get()
    if dense:
        chosen, source = space.dense(), "dense"
    elif file is not None:
        chosen, source = read_configuration(file, space), str(file)
    elif best is not None and space.names and not any(configured.values()):
        chosen, source = read_configuration(best, space), f"the best found, {best}"
    else:
        chosen, source = configured, f"the config, {inputs.config_source}"
    if space.names:
        reporter.note(f"sparsity: {short_ratios(chosen)} ({source})")
    nested = methods[0].nested(chosen) if len(methods) == 1 else None
    return Chosen(chosen, nested, source)
