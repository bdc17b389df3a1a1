import jax
import jax.numpy as jnp
import pytest

from arith_jax import compiling, train
from configs import abacus_add
from tests import models


class Lowered:
    """Tells with which options it is compiled."""

    def compile(self, compiler_options):
        return compiler_options


@pytest.mark.parametrize("autotune", [True, False])
def test_only_a_gpu_is_told_not_to_search(autotune, monkeypatch):
    assert compiling.compiled(Lowered(), autotune) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = compiling.compiled(Lowered(), autotune)
    assert found == (None if autotune else compiling.WITHOUT_SEARCH)


def test_the_compiler_knows_the_options():
    lowered = jax.jit(jnp.sin).lower(1.0)
    assert lowered.compile(compiler_options=compiling.WITHOUT_SEARCH)(0.0) == 0.0


@pytest.mark.parametrize("autotune", [True, False])
def test_the_train_step_is_compiled_as_the_config_says(autotune, monkeypatch):
    changes = {"train.autotune": autotune}
    experiment = models.experiment_of(abacus_add, "smoke", changes)
    monkeypatch.setattr(compiling, "compiled", lambda lowered, autotune: autotune)
    make = lambda: train.make_state(experiment.model, experiment.optim, 0)
    state = jax.eval_shape(make)
    assert train.compile_step(experiment.train_configs, 1, state) is autotune
