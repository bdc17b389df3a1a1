"""Damaged, cut and missing files: the newest that is whole is used, nothing is lost."""

import errno
import json
import shutil

import jax
import pytest

from arith_jax.training import checkpoint, fit, saved
from arith_jax.training.checksums import damage
from arith_jax.training.loop import Clock
from arith_jax.training.metrics_file import read_records
from arith_jax.training.state import make_state
from tests.helpers import assert_trees_equal, changed
from tests.training.test_log import log_steps, steps_in
from tests.training.test_loop import run


@pytest.fixture(scope="module")
def trained(smoke, tmp_path_factory):
    """A workdir with checkpoints of steps 3 and 6, and their states."""
    workdir = tmp_path_factory.mktemp("trained")
    experiment, states = changed(smoke, train__steps=6), {}
    state, _ = run(experiment, steps=3)
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
        for step in (3, 6):
            states[step] = jax.device_get(state)
            checkpoints.save(step, state, Clock(float(step)))
            state, _ = run(experiment, state=state)
    states[6] = jax.device_get(state)
    return workdir, states


@pytest.fixture
def workdir(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture(scope="module")
def fresh(smoke):
    return make_state(smoke)


def restore(workdir, like):
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore(like)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def largest(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("harm", [flip_a_bit, cut, lambda path: path.unlink()])
def test_the_newest_whole_checkpoint_is_used(workdir, trained, fresh, harm, capfd):
    folder = workdir / "checkpoints"
    harm(largest(folder / "6"))
    weights, clock, step = checkpoint.restore_weights(
        workdir, jax.eval_shape(lambda: fresh.params), use_ema=True
    )
    assert (clock.train_seconds, step) == (3.0, 3)
    assert_trees_equal(weights, trained[1][3].ema)
    # An evaluation changes nothing.
    assert {path.name for path in folder.iterdir()} == {"3", "6"}
    capfd.readouterr()
    state, clock = restore(workdir, fresh)
    assert clock.train_seconds == 3.0
    assert_trees_equal(state, trained[1][3])
    assert {path.name for path in folder.iterdir()} == {"3", "damaged_6"}
    captured = capfd.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"warning: checkpoint {folder}/6 cannot be read (")
    assert line.endswith(f"; using {folder}/3 instead")
    assert restore(workdir, fresh)[1].train_seconds == 3.0
    assert not capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("harm", [flip_a_bit, cut, lambda path: path.unlink()])
def test_no_file_may_be_harmed_unnoticed(trained, tmp_path, fresh, harm):
    workdir, states = trained
    names = [p.relative_to(workdir) for p in (workdir / "checkpoints/6").rglob("*")]
    for index, name in enumerate(names):
        if not (workdir / name).is_file():
            continue
        copy = shutil.copytree(workdir, tmp_path / str(index))
        harm(copy / name)
        state, clock = restore(copy, fresh)
        assert_trees_equal(state, states[int(clock.train_seconds)])
        assert (copy / "checkpoints/3").exists(), name
        kept = {path.name for path in (copy / "checkpoints").iterdir()}
        assert kept & {"6", "damaged_6"}, name


def test_none_readable_is_one_line_and_nothing_is_changed(workdir, fresh, capfd):
    for step in (3, 6):
        cut(largest(workdir / "checkpoints" / str(step)))
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    with pytest.raises(
        ValueError,
        match=r"checkpoint .*/6 cannot be read .*is damaged.*"
        r" nor can 1 older; nothing was changed",
    ):
        restore(workdir, fresh)
    assert before == {
        p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()
    }
    assert not capfd.readouterr().err


def test_checkpoints_of_an_older_version_have_no_checksums(workdir, trained, fresh):
    (workdir / "checkpoints/6/checksums.json").unlink()
    assert damage(workdir / "checkpoints/6") == ""
    state, _ = restore(workdir, fresh)
    assert_trees_equal(state, trained[1][6])


def test_a_moved_or_linked_workdir_works(workdir, trained, fresh, tmp_path):
    moved = workdir.rename(tmp_path / "moved")
    link = tmp_path / "link"
    link.symlink_to(moved)
    for path in (moved, link):
        state, _ = restore(path, fresh)
        assert_trees_equal(state, trained[1][6])


def test_what_cut_saves_have_left_is_removed(workdir, fresh):
    folder = workdir / "checkpoints"
    shutil.copytree(folder / "6", folder / "9.orbax-checkpoint-tmp")
    (folder / "9.orbax-checkpoint-tmp" / "commit_success.txt").unlink()
    _, clock = restore(workdir, fresh)
    assert clock.train_seconds == 6.0
    assert {path.name for path in folder.iterdir()} == {"3", "6"}


@pytest.mark.parametrize(("keep", "kept"), [(2, {"8", "9"}), (0, {"3", "6", "8", "9"})])
def test_as_many_checkpoints_are_kept_as_asked(workdir, fresh, keep, kept):
    folder = workdir / "checkpoints"
    with checkpoint.open_checkpoints(folder, keep) as checkpoints:
        for step in (8, 9):
            checkpoints.save(step, fresh, Clock())
    assert {path.name for path in folder.iterdir()} == kept


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("data loss: No space left on device"),
    ],
)
def test_a_full_disk_is_one_line(workdir, fresh, monkeypatch, error):
    def full(path):
        raise error

    monkeypatch.setattr(checkpoint, "write_checksums", full)
    with (
        pytest.raises(
            OSError,
            match=r"a checkpoint cannot be written \(No space left "
            r"on device\); free space .* same command goes on \(saved at "
            r"step 6 in",
        ),
        checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints,
    ):
        checkpoints.save(9, fresh, Clock())
    monkeypatch.undo()
    assert restore(workdir, fresh)[1].train_seconds == 6.0
    assert saved.steps_in(workdir / "checkpoints") == [6, 3]


@pytest.mark.parametrize(
    "end", ['{"step": 8, "loss": 0.', "\n", "\x00\x00", "[]\n", "12\n"]
)
def test_damaged_lines_of_the_log_are_dropped_with_a_warning(tmp_path, end, capfd):
    log_steps(tmp_path, 0, 6)
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write(end)
    assert read_records(path)[1] == 1
    log_steps(tmp_path, 6, 10)
    assert steps_in(tmp_path) == [2, 4, 6, 8, 10]
    assert capfd.readouterr().err == f"warning: {path}: dropped 1 damaged line\n"


def test_damaged_lines_in_the_middle_are_counted(tmp_path, capfd):
    log_steps(tmp_path, 0, 8)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[1:3] = ["", lines[2][:9]]
    path.write_text("\n".join(lines) + "\n")
    log_steps(tmp_path, 8, 10)
    assert steps_in(tmp_path) == [2, 8, 10]
    assert capfd.readouterr().err == f"warning: {path}: dropped 2 damaged lines\n"


def test_a_log_that_is_cut_off_while_it_is_opened_keeps_its_lines(
    tmp_path, monkeypatch
):
    log_steps(tmp_path, 0, 6)
    monkeypatch.setattr(json, "dumps", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        log_steps(tmp_path, 6, 8)
    assert steps_in(tmp_path) == [2, 4, 6]


def test_evaluated_weights_name_what_is_missing(smoke, tmp_path):
    assert fit.newest_path(tmp_path) is None
    with pytest.raises(ValueError, match=r"no checkpoint in .*name a workdir"):
        checkpoint.evaluated_weights(smoke, tmp_path)
