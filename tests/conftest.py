"""JAX is made strict for the tests; small models are shared by them."""

import os
import pathlib
from importlib import metadata

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if metadata.version("jax").startswith("0.10."):
    # A third less compilation, and a fifth of the rest. XLA aborts on flags it does not
    # know: this version does.
    flags = os.environ.get("XLA_FLAGS", "")
    flags += " --xla_cpu_use_fusion_emitters=false"
    flags += " --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = flags.strip()

import jax
import pytest

from arith_jax.config.experiment import Experiment
from arith_jax.config.model import ModelConfig
from configs import abacus_add

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
# Compilation is most of the time of these tests.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", ".jax_cache")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Marks the tests of `slow.txt` as slow.

    Raises:
        pytest.UsageError: If all tests are collected, and a line names none.
    """
    text = (pathlib.Path(__file__).parent / "slow.txt").read_text()
    lines = {line for line in text.splitlines() if not line.startswith("#")}
    unused = set(lines)
    for item in items:
        names = {item.nodeid, item.nodeid.partition("[")[0]} & lines
        unused -= names
        if names:
            item.add_marker(pytest.mark.slow)
    if unused and config.args_source == pytest.Config.ArgsSource.TESTPATHS:
        raise pytest.UsageError(f"tests/slow.txt: no test is {min(unused)}")


@pytest.fixture(scope="session")
def smoke() -> Experiment:
    """The flagship at its smallest."""
    return Experiment.from_dict(abacus_add.get_config("smoke"))


@pytest.fixture(scope="session")
def tiny(smoke: Experiment) -> ModelConfig:
    """A model of two layers and 32 numbers a token; tests replace what they vary."""
    return smoke.model
