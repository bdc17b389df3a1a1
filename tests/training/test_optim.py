import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.config.experiment import Experiment
from arith_jax.config.model import McLeishConfig
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.training import optim
from configs.paper import addition

PAPER = Experiment.from_dict(addition.get_config("arch=8x2")).optim


def test_learning_rate_warms_up_stays_and_cools_down():
    points = {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.5: 1.0, 0.9: 1.0, 0.95: 0.5, 1.0: 0.0}
    for fraction, expected in points.items():
        multiplier = optim.lr_multiplier(PAPER, fraction)
        assert multiplier == pytest.approx(expected, abs=1e-6)
    ours = dataclasses.replace(PAPER, decay_start=0.5, final_learning_rate=0.2)
    assert optim.lr_multiplier(ours, 0.75) == pytest.approx(0.6)
    assert optim.lr_multiplier(ours, 1.0) == pytest.approx(0.2)


def test_batch_ramp_is_the_original_s():
    for fraction in np.linspace(0, 1, 41):
        parts = int(12e6 * fraction)
        size = (int(np.floor(parts * (8192 / (12e6 * 0.6)) / 512)) + 1) * 512
        assert optim.num_micro_batches(PAPER, fraction) * 512 == min(size, 8192)
    flat = dataclasses.replace(PAPER, ramp_until=0.0)
    assert optim.num_micro_batches(flat, 0.0) == 16


def names_of(tiny, **changes):
    config = dataclasses.replace(tiny, **changes)
    params = jax.eval_shape(lambda: init_params(Transformer(config), jax.random.key(0)))
    return jax.tree.leaves(optim.parameter_names(params))


def test_exactly_matrices_tables_and_fire_scalars_decay(tiny):
    names = names_of(
        tiny, positions=("abacus", "fire"), table_size=9, abacus_far="bias"
    )
    undecayed = {name for name in names if not optim.is_decayed(name)}
    for name in undecayed:
        assert "norm" in name or name.endswith(("bias", "qk_scale"))
    matrices = {n for n in names if n.endswith(("kernel", "embedding"))}
    assert not matrices & undecayed
    assert "layers/attention/fire/slope" not in undecayed
    assert "layers/attention/fire/hidden/bias" in undecayed


def test_muon_takes_the_matrices_of_the_layers_only(tiny):
    names = names_of(
        tiny,
        positions=("fire",),
        abacus_far="bias",
        mcleish=McLeishConfig(head_mlp=True),
    )
    assert sorted(filter(optim.is_muon, names)) == [
        "layers/attention/out/kernel",
        "layers/attention/qkv_kernel",
        "layers/mlp/in/kernel",
        "layers/mlp/out/kernel",
    ]


@pytest.fixture(scope="module")
def updates(tiny, smoke):
    params = init_params(Transformer(tiny), jax.random.key(0))
    gradients = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(1), x.shape), params
    )
    rule = optim.make_optimizer(smoke.optim)
    changes, _ = jax.jit(rule.update)(gradients, rule.init(params), params)
    return changes


def test_muon_updates_are_nearly_orthogonal_for_each_layer_and_projection(updates):
    kernel = updates["layers"]["attention"]["qkv_kernel"] / 0.02
    for layer in range(2):
        for part in range(3):
            spectrum = jnp.linalg.svd(kernel[layer, :, part], compute_uv=False)
            assert float(spectrum.min()) > 0.5
            assert float(spectrum.max()) < 1.4
    wide = updates["layers"]["mlp"]["in"]["kernel"][0] / 0.02
    spectrum = jnp.linalg.svd(wide, compute_uv=False)
    assert float(spectrum.min()) > 2**0.5 * 0.5
    assert float(spectrum.max()) < 2**0.5 * 1.4


def test_adam_takes_the_rest_with_its_own_rate(updates):
    first = jnp.abs(updates["token"]["embedding"])
    assert float(jnp.median(first)) == pytest.approx(1e-3, rel=0.05)


def test_clipping_bounds_the_gradient_not_the_adam_step():
    config = dataclasses.replace(PAPER, eps=1.0, weight_decay=0.0, clip_norm=0.5)
    params = {"kernel": jnp.zeros((3, 4))}
    gradients = {"kernel": jnp.full((3, 4), 100.0)}
    rule = optim.make_optimizer(config)
    state = rule.init(params)
    changes, _ = rule.update(gradients, state, params)
    clipped = 0.5 / 12**0.5
    expected = -config.learning_rate * clipped / (clipped + 1.0)
    np.testing.assert_allclose(changes["kernel"], expected, rtol=1e-4)
    off = optim.make_optimizer(dataclasses.replace(config, clip_norm=0.0))
    free, _ = off.update(gradients, off.init(params), params)
    np.testing.assert_allclose(free["kernel"], -1e-4 * 100 / 101, rtol=1e-4)


def test_moving_average_forgets_the_start_quickly():
    config = dataclasses.replace(PAPER, ema_decay=0.99)
    ema = {"w": jnp.array(0.0)}
    for update in range(50):
        ema = optim.ema_update(config, ema, {"w": jnp.array(1.0)}, jnp.array(update))
    assert float(ema["w"]) > 0.99
    ones, late = {"w": jnp.array(1.0)}, {"w": jnp.array(0.0)}
    late = optim.ema_update(config, late, ones, jnp.array(10**6))
    assert float(late["w"]) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": "sgd"},
            r"optim.optimizer='sgd' is unknown; allowed: adamw",
        ),
        ({"learning_rate": -1.0}, r"optim.learning_rate=-1.0: must be at least 0"),
        ({"batch_size": 0}, r"optim.batch_size=0: must be at least 1"),
        ({"warmup": 0.95}, r"optim.warmup=0.95 and optim.decay_start=0.9"),
        ({"ema_decay": 1.0}, r"optim.ema_decay=1.0: must be 0 \(off\) or below 1"),
        ({"batch_size": 700}, r"optim.batch_size=700 is not a multiple of"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PAPER, **changes)
