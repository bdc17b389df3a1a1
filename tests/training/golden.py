"""Losses of a few steps that must not change unnoticed.

python -m tests.training.golden  # writes them anew, after a change that is meant
"""

import dataclasses
import json
import pathlib

import jax

from arith_jax.config.experiment import Experiment
from arith_jax.training.loop import train
from arith_jax.training.state import make_state
from configs import abacus_add, abacus_mul, abacus_sort, ablation_add
from configs.paper import addition
from tests.helpers import changed

FILE = pathlib.Path(__file__).with_suffix(".json")
NUM_STEPS = 6


def experiments():
    """What is recorded: tasks, positions, optimizers, recurrences, accumulation."""
    built = lambda module, argument: Experiment.from_dict(module.get_config(argument))
    small = {
        "model__width": 32,
        "model__num_heads": 2,
        "model__mlp_width": 64,
        "optim__batch_size": 16,
        "optim__micro_batch_size": 16,
        "execution__dtype": "float32",
        "execution__kernels": False,
        "execution__unroll": False,
    }
    soft = built(ablation_add, "change=soft_noise_2")
    looped = built(addition, "arch=1x8,pos=abacus,alpha=0.5,smoke")
    return {
        "flagship": built(abacus_add, "smoke"),
        "multiplication": built(abacus_mul, "smoke"),
        "sorting": built(abacus_sort, "smoke"),
        "soft, key noise": changed(soft, **small),
        "paper, looped": changed(looped, optim__batch_size=32),
        "paper, FIRE": built(addition, "arch=16x1,pos=fire,smoke"),
    }


def losses_of(experiment):
    """The loss of every step."""
    experiment = changed(experiment, train__steps=NUM_STEPS, train__minutes=0.0)
    experiment = dataclasses.replace(experiment, seed=11)
    return [
        float(jax.device_get(progress.unread.loss))
        for progress in train(experiment, make_state(experiment))
    ]


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    losses = {name: losses_of(experiment) for name, experiment in experiments().items()}
    FILE.write_text(json.dumps(losses, indent=1) + "\n")
