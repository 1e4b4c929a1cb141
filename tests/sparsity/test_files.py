"""Configuration files: what is written reads back; what is wrong says where and what to do."""

import json
import os
import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.errors import UserError
from sparsevit.sparsity import (
    Configuration,
    ConfigurationError,
    Space,
    read_configuration,
    write_configuration,
)

SPACE = Space.staged((2, 2, 6, 2), prefix="backbone.stages")
CFG2 = [[0.6, 0.6], [0, 0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0, 0]]


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
@given(seed=st.integers())
def test_a_configuration_reads_back_as_it_was_written(tmp_path_factory, suffix, seed):
    path = tmp_path_factory.getbasetemp() / f"round_trip{suffix}"
    configuration = SPACE.sample(random.Random(seed))
    write_configuration(path, configuration, {"pruning_ratios": SPACE.to_nested(configuration)})
    read = read_configuration(path, SPACE)
    assert read == configuration
    assert tuple(read) == SPACE.names
    assert read_configuration(path) == configuration


def test_what_is_known_about_it_is_kept_beside_it(tmp_path):
    path = write_configuration(tmp_path / "new" / "best.yaml", SPACE.uniform(0.3), {"score": 33.5})
    assert yaml.safe_load(path.read_text())["score"] == 33.5
    path = write_configuration(tmp_path / "best.json", SPACE.uniform(0.3), {"score": 33.5})
    assert json.loads(path.read_text())["score"] == 33.5


def test_yaml_has_a_line_for_every_knob_and_every_list(tmp_path):
    configuration = SPACE.from_nested(CFG2)
    meta = {"pruning_ratios": SPACE.to_nested(configuration)}
    text = write_configuration(tmp_path / "a.yaml", configuration, meta).read_text()
    assert "  backbone.stages.2_1: 0.2\n" in text
    assert "pruning_ratios: [[0.6, 0.6], [0.0, 0.0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5]," in text


@pytest.mark.parametrize("document", [{"pruning_ratios": CFG2}, CFG2])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_the_papers_nested_lists_are_read_with_a_space(tmp_path, document, suffix):
    path = tmp_path / f"cfg2{suffix}"
    path.write_text(json.dumps(document))
    assert read_configuration(path, SPACE) == SPACE.from_nested(CFG2)
    with pytest.raises(ConfigurationError, match="without a model they have no names"):
        read_configuration(path)


def test_two_forms_in_one_file_must_agree(tmp_path):
    path = write_configuration(tmp_path / "a.yaml", SPACE.dense(), {"pruning_ratios": CFG2})
    with pytest.raises(ConfigurationError, match="differ"):
        read_configuration(path, SPACE)


def test_an_error_names_the_file_and_the_knob(tmp_path):
    path = write_configuration(tmp_path / "a.yaml", SPACE.uniform(0.3))
    path.write_text(path.read_text().replace("2_2: 0.3", "2_2: 1.2"))
    with pytest.raises(ConfigurationError, match=r"a\.yaml: .*'backbone\.stages\.2_2' is 1\.2"):
        read_configuration(path, SPACE)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "sparsity: [", "not valid YAML"),
        ("a.json", "{", "not valid JSON"),
        ("a.yaml", "", "holds no configuration"),
        ("a.yaml", "score: 3", "neither 'sparsity' nor 'pruning_ratios'"),
        ("a.yaml", "sparsity: 0.3", "does not map knobs"),
        ("a.yaml", "sparsity: !!python/object/apply:os.getpid []", "not valid YAML"),
        ("a.txt", "sparsity: {}", "not have the suffix of a configuration file"),
    ],
)
def test_a_file_that_is_none_says_what_one_looks_like(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_configuration(tmp_path / name, SPACE)
    assert caught.value.remedy


def test_files_that_cannot_be_read_are_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        read_configuration(tmp_path / "missing.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_configuration(tmp_path / "folder.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_configuration(tmp_path / "binary.yaml")


def test_a_path_that_cannot_be_written_is_a_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_configuration(tmp_path / "file" / "best.yaml", SPACE.dense())
    with pytest.raises(UserError, match="not have the suffix"):
        write_configuration(tmp_path / "best.txt", SPACE.dense())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_configuration(tmp_path / "best.yaml", SPACE.uniform(0.3))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_configuration(path, SPACE.uniform(0.5))
    assert read_configuration(path) == Configuration(SPACE.uniform(0.3))
    assert list(tmp_path.iterdir()) == [path]
