"""Several devices: pretended ones of the CPU, in processes of their own."""

import functools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from arith_jax.training import state
from arith_jax.training.state import make_state
from tests.helpers import ENVIRONMENT, ROOT, changed


@functools.cache
def losses_on(num_devices, *names):
    """Losses of the experiments of `steps_on_devices`, [steps] or [steps, seeds]."""
    command = [sys.executable, "-m", "tests.training.steps_on_devices"]
    done = subprocess.run(
        [*command, str(num_devices), *names],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: np.array(losses)
        for name, losses in json.loads(done.stdout.splitlines()[-1]).items()
    }


def alone():
    return losses_on(1, "packed")


def shared():
    return losses_on(8, "packed")


def assert_alike(alone, shared):
    assert len(set(alone.reshape(-1).tolist())) == alone.size  # something is learned
    np.testing.assert_allclose(shared, alone, rtol=1e-6)


def test_losses_do_not_depend_on_the_number_of_devices():
    assert_alike(alone()["packed"], shared()["packed"])


# Every program takes a while to compile, and kernels are interpreted.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["looped", "packed, in kernels"])
def test_losses_of_large_programs_do_not_depend_on_the_number_of_devices(name):
    assert_alike(losses_on(1, name)[name], losses_on(2, name)[name])


def test_examples_are_the_same_on_any_number_of_devices():
    examples = alone()["examples"]
    assert examples.shape == (8, 20)
    assert len(np.unique(examples)) > 10
    np.testing.assert_array_equal(shared()["examples"], examples)


@pytest.mark.slow
def test_a_seed_of_several_has_the_losses_of_a_single_run_on_any_number_of_devices():
    losses = losses_on(1, "packed", "two seeds")
    assert_alike(losses["two seeds"], losses_on(8, "two seeds")["two seeds"])
    np.testing.assert_allclose(losses["two seeds"][:, 0], losses["packed"], rtol=1e-6)
    assert abs(losses["two seeds"][:, 1] - losses["packed"]).min() > 1e-3


def test_rows_that_devices_cannot_share_are_refused(smoke, monkeypatch):
    def three_parts(num_seeds):
        devices = np.array(jax.devices() * 3).reshape(1, 3)
        return jax.sharding.Mesh(devices, ("seeds", "rows"))

    monkeypatch.setattr(state, "make_mesh", three_parts)
    message = r"micro_batch_size=16 with data.problems_per_row=2 makes 8 rows, which 3 "
    with pytest.raises(ValueError, match=message):
        make_state(changed(smoke, data__problems_per_row=2))
