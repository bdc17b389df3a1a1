"""What commands make of their command lines."""

import pathlib
import re

import pytest

import launch
from arith_jax import cli
from arith_jax.checks import MAX_MESSAGE

CONFIG = "--config=configs/abacus_add.py:smoke"


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(pathlib.Path(launch.__file__).parent)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("typo=1", "--config.typo is unknown; did you mean 'execution.dtype'? allo"),
        (
            "run.x=1",
            "--config.run.x is unknown; allowed: data..., deterministic, eval...",
        ),
        (
            "optim.total_steps=60",
            "--config.optim.total_steps is unknown; did you mean 'train.steps'? "
            "allowed: train.steps, ",
        ),
        ("optim=1", "--config.optim is a section; allowed: optim.batch_size, "),
        ("model.mcleish=1", "--config.model.mcleish is a section; allowed: "),
        ("seed=1.5", "--config.seed='1.5': must be of type int; the default is 0"),
        ("seed=", "--config.seed='': must be of type int"),
        ("seed=\uff11", "--config.seed='\uff11': must be of type int"),
        ("seed=" + "9" * 5000, "--config.seed='99"),
        ("seed=2147483648", "seed=2147483648: must be from 0 to 2147483647"),
        ("optim.beta1=nan", "optim.beta1=nan: must be a number"),
        ("optim.learning_rate=inf", "optim.learning_rate=inf: must be a number"),
        ("optim.learning_rate=-1", "optim.learning_rate=-1.0: must be at least 0.0"),
        ("optim.batch_size=0", "optim.batch_size=0: must be at least 1"),
        ("train.log_every=0", "train.log_every=0: must be at least 1"),
        ("model.abacus_window=-1", "model.abacus_window=-1: must be at least 0"),
        ("eval.diagonal=(1,", "--config.eval.diagonal='(1,': must be of type list"),
        ("eval.diagonal=(0,)", "eval.diagonal=(0,): must be at least 1"),
        ("eval.diagonal=('a',)", "eval.diagonal="),
        ("train.tensorboard=maybe", "must be of type bool; the default is False"),
        ("name=../x", "name='../x': must be at most 200 printable characters"),
    ],
)
def test_bad_keys_and_values_are_named_in_one_line(word, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        cli.experiment_of(launch.read_flags([CONFIG, f"--config.{word}"]))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= MAX_MESSAGE


def test_good_keys_reach_the_experiment():
    words = ["seed=3", "eval.diagonal=(5, 6)", "optim.beta1=0", "execution.unroll"]
    flags = launch.read_flags([CONFIG, *(f"--config.{word}" for word in words)])
    experiment, overrides = cli.experiment_of(flags)
    assert (experiment.seed, experiment.eval.diagonal) == (3, (5, 6))
    assert experiment.execution.unroll
    assert overrides.keys() == {word.partition("=")[0] for word in words}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF\0\0", "SyntaxError: source code string cannot contain null bytes"),
        (b"a = [", "SyntaxError: '[' was never closed"),
        (b"a = 1", "has no attribute 'get_config'"),
        (b"def get_config(): return 1 / 0", "ZeroDivisionError: division by zero"),
        (b"def get_config(): return None", "must have a value other than None"),
        (b"def get_config(): return 3", "config=3: must be a section of keys"),
        (b"def get_config(): raise ValueError('the\\\\nkey')", "the"),
    ],
)
def test_files_that_are_no_configs_are_named(content, message, tmp_path):
    path = tmp_path / "made.py"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        cli.experiment_of(launch.read_flags([f"--config={path}"]))


def test_paths_have_no_schemes_and_know_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.local_path("workdir", "~/x") == tmp_path / "x"
    for text in ("gs://b/x", "", "a\0b"):
        with pytest.raises(ValueError, match=r"--workdir=.* must be a path of this"):
            cli.local_path("workdir", text)
    with pytest.raises(ValueError, match="--sweep='s3://x': must be a path"):
        launch.main(["--sweep=s3://x"])
