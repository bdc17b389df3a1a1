"""The whole model with kernels and without; kernels are interpreted on a CPU."""

import dataclasses
from functools import partial

import jax
import pytest

from arith_jax.config.model import Execution
from arith_jax.config.training import LossConfig, Noise
from arith_jax.data.batch import training_batch
from arith_jax.kernels import attention
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.training import step as train_step
from arith_jax.training.losses import Depth, progressive_loss
from arith_jax.training.optim import Schedule
from arith_jax.training.state import make_state
from configs import abacus_add
from configs.paper import addition
from tests import helpers

# What the model asks of the kernels; packed rows are compared with the plain path.
EXPERIMENTS = {
    "ours": (abacus_add, "smoke", {}),
    "ours, packed": (
        abacus_add,
        "smoke",
        {"model.num_layers": 1, "data.problems_per_row": 2},
    ),
    "ours, soft": (abacus_add, "smoke", {"model.abacus_far": "bias"}),
    "paper": (addition, "arch=1x16,pos=abacus,smoke", {}),
    "fire": (addition, "arch=16x1,pos=abacus+fire,smoke", {}),
    "fire, packed": (
        addition,
        "arch=16x1,pos=fire,smoke",
        {"data.problems_per_row": 2},
    ),
}
IN_KERNELS = Execution(kernels=True)


def loss_of(model, batch, params, num_frozen=1):
    """The loss of a batch with one recurrence that has gradients."""
    return progressive_loss(
        model,
        params,
        batch,
        jax.random.key(2),
        depth=Depth(num_frozen, 1),
        config=LossConfig(),
    )[0]


@pytest.fixture
def attended(monkeypatch):
    """The specs with which the attention kernel is called from now on."""
    specs, attend = [], attention.attend

    def watched(spec, *arguments, **options):
        specs.append(spec)
        return attend(spec, *arguments, **options)

    monkeypatch.setattr(attention, "attend", watched)
    return specs


@pytest.mark.parametrize("name", helpers.slow_but(EXPERIMENTS, ("ours, packed",)))
def test_a_model_in_kernels_has_the_same_loss_and_gradients(name, attended):
    experiment = helpers.experiment_of(*EXPERIMENTS[name])
    plain = Transformer(experiment.model, Execution())
    batch = training_batch(experiment.data, jax.random.key(1), 0, 4)
    params = helpers.moved(init_params(plain, jax.random.key(0)))
    gradients = lambda model: jax.jit(
        jax.value_and_grad(partial(loss_of, model, batch))
    )(params)
    loss, expected = gradients(plain)
    assert not attended
    loss_in_kernels, actual = gradients(Transformer(experiment.model, IN_KERNELS))
    assert attended
    helpers.assert_trees_close(loss_in_kernels, loss, 1e-5)
    # By the size of all gradients: some parameters have none but by rounding.
    helpers.assert_trees_close(actual, expected, 5e-5)


@pytest.mark.parametrize(
    ("changes", "key_noise"),
    [
        ({"positions": ("rope",)}, 0.0),
        ({"positions": ("rotary_abacus",)}, 0.0),
        ({"length_scale": True}, 0.0),
        ({"num_heads": 4}, 0.0),
        ({"abacus_window": 7}, 0.0),
        ({}, 1.0),
    ],
    ids=str,
)
def test_what_the_attention_kernel_cannot_do_is_done_without(
    changes, key_noise, attended
):
    experiment = helpers.experiment_of(*EXPERIMENTS["ours"])
    config = dataclasses.replace(experiment.model, **changes)
    model = Transformer(config, IN_KERNELS, noise=Noise(key_noise))
    batch = training_batch(experiment.data, jax.random.key(1), 0, 2)
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    attended.clear()
    jax.eval_shape(partial(loss_of, model, batch, num_frozen=0), params)
    assert not attended


@pytest.mark.parametrize(
    "name", ["ours, packed", pytest.param("fire, packed", marks=pytest.mark.slow)]
)
def test_the_train_step_can_be_lowered_for_a_gpu(name, monkeypatch):
    # Triton knows fewer operations than the interpreter. No GPU is needed for this.
    experiment = helpers.experiment_of(*EXPERIMENTS[name])
    execution = Execution(dtype="bfloat16", kernels=True)
    experiment = dataclasses.replace(experiment, execution=execution)
    state = jax.eval_shape(lambda: make_state(experiment))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    step = jax.jit(partial(train_step.train_step, experiment, 1))
    inputs = train_step.step_inputs(experiment, Schedule(0.0, 1), Depth(0, 1))
    traced = step.trace(state, inputs)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    for module in ("attention_triton", "layer_norm", "geglu"):
        for kernel in ("forward_kernel", "backward_kernel"):
            assert f"{module}_{kernel}" in text
    assert "xla.gpu.triton" in text


@pytest.mark.parametrize("triton_gemm", [True, False])
def test_the_train_step_is_compiled_as_the_config_says(triton_gemm, monkeypatch):
    changes = {"execution.triton_gemm": triton_gemm}
    experiment = helpers.experiment_of(abacus_add, "smoke", changes)
    state = jax.eval_shape(lambda: make_state(experiment))
    options = []
    monkeypatch.setattr(
        train_step, "compiled", lambda lowered, **chosen: options.append(chosen)
    )
    train_step.compile_step(experiment, 1, state)
    assert options == [{"triton_gemm": triton_gemm, "deterministic": False}]
