"""Numbers that are not finite, and losses that stand out."""

import dataclasses
import io
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich.console

from arith_jax import results
from arith_jax.evaluation import plots
from arith_jax.training import checkpoint, fit, loop, step
from arith_jax.training.interrupt import Interrupt
from arith_jax.training.log import RunLog
from arith_jax.training.loop import Clock
from arith_jax.training.losses import progressive_loss
from arith_jax.training.state import make_state
from tests.helpers import assert_trees_equal, changed
from tests.training.test_log import RECORD, steps_in
from tests.training.test_loop import run


@pytest.fixture
def spoil(monkeypatch):
    """Makes the gradients of some steps, from 0, infinite; losses stay finite."""

    def spoil_at(*steps):
        def spoilt(model, params, batch, key, **options):
            loss, metrics = progressive_loss(model, params, batch, key, **options)
            # The key is the step's: it tells which one this is.
            number = jnp.argmax(
                jnp.array(
                    [
                        jnp.all(jax.random.key_data(key) == jax.random.key_data(other))
                        for other in keys
                    ]
                )
            )
            bad = jnp.isin(number, jnp.array(steps))
            weight = params["decoder"]["kernel"].sum()
            extra = jnp.where(bad, jnp.inf, 0.0) * (
                weight - jax.lax.stop_gradient(weight)
            )
            return loss + jnp.where(bad, extra, 0.0), metrics

        key_model = jax.random.split(jax.random.key(0))[1]
        keys = [jax.random.fold_in(key_model, number) for number in range(8)]
        monkeypatch.setattr(step.losses, "progressive_loss", spoilt)

    return spoil_at


def train_in(experiment, workdir):
    console = rich.console.Console(file=io.StringIO(), width=200)
    return fit.run_training(experiment, workdir, console, Interrupt())


@pytest.mark.slow
def test_the_gradient_norm_is_that_before_clipping(smoke):
    experiment = changed(smoke, train__steps=3)
    _, metrics = run(experiment)
    norms = [float(m.gradient_norm) for m in metrics]
    assert all(math.isfinite(norm) and norm > 0 for norm in norms)
    unclipped = changed(experiment, optim__clip_norm=0.0)
    assert float(run(unclipped, steps=1)[1][0].gradient_norm) == norms[0]
    assert norms[0] > smoke.optim.clip_norm
    assert metrics[0].num_skipped is None


@pytest.mark.parametrize("at", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_a_gradient_that_is_not_finite_stops_and_is_not_saved(
    smoke, spoil, tmp_path, at
):
    spoil(at)
    experiment = changed(
        smoke, train__steps=6, train__checkpoint_minutes=0.0, train__log_every=1
    )
    with pytest.raises(FloatingPointError) as error:
        train_in(experiment, tmp_path)
    text = str(error.value)
    assert f"gradient is inf at step {at + 1}: lower" in text
    newest = tmp_path / "checkpoints" / str(at)
    assert f"the last good checkpoint is {newest}: begin a new workdir with" in text
    assert f"--config.train.init_from={tmp_path}" in text
    assert fit.newest_path(tmp_path) == newest


def test_updates_are_skipped_if_asked_and_counted(smoke, spoil, tmp_path):
    spoil(2, 4)
    experiment = changed(
        smoke, train__steps=6, train__skip_nonfinite=True, train__log_every=1
    )
    states = {}
    for progress in loop.train(experiment, make_state(experiment)):
        states[progress.step] = jax.device_get(progress.state)
    assert_trees_equal(states[3].params, states[2].params)
    assert_trees_equal(states[3].opt_state, states[2].opt_state)
    assert_trees_equal(states[3].ema, states[2].ema)
    assert int(states[6].num_skipped) == 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(states[6].params))
    trained = train_in(experiment, tmp_path)
    assert_trees_equal(trained.params, states[6].ema)
    lines = list(map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()))
    assert lines[-1]["num_skipped"] == 2
    assert [line["gradient_norm"] is None for line in lines] == [
        *(False, False, False, True, False, False)
    ]
    results.write_curves(experiment, tmp_path)


def test_skipping_is_chosen_anew_at_every_start(smoke, tmp_path):
    off, on = (changed(smoke, train__skip_nonfinite=skip) for skip in (False, True))
    states = {flag: make_state(flag) for flag in (off, on)}
    counted = states[on].replace(num_skipped=states[on].num_skipped + 3)
    for step_saved, state in ((1, states[off]), (2, counted)):
        with checkpoint.open_checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step_saved, state, Clock())
        for like in (off, on):
            with checkpoint.open_checkpoints(tmp_path) as checkpoints:
                restored, _ = checkpoints.restore(states[like])
            expected = {1: 0, 2: 3}[step_saved] if like == on else None
            assert restored.num_skipped == expected
            assert_trees_equal(restored.params, state.params)


@pytest.mark.slow
def test_a_gathered_update_leaves_a_bad_micro_batch_out(smoke, spoil):
    spoil(1)
    experiment = changed(
        smoke, train__steps=2, train__skip_nonfinite=True, optim__batch_size=32
    )
    state, _ = run(experiment)
    assert (int(state.updates), int(state.num_skipped)) == (1, 1)
    assert bool(jnp.isfinite(optax.tree.norm(state.params)))


@pytest.mark.slow
def test_seeds_skip_by_themselves(smoke, spoil):
    spoil(1)
    several = dataclasses.replace(
        changed(smoke, train__steps=3, train__skip_nonfinite=True), num_seeds=2
    )
    state, metrics = run(several)
    assert state.num_skipped.tolist() == metrics[-1].num_skipped.tolist() == [1, 0]


def log_losses(folder, losses, first=0):
    console = rich.console.Console(file=io.StringIO(), width=200)
    with RunLog([folder], console, first_step=first, every=1) as log:
        for number, loss in enumerate(losses, first + 1):
            log.step({"step": number, **RECORD, "loss": loss, "samples": number}, 0.5)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    spikes = [x["step"] for x in map(json.loads, lines) if x.get("spike")]
    said = [x for x in console.file.getvalue().splitlines() if "spike" in x]
    return spikes, said


def test_spikes_are_marked_and_said_once(tmp_path, smoke, monkeypatch):
    losses = [2.0, *[1.0] * 12, 4.9, 5.1, 6.0, 1.0]
    spikes, said = log_losses(tmp_path, losses)
    assert spikes == [15, 16]
    (line,) = said
    assert line.startswith("loss spike at step 15 (")
    assert line.endswith("): 5.1000, after a median of 1.0000")
    # What was logged before counts after a new start.
    spikes, said = log_losses(tmp_path, [7.0], first=17)
    assert spikes == [15, 16, 18]
    marked = []
    original = plots.save
    monkeypatch.setattr(
        plots,
        "save",
        lambda figure, path: (
            marked.extend(
                line.get_xdata().tolist()
                for line in figure.axes[0].lines
                if line.get_label() == "loss spike"
            )
            or original(figure, path)
        ),
    )
    results.write_curves(smoke, tmp_path)
    assert marked == [[15, 16, 18]]
    assert steps_in(tmp_path) == list(range(1, 19))


@pytest.mark.parametrize(
    "losses", [[1.0] * 5 + [9.0], [0.001] * 20 + [0.009], [math.nan] * 20 + [9.0]]
)
def test_few_lines_and_tiny_losses_are_no_spikes(tmp_path, losses):
    assert log_losses(tmp_path, losses) == ([], [])
