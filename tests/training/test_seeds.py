"""Several seeds in one program."""

import dataclasses

import jax
import numpy as np
import pytest

from arith_jax.training import loop
from arith_jax.training.losses import Metrics
from arith_jax.training.state import make_state, of_seed
from configs import abacus_add
from configs.paper import addition
from tests.helpers import assert_trees_close, experiment_of, slow_but
from tests.training.test_loop import run

# Six steps of each are a warm-up, full rates and a decay; the paper's model is looped,
# has AdamW, and its updates gather one micro-batch at first and two later.
EXPERIMENTS = {
    "flagship": (abacus_add, "smoke", {}),
    "paper": (addition, "arch=1x8,pos=abacus,smoke", {"optim.batch_size": 32}),
}


@pytest.fixture
def kept_programs(monkeypatch):
    """Single runs that differ by their seed share a program, compiled once."""
    programs, compile_step = {}, loop.compile_step

    def compiled(experiment, num_trained, state):
        key = dataclasses.replace(experiment, seed=0), num_trained
        if key not in programs:
            programs[key] = compile_step(experiment, num_trained, state)
        return programs[key]

    monkeypatch.setattr(loop, "compile_step", compiled)


@pytest.mark.usefixtures("kept_programs")
@pytest.mark.parametrize("name", slow_but(EXPERIMENTS, ("flagship",)))
def test_each_seed_equals_its_single_run(name):
    module, argument, changes = EXPERIMENTS[name]
    changes = changes | {"train.steps": 6, "train.log_every": 1, "seed": 3}
    single = experiment_of(module, argument, changes)
    state, metrics = run(dataclasses.replace(single, num_seeds=2))
    assert int(state.updates) == (6 if name == "flagship" else 4)
    finals = []
    for index, seed in enumerate((3, 4)):
        expected, expected_metrics = run(dataclasses.replace(single, seed=seed))
        final = of_seed(state.evaluated_params, index, 2)
        assert_trees_close(final, expected.evaluated_params, 1e-5)
        for several, one in zip(metrics, expected_metrics, strict=True):
            picked = [values[index] for values in jax.tree.leaves(several)]
            np.testing.assert_allclose(picked, jax.tree.leaves(one), rtol=1e-4)
        finals.append(final)
    difference = jax.tree.map(lambda x, y: np.max(np.abs(x - y)), *finals)
    assert max(jax.tree.leaves(difference)) > 1e-2


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([1.0, np.nan, 2.0], r"^loss of seed 4 is nan at step 1: lower"),
        ([np.inf, 1.0, np.nan], r"^loss of seed 3, 5 is inf at step 1: lower"),
    ],
)
def test_loss_that_is_not_finite_names_the_seeds(smoke, monkeypatch, losses, message):
    metrics = Metrics(*np.array([losses, [0.0] * 3, [0.0] * 3], np.float32))
    step = lambda state, inputs: (state, metrics)
    monkeypatch.setattr(loop, "compile_step", lambda *args: step)
    state = make_state(smoke)
    with pytest.raises(FloatingPointError, match=message):
        run(dataclasses.replace(smoke, seed=3, num_seeds=3), state=state)
