"""What may change when a workdir is used again, and what each change does."""

import dataclasses
import errno
import json
import pathlib
import shutil

import numpy as np
import pytest

import launch
from arith_jax import results, run
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation import plots
from arith_jax.training import checkpoint, lock
from arith_jax.training.record import write_json
from arith_jax.training.workdir import check_workdir, default_workdir, local_path
from tests.helpers import assert_trees_close, changed
from tests.training.test_log import steps_in


@pytest.fixture(scope="module")
def small(smoke):
    return changed(smoke, train__steps=20, eval__grid_digits=2, eval__diagonal=(4,))


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("going_on") / "run"
    run.run(small, workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def read(path):
    return json.loads(path.read_text())


def weights(experiment, workdir):
    return checkpoint.evaluated_weights(experiment, workdir)[0]


def test_rhythm_and_evaluation_are_free(small, workdir):
    other = changed(
        small,
        train__log_every=5,
        train__checkpoint_minutes=1.0,
        train__keep_checkpoints=0,
        train__tensorboard=True,
        train__wandb="sums",
        train__skip_nonfinite=True,
        eval__grid_samples=7,
    )
    for mode in ("train", "train_and_eval", "eval"):
        assert check_workdir(workdir, other.to_dict(), mode) == []


@pytest.mark.parametrize("mode", ["eval", "train_and_eval"])
def test_another_evaluation_needs_a_name_and_overwrites_nothing(
    small, workdir, mode, finished
):
    other = changed(small, eval__grid_samples=3)
    before = {path: path.read_bytes() for path in workdir.glob("*.*")}
    with pytest.raises(
        ValueError,
        match=r"result.json is the result of another .*"
        r"eval.grid_samples \(there 4, here 3\); name this one: "
        r"--config.eval.name=NAME",
    ):
        run.run(other, workdir, mode=mode)
    run.run(changed(other, eval__name="few"), workdir, mode=mode)
    assert {path: path.read_bytes() for path in before} == before
    assert read(workdir / "result_few.json")["config"]["full"]["eval"]["name"] == "few"
    again = changed(other, eval__name="few", eval__grid_samples=2)
    with pytest.raises(ValueError, match=r"--config.eval.name=few_2"):
        run.run(again, workdir, mode=mode)


def test_a_finished_run_is_extended_on_purpose(small, workdir, capsys):
    longer = changed(small, train__steps=30)
    result = run.run(longer, workdir)
    said = capsys.readouterr().out
    assert "train.steps goes from 20 to 30: schedules follow the new budget" in said
    assert "resumed at step 20" in said
    assert result["steps"] == read(workdir / "result.json")["steps"] == 30
    assert steps_in(workdir) == [10, 20, 30]
    assert read(workdir / "config.json")["train"]["steps"] == 30
    with pytest.raises(ValueError, match=r"steps \(there 30, here 20\); choose"):
        run.run(small, workdir)


def test_minutes_can_be_extended_and_other_budgets_cannot(small, workdir):
    minutes = changed(small, train__steps=0, train__minutes=1.0)
    write_json(workdir / "config.json", minutes.to_dict())
    (note,) = check_workdir(
        workdir, changed(minutes, train__minutes=2.0).to_dict(), "train"
    )
    assert note.startswith("train.minutes goes from 1.0 to 2.0: schedules follow")
    with pytest.raises(ValueError, match=r"train.minutes .*train.steps"):
        check_workdir(workdir, small.to_dict(), "train")


@pytest.mark.slow
def test_an_evaluation_of_an_unfinished_run_does_not_finish_it(small, tmp_path):
    run.run(small, tmp_path, mode="train")
    longer = changed(small, train__steps=30)
    write_json(tmp_path / "config.json", longer.to_dict())
    assert run.run(longer, tmp_path, mode="eval")["steps"] == 20
    assert results.finished_content(tmp_path, longer) is None
    assert run.run(longer, tmp_path)["steps"] == 30


def test_a_workdir_without_a_checkpoint_is_taken_over(small, tmp_path, capsys):
    broken = changed(small, optim__learning_rate=1e30, optim__muon_learning_rate=1e30)
    with pytest.raises(FloatingPointError) as error:
        run.run(broken, tmp_path, mode="train")
    assert "abacus_add:smoke with optim.learning_rate=1e+30" in str(error.value)
    assert "there is no checkpoint: the same workdir takes another" in str(error.value)
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
    run.run(small, tmp_path, mode="train")
    assert "has no checkpoint: begun anew with this config" in capsys.readouterr().out
    assert steps_in(tmp_path) == [10, 20]
    with pytest.raises(ValueError, match=r"made with another config; differing: optim"):
        run.run(broken, tmp_path, mode="train")


def test_results_without_checkpoints_are_not_taken_over(small, workdir):
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(ValueError, match=r"differing: seed .*as --workdir=.*run_2, or"):
        run.run(dataclasses.replace(small, seed=5), workdir)


def test_training_begins_with_given_weights(small, workdir, tmp_path, capsys):
    other = dataclasses.replace(changed(small, train__init_from=str(workdir)), seed=9)
    still = changed(other, optim__learning_rate=0.0, optim__muon_learning_rate=0.0)
    run.run(still, tmp_path / "new", mode="train")
    assert f"begins with the weights of {workdir}" in capsys.readouterr().out
    # The moving average of equal weights is rounded.
    assert_trees_close(weights(still, tmp_path / "new"), weights(small, workdir), 1e-6)
    wide = changed(other, model__width=64)
    with pytest.raises(ValueError, match=r"train.init_from=.* has another model; use"):
        run.run(wide, tmp_path / "wide", mode="train")
    nowhere = changed(small, train__init_from=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"train.init_from=.*no valid config.json"):
        run.run(nowhere, tmp_path / "nowhere", mode="train")


def test_missing_pictures_of_a_finished_run_are_drawn(small, workdir, monkeypatch):
    for name in ("digits.png", "grid.npz"):
        (workdir / name).unlink()

    def cut_off(figure, path, **options):
        path.with_suffix(".tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(plots, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run.run(small, workdir)
    assert not (workdir / "digits.png").exists()
    run.run(small, workdir)
    assert (workdir / "digits.png").read_bytes()[1:4] == b"PNG"
    assert np.load(workdir / "grid.npz")["total"].sum() > 0
    assert not list(workdir.glob("*.tmp"))


def refuse(path):
    raise OSError(errno.EROFS, "Read-only file system", str(path))


def test_a_read_only_workdir_is_refused_or_evaluated(
    small, workdir, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(lock, "take", refuse)
    shown = run.run(small, workdir)
    assert shown["steps"] == 20
    with pytest.raises(OSError, match=r"^workdir .*new cannot be written \(Read-only"):
        run.run(small, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    capsys.readouterr()
    run.run(small, workdir, mode="eval")
    said = capsys.readouterr().out
    assert "exact match" in said
    assert said.splitlines()[-1] == (
        f"{workdir} cannot be written (Read-only file system): the result is not saved"
    )
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_a_result_that_cannot_be_written_is_printed(
    small, workdir, monkeypatch, capsys
):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run, "write_result", full)
    with pytest.raises(
        OSError,
        match=r"written \(No space left on device\); "
        r"free space .*saved at step 20 in",
    ):
        run.run(small, workdir, mode="eval")
    assert "exact match" in capsys.readouterr().out


def test_an_older_workdir_is_completed(small, workdir):
    config = read(workdir / "config.json")
    for key in ("keep_checkpoints", "skip_nonfinite", "init_from"):
        del config["train"][key]
    write_json(workdir / "config.json", config)
    assert check_workdir(workdir, small.to_dict(), "train_and_eval") == []


def test_a_damaged_config_is_named(small, workdir):
    (workdir / "config.json").write_text('{"name": "aba')
    with pytest.raises(ValueError, match=r"config.json is damaged .* restore it or"):
        run.run(small, workdir)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("configs/abacus_add.py", "configs/abacus_add.py:gpu"),
        ("configs/abacus_add.py:eval=reach", "configs/abacus_add.py:eval=reach,gpu"),
        ("configs/abacus_add.py:cpu", "configs/abacus_add.py:cpu"),
    ],
)
def test_the_preset_is_that_of_the_workdir(tmp_path, config, expected):
    write_json(tmp_path / "config.json", {"preset": "gpu"})
    rest = [f"--workdir={tmp_path}", "--mode=eval"]
    given = [f"--config={config}", *rest]
    assert launch.with_preset(given) == [f"--config={expected}", *rest]
    other = [f"--config={config}", f"--workdir={tmp_path / 'new'}"]
    assert launch.with_preset(other) == other
    assert launch.with_preset(given[:1]) == given[:1]


def test_another_preset_is_named(small, workdir):
    other = dataclasses.replace(changed(small, model__width=64), preset="cpu")
    with pytest.raises(ValueError, match=r"or the run's preset \(--config=FILE:sm"):
        check_workdir(workdir, other.to_dict(), "eval")


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({}, "runs/abacus_add"),
        ({"seed": 1}, "runs/abacus_add_s1"),
        ({"num_seeds": 8}, "runs/abacus_add_s0_to_s7"),
    ],
)
def test_default_folders_do_not_clash(smoke, changes, folder):
    experiment: Experiment = dataclasses.replace(smoke, **changes)
    assert default_workdir(experiment) == pathlib.Path(folder)


def test_paths_are_of_this_machine(smoke, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/x") == tmp_path / "x"
    assert local_path("a:b/c") == pathlib.Path("a:b/c")
    for path in ("gs://bucket/x", pathlib.Path("s3://bucket/x")):
        with pytest.raises(ValueError, match=r"bucket/x is not on a file system; all"):
            run.run(smoke, path)
