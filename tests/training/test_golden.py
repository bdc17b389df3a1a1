import json

import numpy as np
import pytest

from tests.helpers import slow_but
from tests.training import golden

RECORDED = json.loads(golden.FILE.read_text())


@pytest.mark.parametrize("name", slow_but(golden.experiments(), ("flagship",)))
def test_losses_are_those_that_were_recorded(name):
    # Processors round differently; another batch, key or rule is off by far more.
    losses = golden.losses_of(golden.experiments()[name])
    np.testing.assert_allclose(losses, RECORDED[name], rtol=1e-4)


def test_recorded_losses_tell_steps_apart():
    for losses in RECORDED.values():
        assert len(losses) == golden.NUM_STEPS
        assert np.abs(np.diff(losses)).min() > 1e-3
