import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.training import loop
from arith_jax.training.loop import Clock, train
from arith_jax.training.state import make_state
from arith_jax.training.step import sample_depth
from tests.helpers import assert_trees_equal, changed


def run(experiment, steps=None, state=None):
    """The last state and all metrics; stops after `steps` of the budget."""
    state, metrics = state or make_state(experiment), []
    for progress in train(experiment, state):
        metrics.append(progress.metrics)
        state = progress.state
        if progress.step == steps:
            break
    return state, metrics


@pytest.fixture(scope="module")
def unbroken(smoke):
    return run(changed(smoke, train__steps=6))


def test_same_seed_gives_identical_parameters_and_another_does_not(smoke, unbroken):
    again, _ = run(changed(smoke, train__steps=6))
    assert_trees_equal(unbroken[0], again)
    reseeded = dataclasses.replace(changed(smoke, train__steps=6), seed=1)
    other, _ = run(reseeded)
    difference = other.params["token"]["embedding"] - again.params["token"]["embedding"]
    assert jnp.max(jnp.abs(difference)) > 1e-2


@pytest.mark.slow
def test_loss_falls(smoke):
    _, metrics = run(changed(smoke, train__steps=120, data__max_digits=1))
    first = float(metrics[0].loss)
    last = np.mean([float(m.loss) for m in metrics[-5:]])
    assert first > 2.5
    assert last < first / 5


def test_one_compilation_for_each_k(smoke, monkeypatch):
    experiment = changed(
        smoke,
        train__steps=12,
        model__num_recurrences=4,
        model__num_layers=1,
        model__injection="recurrence",
        model__initial_state="noise",
        loss__max_backprop=2,
    )
    compiled, compile_step = [], loop.compile_step

    def counted(experiment, num_trained, state):
        compiled.append(num_trained)
        return compile_step(experiment, num_trained, state)

    monkeypatch.setattr(loop, "compile_step", counted)
    run(experiment)
    depths = [sample_depth(experiment, step) for step in range(12)]
    assert len({depth.num_frozen for depth in depths}) > 2
    assert sorted(compiled) == [1, 2]


def test_budget_in_minutes_ends_by_the_clock(smoke):
    experiment = changed(smoke, train__steps=0, train__minutes=0.01)
    progress = list(train(experiment, make_state(experiment)))
    assert progress[-1].clock.train_seconds >= 0.01 * 60
    assert all(earlier.fraction < 1 for earlier in progress[:-1])
    spent = Clock(train_seconds=0.6)
    assert not list(train(experiment, make_state(experiment), spent))


def test_loss_that_is_not_finite_stops_with_the_step(smoke):
    experiment = changed(smoke, train__steps=5)
    state = make_state(experiment)
    broken = jax.tree.map(lambda x: x * jnp.nan, state.params)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 1: lower"):
        run(experiment, state=state.replace(params=broken))


@pytest.fixture
def read_steps(monkeypatch):
    """Steps whose metrics have been read."""
    steps, read_metrics = [], loop.read_metrics

    def noted(metrics, step, seeds):
        steps.append(step)
        return read_metrics(metrics, step, seeds)

    monkeypatch.setattr(loop, "read_metrics", noted)
    return steps


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1e3, [1, 3, 6]), (0.0, [1, 2, 3, 4, 6])],
)
def test_metrics_are_read_at_times_and_at_the_end(
    smoke, unbroken, read_steps, monkeypatch, seconds, expected
):
    monkeypatch.setattr(loop, "UNREAD_SECONDS", seconds)
    state, metrics = run(changed(smoke, train__steps=6, train__log_every=4))
    assert read_steps == expected
    assert len(metrics) == 6
    assert metrics[-1] == unbroken[1][-1]
    assert_trees_equal(unbroken[0], state)


def test_no_more_than_one_long_step_is_queued(smoke, read_steps, monkeypatch):
    compile_step = loop.compile_step

    def long(*args):
        program = compile_step(*args)
        return lambda *args: time.sleep(2 * loop.UNREAD_SECONDS) or program(*args)

    monkeypatch.setattr(loop, "compile_step", long)
    run(changed(smoke, train__steps=5, train__log_every=100))
    assert read_steps == [1, 2, 3, 5]


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"minutes": 1.0}, r"train.steps=30 and train.minutes=1.0: exactly"),
        ("train", {"steps": 0}, r"train.steps=0 and train.minutes=0.0: exactly one"),
        ("train", {"log_every": 0}, r"train.log_every=0: must be at least 1"),
        ("loss", {"alpha": 1.5}, r"loss.alpha=1.5: must be between 0 and 1"),
        ("loss", {"reduction": "sum"}, r"loss.reduction='sum' is unknown; allowed"),
        ("loss", {"max_backprop": 0}, r"loss.max_backprop=0: must be at least 1"),
    ],
)
def test_bad_settings_are_refused(smoke, section, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(getattr(smoke, section), **changes)
