import logging
from types import SimpleNamespace

import jax
import pytest

from arith_jax.kernels import attention, dispatch, pallas


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose default device is an NVIDIA A100."""
    device = SimpleNamespace(compute_capability="8.0")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    return device


def test_a_recent_nvidia_gpu_runs_the_kernels_in_bfloat16_only(gpu):
    assert dispatch.obstacle("bfloat16") == ""
    assert "float32" in dispatch.obstacle("float32")


@pytest.mark.parametrize("capability", ["7.5", "gfx942", None])
def test_older_and_other_gpus_are_an_obstacle(capability, gpu):
    gpu.compute_capability = capability
    assert "compute capability 8.0" in dispatch.obstacle("bfloat16")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="is about a CPU")
def test_a_cpu_is_an_obstacle():
    assert "cpu" in dispatch.obstacle("bfloat16")


def test_a_jax_without_pallas_triton_is_an_obstacle(gpu, monkeypatch):
    monkeypatch.setattr(pallas, "triton", None)
    assert "no triton module" in dispatch.obstacle("bfloat16")


@pytest.mark.parametrize("width", [16, 128, 4096])
def test_a_power_of_two_in_the_range_is_no_problem(width):
    assert dispatch.width_problem(width, 4096) == ""


@pytest.mark.parametrize("width", [0, 8, 24, 8192])
def test_other_widths_are_a_problem_that_says_what_is_allowed(width):
    expected = f"width {width} is not a power of two from 16 to 4096"
    assert dispatch.width_problem(width, 4096) == expected


def test_attention_takes_heads_and_windows_that_fit_its_table():
    assert attention.problem(head_width=64, window=6) == ""
    assert "window of 7" in attention.problem(head_width=64, window=7)
    for head_width in (8, 24, 256):
        assert f"head width {head_width}" in attention.problem(head_width, window=2)


def test_a_kernel_runs_if_requested_without_a_problem():
    assert dispatch.chosen(True, "layer_norm", "")
    assert not dispatch.chosen(False, "layer_norm", "")


def test_a_request_that_cannot_be_met_is_a_warning_once_per_problem(caplog):
    dispatch.warn_once.cache_clear()
    problem = dispatch.width_problem(24, 4096)
    with caplog.at_level(logging.WARNING, logger="arith_jax"):
        assert not dispatch.chosen(False, "layer_norm", problem)
        assert caplog.messages == []
        for _ in range(2):
            assert not dispatch.chosen(True, "layer_norm", problem)
        assert caplog.messages == [
            "layer_norm: plain operations instead of the kernel: "
            "width 24 is not a power of two from 16 to 4096"
        ]
        dispatch.chosen(True, "geglu", problem)
        dispatch.chosen(True, "layer_norm", dispatch.width_problem(8, 4096))
    assert len(caplog.messages) == 3


def test_interpreted_kernels_are_a_warning(caplog):
    dispatch.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="arith_jax"):
        assert [dispatch.chosen(True, "geglu", "") for _ in range(2)] == [True, True]
        assert not dispatch.chosen(False, "layer_norm", "")
    is_cpu = jax.default_backend() == "cpu"
    expected = ["geglu: the kernel is interpreted on a CPU, which is slow"]
    assert caplog.messages == (expected if is_cpu else [])
