import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import checkpoint, data, losses, train
from arith_jax.train import Clock


def configs_of(experiment, **changes):
    sections = {name: {} for name in ("model", "data", "optim", "train")}
    for key, value in changes.items():
        section, name = key.split("__")
        sections[section][name] = value
    return tuple(
        dataclasses.replace(getattr(experiment, name), **changed)
        for name, changed in sections.items()
    )


def run(configs, seed=0, steps=None, state=None):
    """The states' last and all metrics; stops after `steps` of the budget."""
    state = state or train.make_state(configs[0], configs[2], seed)
    metrics = []
    for progress in train.train(configs, state, seed, Clock()):
        metrics.append(progress.metrics)
        state = progress.state
        if progress.step == steps:
            break
    return state, metrics


def assert_equal_trees(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def unbroken(smoke):
    return run(configs_of(smoke, train__steps=6))


def test_same_seed_gives_identical_parameters_and_another_does_not(smoke, unbroken):
    again, _ = run(configs_of(smoke, train__steps=6))
    assert_equal_trees(unbroken[0], again)
    other, _ = run(configs_of(smoke, train__steps=6), seed=1)
    difference = other.params["token"]["embedding"] - again.params["token"]["embedding"]
    assert jnp.max(jnp.abs(difference)) > 1e-2


def test_resumed_run_equals_an_unbroken_one_bit_for_bit(smoke, unbroken, tmp_path):
    configs = configs_of(smoke, train__steps=6)
    state, _ = run(configs, steps=3)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state) is None
        checkpoints.save(3, state, Clock(1.5, 2.5))
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        restored, clock = checkpoints.restore(
            train.make_state(configs[0], configs[2], 9)
        )
    assert clock == Clock(1.5, 2.5)
    assert int(restored.step) == 3
    final, _ = run(configs, state=restored)
    assert_equal_trees(unbroken[0], final)


@pytest.mark.slow
def test_resume_in_the_middle_of_an_accumulated_batch(smoke, tmp_path):
    configs = configs_of(smoke, train__steps=7, optim__batch_size=48)
    whole, _ = run(configs)
    assert int(whole.updates) == 2
    state, _ = run(configs, steps=4)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, state, Clock())
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(state)
    assert_equal_trees(whole, run(configs, state=restored)[0])


def test_weights_alone_can_be_restored(smoke, unbroken, tmp_path):
    state = unbroken[0]
    with checkpoint.open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(6, state, Clock(3.0, 1.0))
    like = jax.eval_shape(lambda: train.make_state(smoke.model, smoke.optim, 0)).params
    ema, clock, step = checkpoint.restore_weights(tmp_path, like, use_ema=True)
    assert_equal_trees(ema, state.ema)
    assert (clock, step) == (Clock(3.0, 1.0), 6)
    params, *_ = checkpoint.restore_weights(tmp_path, like, use_ema=False)
    assert_equal_trees(params, state.params)


def test_broken_checkpoint_is_named_and_left_alone(smoke, unbroken, tmp_path):
    state = unbroken[0]
    with checkpoint.open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(6, state, Clock())
    for path in (tmp_path / "checkpoints" / "6" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken")
    with (
        checkpoint.open_checkpoints(tmp_path / "checkpoints") as checkpoints,
        pytest.raises(ValueError, match=r"checkpoint .*/6 cannot be read .*nothing"),
    ):
        checkpoints.restore(state)
    with pytest.raises(ValueError, match=r"checkpoint .*/6 cannot be read"):
        checkpoint.restore_weights(tmp_path, state.params, use_ema=True)
    assert (tmp_path / "checkpoints" / "6" / "state").exists()
    with pytest.raises(ValueError, match=r"no checkpoint in .*empty"):
        checkpoint.restore_weights(tmp_path / "empty", state.params, use_ema=True)


def test_released_weights_are_read_back_exactly(smoke, unbroken, tmp_path):
    weights = unbroken[0].ema
    path = tmp_path / checkpoint.RELEASED
    checkpoint.write_released(path, weights, Clock(3.25, 1.0), 6)
    like = jax.eval_shape(lambda: train.make_state(smoke.model, smoke.optim, 0)).params
    found, clock, steps = checkpoint.restore_weights(tmp_path, like, use_ema=True)
    assert_equal_trees(found, weights)
    assert (clock, steps) == (Clock(3.25, 1.0), 6)
    other = dataclasses.replace(smoke.model, vocab_size=20)
    like = jax.eval_shape(lambda: train.make_state(other, smoke.optim, 0)).params
    with pytest.raises(ValueError, match=r"decoder/kernel.*\(32, 19\).*\(32, 20\)"):
        checkpoint.restore_weights(tmp_path, like, use_ema=True)
    path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"weights.safetensors cannot be read"):
        checkpoint.restore_weights(tmp_path, like, use_ema=True)


