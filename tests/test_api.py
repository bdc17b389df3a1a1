"""The public names: their examples run, and other people's code can use them."""

import doctest
import inspect
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import arith_jax

PUBLIC = [getattr(arith_jax, name) for name in arith_jax.__all__]
IDS = jnp.array([arith_jax.Vocab("0123456789+-x= ").encode("89+021=")])


def examples_of(thing):
    """Docstring examples of a public name and of its own methods."""
    finder = doctest.DocTestFinder(recurse=True, exclude_empty=True)
    names = vars(arith_jax) | {"jax": jax, "jnp": jnp, "ids": IDS}
    names["vocab"] = sys.modules["arith_jax.vocab"]
    tests = finder.find(thing, thing.__name__, globs=names)
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_examples_of_public_names_run(thing):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in examples_of(thing):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def is_used(thing):
    """Whether a name is a function or a module, which somebody calls."""
    is_module = inspect.isclass(thing) and issubclass(thing, nn.Module)
    return inspect.isfunction(thing) or is_module


def test_every_public_function_and_module_is_shown_in_an_example():
    shown = "".join(
        example.source
        for thing in PUBLIC
        for test in examples_of(thing)
        for example in test.examples
    )
    for thing in PUBLIC:
        if is_used(thing):
            assert f"{thing.__name__}(" in shown, thing.__name__


def test_public_names_are_documented():
    for thing in PUBLIC:
        assert len(inspect.getdoc(thing).splitlines()) >= 1
        if inspect.isfunction(thing):
            text = inspect.getdoc(thing)
            names = list(inspect.signature(thing).parameters)
            assert "Args:" in text or len(names) < 2, thing.__name__


X64 = """
from configs import abacus_add
from arith_jax.config.experiment import Experiment
from arith_jax.training.loop import train
from arith_jax.training.state import make_state
smoke = Experiment.from_dict(abacus_add.get_config("smoke"))
for progress in train(smoke, make_state(smoke)):
    print(progress.metrics.loss)
"""


@pytest.mark.slow
def test_users_of_double_precision_can_train():
    env = os.environ | {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", X64]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses = [float(line) for line in done.stdout.split()]
    assert losses[-1] < 0.9 * losses[0]
