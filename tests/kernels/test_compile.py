import jax
import jax.numpy as jnp
import pytest

from arith_jax.kernels.compile import compiled


class Lowered:
    """A lowered function that remembers the options with which it is compiled."""

    def __init__(self):
        self.lowered, self.options = jax.jit(jnp.cos).lower(0.0), None

    def compile(self, compiler_options=None):
        self.options = compiler_options or {}
        return self.lowered.compile(compiler_options=compiler_options)


@pytest.mark.parametrize("triton_gemm", [True, False])
@pytest.mark.parametrize("autotune", [True, False])
def test_a_gpu_is_told_what_not_to_do_by_options_that_xla_knows(
    triton_gemm, autotune, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    lowered = Lowered()
    # XLA raises if there is no such option.
    program = compiled(lowered, triton_gemm=triton_gemm, autotune=autotune)
    assert program(0.0) == 1.0
    assert lowered.options.get("xla_gpu_enable_triton_gemm", True) is triton_gemm
    assert (lowered.options.get("xla_gpu_autotune_level") != 0) is autotune


def test_deterministic_programs_choose_nothing_by_its_time(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    lowered = Lowered()
    assert compiled(lowered, triton_gemm=True, deterministic=True)(0.0) == 1.0
    assert lowered.options["xla_gpu_deterministic_ops"] is True
    assert lowered.options["xla_gpu_autotune_level"] == 0


def test_a_cpu_gets_no_options_of_a_gpu():
    lowered = Lowered()
    assert compiled(lowered, triton_gemm=False, autotune=False)(0.0) == 1.0
    assert lowered.options == {}


def test_a_cpu_compiles_what_runs_briefly_by_options_that_xla_knows(monkeypatch):
    lowered = Lowered()
    assert compiled(lowered, triton_gemm=True, runs_briefly=True)(0.0) == 1.0
    assert lowered.options["xla_backend_optimization_level"] == 0
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiled(lowered, triton_gemm=True, runs_briefly=True)(0.0) == 1.0
    assert lowered.options == {}
