"""Noise of attention: what it disturbs, when, and by which key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.config.model import Execution
from arith_jax.config.training import Noise
from arith_jax.model import attention
from arith_jax.model.context import make_context
from arith_jax.model.forward import forward as run_forward
from arith_jax.model.transformer import Transformer
from arith_jax.positions.schemes import Abacus, Kinds
from tests.helpers import assert_trees_close
from tests.model.examples import (
    LOOPED,
    batch_of,
    changed_model,
    forward,
    random_params,
    relative_distance,
)

NOISE = Noise(key_noise=3.0)


def test_key_noise_acts_in_training_only_and_by_key(tiny):
    model = Transformer(tiny, noise=Noise(key_noise=3.0))
    params, batch = random_params(model), batch_of()

    def run(model, seed=None):
        key = None if seed is None else jax.random.key(seed)
        return forward(
            model, params, batch.ids, batch.positions, key=key, num_segments=1
        )

    without, weak = run(Transformer(tiny)), Transformer(tiny, noise=Noise(1e-4))
    np.testing.assert_array_equal(run(model), without)
    np.testing.assert_array_equal(run(model, 1), run(model, 1))
    assert relative_distance(run(model, 1), run(model, 2)) > 1e-2
    assert relative_distance(run(model, 1), without) > 1e-2
    assert relative_distance(run(weak, 1), without) < 1e-3


def test_far_digits_count_as_copies_in_training(tiny):
    """Attention is that of rows in which every far digit stands so many times."""
    window, max_copies = 1, 50.0
    layer = attention.Attention(
        num_heads=2,
        scheme=Kinds(),
        window=window,
        is_windowed=False,
        noise=Noise(max_far_copies=max_copies),
    )
    ids = jnp.tile(batch_of(["1234567+7654321="]).ids, (2, 1))
    x = jax.random.normal(jax.random.key(0), (*ids.shape, 32))
    context = make_context(Kinds(), Kinds().position_ids(ids))
    params = layer.init(jax.random.key(1), x, context)["params"]
    params["relative_kind"]["bias"] += jnp.array([[0.1, -0.1]])

    @jax.jit
    def weights(seed):
        rngs = {} if seed is None else {"noise": jax.random.key(seed)}
        _, sown = layer.apply(
            {"params": params}, x, context, rngs=rngs, mutable=["intermediates"]
        )
        return sown["intermediates"]["weights"][0]

    plain, counted = np.asarray(weights(None)), np.asarray(weights(3))
    place, kind = (np.asarray(level[0]) for level in context.query.levels)
    is_far = (np.abs(place[:, None] - place[None]) > window) & (kind == 0)[None]
    own = np.arange(len(place))
    copies = counted / np.maximum(plain, 1e-30)
    copies /= copies[:, :, own, own][..., None]
    is_seen = np.tri(len(place), dtype=bool)
    np.testing.assert_allclose(copies[..., is_seen & ~is_far], 1.0, rtol=1e-3)
    for row in copies:
        far = row[:, is_seen & is_far]
        np.testing.assert_allclose(far, far[0, 0], rtol=1e-3)
        assert 1.0 < far[0, 0] < max_copies
    far = copies[:, 0, is_seen & is_far][:, 0]
    assert abs(far[0] - far[1]) > 0.1  # each row has its own number
    assert not np.allclose(counted, np.asarray(weights(4)))


def test_every_layer_of_every_recurrence_draws_noise_of_its_own(tiny, monkeypatch):
    drawn, uniform = [], jax.random.uniform

    def recorded(key, shape):
        drawn.append(np.asarray(uniform(key, shape)))
        return uniform(key, shape)

    # The initial state has no noise of its own.
    changes = {"num_layers": 2, "num_recurrences": 2, "initial_state": "embedding"}
    execution = Execution(unroll=True)
    model = changed_model(tiny, LOOPED | changes, execution=execution, noise=NOISE)
    params, batch = random_params(model), batch_of(["12+34="])
    monkeypatch.setattr(jax.random, "uniform", recorded)
    key = jax.random.key(1)
    run_forward(model, params, batch.ids, batch.positions, key=key, num_segments=1)
    assert len(drawn) == 4
    assert len(np.unique(drawn)) == 4 * batch.ids.size


@pytest.mark.parametrize("unroll", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_noise_of_a_recurrence_is_the_same_with_and_without_gradient(tiny, unroll):
    execution = Execution(unroll=unroll)
    # The initial state has no noise of its own.
    changes = LOOPED | {"num_layers": 1, "initial_state": "embedding"}
    model = changed_model(tiny, changes, execution=execution, noise=NOISE)
    params, batch = random_params(model), batch_of(["12+34="])

    def run(num_frozen, num_trained, seed=1):
        return forward(
            model,
            params,
            batch.ids,
            batch.positions,
            num_frozen=num_frozen,
            num_trained=num_trained,
            key=jax.random.key(seed),
            num_segments=1,
        )

    trained = run(0, 2)
    assert_trees_close(run(1, 1), trained, 1e-5)
    assert relative_distance(run(0, 2, seed=2), trained) > 1e-2


def test_far_digits_of_other_problems_are_seen_in_training():
    """A digit sees the others' digits whose rows of the table are far from its own.

    A symbol sees those that are no first digits.
    """
    layer = attention.Attention(
        num_heads=2,
        positions=(),
        window=2,
        is_windowed=False,
        noise=Noise(far_problems=True),
    )
    # Two problems, 12+345=9 and 1+67, the second with a larger offset.
    segment = jnp.array([[0] * 8 + [1] * 4])
    rows = jnp.array([[11, 12, 0, 11, 12, 13, 0, 11, 14, 0, 14, 15]])
    context = make_context(Abacus(), rows, segment=segment, num_segments=2)
    x = jax.random.normal(jax.random.key(0), (1, 12, 32))
    params = layer.init(jax.random.key(1), x, context)["params"]

    def is_seen(rngs):
        _, sown = layer.apply(
            {"params": params}, x, context, rngs=rngs, mutable=["intermediates"]
        )
        return np.asarray(sown["intermediates"]["weights"][0][0, 0]) > 0

    own = np.tri(12, dtype=bool) & (segment[0][:, None] == segment[0][None])
    np.testing.assert_array_equal(is_seen({}), own)
    others = np.zeros_like(own)
    others[8, [0, 3, 7]] = others[10, [0, 3, 7]] = True  # 14 sees 11, not 12 and 13
    others[11, [0, 1, 3, 4, 7]] = True  # 15 sees 11 and 12
    others[9, 5] = True  # the symbol sees the third digit
    training = is_seen({"noise": jax.random.key(2)})
    np.testing.assert_array_equal(training, own | others)
