"""Libraries are heard in files, and on the terminal no more than before."""

from __future__ import annotations

import logging
import warnings

import pytest
from mmengine.logging import MMLogger

from sparsevit.engine.quiet import mute_console, quiet_libraries


def test_prints_warnings_and_log_lines_are_not_heard(capfd):
    logger = MMLogger.get_current_instance()
    with quiet_libraries():
        print("loading annotations into memory...")
        warnings.warn("the sky falls", stacklevel=1)
        logger.warning("the sky falls")
    heard = capfd.readouterr()
    assert heard.out == heard.err == ""


def test_afterwards_prints_and_warnings_are_heard_again(capsys):
    with quiet_libraries():
        pass
    print("a result")
    assert capsys.readouterr().out == "a result\n"
    with pytest.warns(UserWarning, match="falls"):
        warnings.warn("the sky falls", UserWarning, stacklevel=1)


def test_an_error_inside_comes_out(capsys):
    with pytest.raises(ValueError, match="inside"), quiet_libraries():
        raise ValueError("inside")
    print("a result")
    assert capsys.readouterr().out == "a result\n"


def test_files_of_a_logger_stay(tmp_path, capfd):
    logger = logging.Logger("of a test")
    logger.addHandler(logging.StreamHandler())
    logger.addHandler(logging.FileHandler(tmp_path / "log"))
    mute_console(logger)
    logger.warning("for the file")
    assert (tmp_path / "log").read_text() == "for the file\n"
    bare = logging.getLogger("of a test, bare")
    mute_console(bare)
    bare.warning("for nobody")
    assert capfd.readouterr().err == ""
