import jax
import jax.numpy as jnp
import pytest

from arith_jax import compiling, train
from configs import abacus_add
from tests import models

CASES = {
    (False, True): {},
    (True, True): {"xla_gpu_enable_triton_gemm": False},
    (True, False): {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0},
}


class Lowered:
    """Tells with which options it is compiled."""

    def compile(self, compiler_options=None):
        return compiler_options


@pytest.mark.parametrize(("choice", "expected"), CASES.items(), ids=str)
def test_only_a_gpu_is_told_what_to_do(choice, expected, monkeypatch):
    assert compiling.compiled(Lowered(), *choice) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.compiled(Lowered(), *choice) == expected
    # The compiler knows the options.
    assert jax.jit(jnp.sin).lower(1.0).compile(compiler_options=expected)(0.0) == 0.0


@pytest.mark.parametrize("libraries", [True, False])
def test_the_train_step_is_compiled_as_the_config_says(libraries, monkeypatch):
    changes = {"train.libraries": libraries}
    experiment = models.experiment_of(abacus_add, "smoke", changes)
    monkeypatch.setattr(compiling, "compiled", lambda lowered, libraries: libraries)
    make = lambda: train.make_state(experiment.model, experiment.optim, 0)
    state = jax.eval_shape(make)
    assert train.compile_step(experiment.train_configs, 1, state) is libraries
