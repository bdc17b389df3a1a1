import itertools

import jax
import jax.numpy as jnp
import pytest

from arith_jax.data.batch import training_batch
from arith_jax.model.transformer import Transformer
from arith_jax.training import checkpoint
from arith_jax.training.loop import Clock, train
from arith_jax.training.losses import Depth, progressive_loss
from arith_jax.training.optim import schedule
from arith_jax.training.state import accumulate_gradients, apply_gradients, make_state
from tests.helpers import assert_trees_close, assert_trees_equal, changed
from tests.training.test_loop import run


@pytest.fixture(scope="module")
def unbroken(smoke):
    return run(changed(smoke, train__steps=6))[0]


def like_of(experiment):
    return jax.eval_shape(lambda: make_state(experiment)).params


def test_accumulated_update_equals_the_mean_gradient(smoke):
    experiment = changed(smoke, model__num_layers=1, optim__batch_size=32)
    model, state = Transformer(experiment.model), make_state(experiment)
    key_data, key_model = jax.random.split(jax.random.key(0))

    @jax.jit
    def gradient(params, step):
        batch = training_batch(experiment.data, key_data, step, 16)
        key = jax.random.fold_in(key_model, step)
        loss = lambda p: progressive_loss(model, p, batch, key, depth=Depth(0, 1))[0]
        return jax.grad(loss)(params)

    gradients = [gradient(state.params, step) for step in range(2)]
    mean = jax.tree.map(lambda x, y: (x + y) / 2, *gradients)
    apply = jax.jit(apply_gradients, static_argnums=0)
    before = jax.tree.map(jnp.copy, state.params)
    # The update happens at the second of 30 steps.
    expected = apply(experiment.optim, state, mean, schedule(experiment.optim, 1 / 30))
    waiting, updated = (
        jax.tree.map(jnp.copy, progress.state)  # The next step takes the buffers.
        for progress in itertools.islice(train(experiment, state), 2)
    )
    assert int(updated.updates) == 1
    assert int(updated.accumulation.count) == 0
    steps = jax.tree.map(lambda new, old: new - old, updated.params, before)
    wanted = jax.tree.map(lambda new, old: new - old, expected.params, before)
    # Muon turns rounding of small gradients into small turns of a whole update.
    assert_trees_close(steps, wanted, 1e-2)
    assert_trees_equal(waiting.params, before)
    # Updates hardly depend on the size of a gradient, but clipping does.
    halves = jax.tree.map(lambda x: x / 2, gradients[0])
    assert_trees_close(waiting.accumulation.gradients, halves, 1e-3)


def test_an_update_waits_for_the_micro_batches_wanted_when_it_began(smoke):
    """The batch may grow, or shrink when a run goes on, while some are gathered."""
    experiment = changed(smoke, model__num_layers=1, optim__batch_size=48)
    state = make_state(experiment)
    add = jax.jit(accumulate_gradients, static_argnums=0)
    plan = schedule(experiment.optim, 0.5)
    waiting = []
    for num_micro_batches in (3, 2, 2, 2, 2):
        now = plan._replace(num_micro_batches=num_micro_batches)
        state = add(experiment.optim, state, state.params, now)
        waiting.append((int(state.updates), int(state.accumulation.count)))
    assert waiting == [(0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]


def test_resumed_run_equals_an_unbroken_one_bit_for_bit(smoke, unbroken, tmp_path):
    experiment = changed(smoke, train__steps=6)
    state, _ = run(experiment, steps=3)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state) is None
        checkpoints.save(3, state, Clock(1.5, 2.5))
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        restored, clock = checkpoints.restore(make_state(experiment))
    assert clock == Clock(1.5, 2.5)
    assert int(restored.step) == 3
    final, _ = run(experiment, state=restored)
    assert_trees_equal(unbroken, final)


@pytest.mark.slow
def test_resume_in_the_middle_of_an_accumulated_batch(smoke, tmp_path):
    experiment = changed(smoke, train__steps=7, optim__batch_size=48)
    whole, _ = run(experiment)
    assert int(whole.updates) == 2
    state, _ = run(experiment, steps=4)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, state, Clock())
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(state)
    assert_trees_equal(whole, run(experiment, state=restored)[0])


def test_weights_alone_can_be_restored(smoke, unbroken, tmp_path):
    with checkpoint.open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(6, unbroken, Clock(3.0, 1.0))
    like = like_of(smoke)
    ema, clock, step = checkpoint.restore_weights(tmp_path, like, use_ema=True)
    assert_trees_equal(ema, unbroken.ema)
    assert (clock, step) == (Clock(3.0, 1.0), 6)
    params, *_ = checkpoint.restore_weights(tmp_path, like, use_ema=False)
    assert_trees_equal(params, unbroken.params)


def test_broken_checkpoint_is_named_and_left_alone(unbroken, tmp_path):
    with checkpoint.open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(6, unbroken, Clock())
    for path in (tmp_path / "checkpoints" / "6" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken")
    with (
        checkpoint.open_checkpoints(tmp_path / "checkpoints") as checkpoints,
        pytest.raises(ValueError, match=r"checkpoint .*/6 cannot be read .*nothing"),
    ):
        checkpoints.restore(unbroken)
    with pytest.raises(ValueError, match=r"checkpoint .*/6 cannot be read"):
        checkpoint.restore_weights(tmp_path, unbroken.params, use_ema=True)
    assert (tmp_path / "checkpoints" / "6" / "state").exists()
    with pytest.raises(ValueError, match=r"no checkpoint in .*empty"):
        checkpoint.restore_weights(tmp_path / "empty", unbroken.params, use_ema=True)


def test_released_weights_are_read_back_exactly(smoke, unbroken, tmp_path):
    weights = unbroken.ema
    path = tmp_path / checkpoint.RELEASED
    checkpoint.write_released(path, weights, Clock(3.25, 1.0), 6)
    like = like_of(smoke)
    read, clock, steps = checkpoint.restore_weights(tmp_path, like, use_ema=True)
    assert_trees_equal(read, weights)
    assert (clock, steps) == (Clock(3.25, 1.0), 6)
    like = like_of(changed(smoke, model__vocab_size=20))
    with pytest.raises(ValueError, match=r"decoder/kernel.*\(32, 19\).*\(32, 20\)"):
        checkpoint.restore_weights(tmp_path, like, use_ema=True)
    path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"weights.safetensors cannot be read"):
        checkpoint.restore_weights(tmp_path, like, use_ema=True)
