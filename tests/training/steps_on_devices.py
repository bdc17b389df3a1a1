"""Prints losses of a few steps as JSON, on a number of pretended CPU devices.

python -m tests.training.steps_on_devices NUM_DEVICES EXPERIMENT...
"""

import dataclasses
import json
import sys

import jax

from arith_jax.config.experiment import Experiment
from arith_jax.data.batch import training_batch
from arith_jax.devices import make_mesh, split_rows
from arith_jax.training.loop import train
from arith_jax.training.state import make_state
from configs import abacus_add
from configs.paper import addition
from tests.helpers import changed

NUM_STEPS = 4


def experiments():
    ours = Experiment.from_dict(abacus_add.get_config("smoke"))
    ours = changed(ours, data__problems_per_row=2)
    looped = "arch=1x8,pos=abacus,alpha=0.5,smoke"
    paper = Experiment.from_dict(addition.get_config(looped))
    return {
        "packed": ours,
        "packed, in kernels": changed(ours, execution__kernels=True),
        "two seeds": dataclasses.replace(ours, num_seeds=2),
        # Noise for the initial state, two passes, updates of two micro-batches.
        "looped": changed(paper, optim__batch_size=32),
    }


def losses_of(experiment):
    experiment = changed(experiment, train__steps=NUM_STEPS, train__log_every=1)
    losses = []
    for progress in train(experiment, make_state(experiment)):
        losses.append(jax.device_get(progress.unread.loss).tolist())
    return losses


def examples():
    """Tokens of a batch that the devices draw together."""
    data = experiments()["packed"].data

    def draw(step):
        return split_rows(training_batch(data, jax.random.key(5), step, 16)).ids

    with jax.set_mesh(make_mesh()):
        ids = jax.jit(draw)(3)
    assert len(ids.sharding.device_set) == jax.device_count()
    return ids.tolist()


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    known = experiments()
    printed = {name: losses_of(known[name]) for name in sys.argv[2:]}
    print(json.dumps(printed | {"examples": examples()}))
