"""What was evaluated is found again by what it is of, and by nothing else."""

import multiprocessing

import pytest

from sparsevit.errors import UserError
from sparsevit.workspace.evaluations import Evaluations

KEY = {"checkpoint": "sha256:a", "configuration": {"stages.0": 0.1}, "images": 6}


def test_metrics_are_found_again(tmp_path):
    Evaluations(tmp_path).write(KEY, {"bbox_mAP": 0.25})
    assert Evaluations(tmp_path).read(KEY) == {"bbox_mAP": 0.25}


@pytest.mark.parametrize(
    "other",
    [
        {"checkpoint": "sha256:b"},
        {"configuration": {"stages.0": 0.2}},
        {"images": 5},
        {"share": 3},
    ],
)
def test_of_anything_else_nothing_is_found(tmp_path, other):
    Evaluations(tmp_path).write(KEY, {"bbox_mAP": 0.25})
    assert Evaluations(tmp_path).read({**KEY, **other}) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', "\x00\xff", 10**5 * "["])
def test_a_file_that_cannot_be_read_counts_as_missing(tmp_path, content):
    kept = Evaluations(tmp_path)
    kept.write(KEY, {"bbox_mAP": 0.25})
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(content.encode("latin-1"))
    assert kept.read(KEY) is None
    kept.write(KEY, {"bbox_mAP": 0.5})
    assert kept.read(KEY) == {"bbox_mAP": 0.5}


def write_many(folder, number):
    kept = Evaluations(folder)
    for n in range(40):
        kept.write({"n": n}, {"value": n})
        assert kept.read({"n": (n * number) % (n + 1)})


def test_several_processes_write_the_same_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(tmp_path, n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    kept = Evaluations(tmp_path)
    assert all(kept.read({"n": n}) == {"value": n} for n in range(40))
    assert not [*tmp_path.rglob("*.tmp")]


def test_what_a_killed_writer_left_goes_away(tmp_path):
    kept = Evaluations(tmp_path)
    kept.write(KEY, {"bbox_mAP": 0.25})
    (file,) = tmp_path.rglob("*.json")
    left = file.with_name(f".{file.name}.1-2.tmp")
    left.write_text("half")
    kept.remove_leftovers()
    assert not left.exists()
    assert kept.read(KEY)


def test_where_nothing_can_be_written_it_says_so(tmp_path):
    (tmp_path / "evaluations").write_text("a file of the user's")
    with pytest.raises(UserError):
        Evaluations(tmp_path).write(KEY, {})