def test_loss_falls(smoke):
    configs = configs_of(smoke, train__steps=120, data__max_digits=1)
    _, metrics = run(configs)
    first = float(metrics[0].loss)
    last = np.mean([float(m.loss) for m in metrics[-5:]])
    assert first > 2.5
    assert last < first / 5


@pytest.mark.slow
def test_one_compilation_for_each_k(smoke, monkeypatch):
    changes = {
        "recurrences": 4,
        "max_backprop": 2,
        "injection": "recurrence",
        "initial_state": "noise",
        "layers": 1,
        "unroll": False,
    }
    configs = configs_of(
        smoke, train__steps=12, **{f"model__{k}": v for k, v in changes.items()}
    )
    traced = []
    original = train.train_step

    def counted(configs, num_trained, *args):
        traced.append(num_trained)
        return original(configs, num_trained, *args)

    monkeypatch.setattr(train, "train_step", counted)
    run(configs)
    depths = [losses.sample_depth(configs[0], 0, step) for step in range(12)]
    assert len({n for n, _ in depths}) > 2
    assert sorted(traced) == [1, 2]


@pytest.mark.slow
def test_accumulated_update_equals_the_mean_gradient(smoke):
    configs = configs_of(smoke, model__layers=1, optim__batch_size=32, train__steps=4)
    model, data_config, optimizer, _ = configs
    state = train.make_state(model, optimizer, 0)
    gradients = []
    for step in range(2):
        key_data, key_model = jax.random.split(jax.random.key(0))
        batch = data.training_batch(data_config, key_data, step, 16)
        key = jax.random.fold_in(key_model, step)
        loss = lambda p, b, k: losses.progressive_loss(model, p, b, k, 0, 1, 1.0)[0]
        gradients.append(jax.jit(jax.grad(loss))(state.params, batch, key))
    mean = jax.tree.map(lambda x, y: (x + y) / 2, *gradients)
    apply = jax.jit(train.apply_gradients, static_argnums=0)
    expected = apply(optimizer, state, mean, jnp.asarray(0.25))
    found, _ = run(configs, steps=2)
    assert int(found.updates) == 1
    assert int(found.accumulation.count) == 0
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4),
        found.params,
        expected.params,
    )
    waiting, _ = run(configs, steps=1)
    assert_equal_trees(waiting.params, train.make_state(model, optimizer, 0).params)


def test_budget_in_minutes_ends_by_the_clock(smoke):
    configs = configs_of(smoke, train__steps=0, train__minutes=0.01)
    seconds = [
        progress.train_seconds
        for progress in train.train(
            configs, train.make_state(*configs[::2], 0), 0, Clock()
        )
    ]
    assert 0.4 < seconds[-1] < 3
    spent = Clock(train_seconds=0.6)
    state = train.make_state(*configs[::2], 0)
    assert not list(train.train(configs, state, 0, spent))


def test_loss_that_is_not_finite_stops_with_the_step(smoke):
    configs = configs_of(smoke, train__steps=5)
    state = train.make_state(configs[0], configs[2], 0)
    broken = jax.tree.map(lambda x: x * jnp.nan, state.params)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 1; the last"):
        run(configs, state=state.replace(params=broken))


@pytest.fixture
def read(monkeypatch):
    """Steps whose metrics have been read."""
    steps, original = [], train.read_metrics

    def noted(metrics, step):
        steps.append(step)
        return original(metrics, step)

    monkeypatch.setattr(train, "read_metrics", noted)
    return steps


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1e3, [1, 3, 6]), (0.0, [1, 2, 3, 4, 6])],
)
def test_metrics_are_read_at_times_and_at_the_end(
    smoke, unbroken, read, monkeypatch, seconds, expected
):
    monkeypatch.setattr(train, "UNREAD_SECONDS", seconds)
    configs = configs_of(smoke, train__steps=6, train__log_every=4)
    state, metrics = run(configs)
    assert read == expected
    assert len(metrics) == 6
    assert metrics[-1] == unbroken[1][-1]
    assert_equal_trees(unbroken[0], state)


def test_no_more_than_one_long_step_is_queued(smoke, read, monkeypatch):
    compile_step = train.compile_step

    def long(*args):
        program = compile_step(*args)
        return lambda *args: time.sleep(2 * train.UNREAD_SECONDS) or program(*args)

    monkeypatch.setattr(train, "compile_step", long)
    run(configs_of(smoke, train__steps=5, train__log_every=100))
    assert read == [1, 2, 3, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 1.0}, r"train.steps=30 and train.minutes=1.0: exactly one"),
        ({"steps": 0}, r"train.steps=0 and train.minutes=0.0: exactly one"),
        ({"alpha": 1.5}, r"train.alpha=1.5: must be between 0 and 1"),
        ({"loss_reduction": "sum"}, r"train.loss_reduction='sum' is unknown"),
    ],
)
def test_bad_settings_are_refused(smoke, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(smoke.train, **changes)
