"""Copies the evaluated weights of a finished run into `checkpoints/`, as float16.

python -m tools.release RUN [RUN...]    -> checkpoints/<name>/ of each run's config

Half the bytes: everyone who clones the repository or installs the package fetches them.
A GPU rounds weights to bfloat16, which is coarser, before it multiplies anyway.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from arith_jax import cli
from arith_jax.config.experiment import Experiment
from arith_jax.training import checkpoint
from arith_jax.training.record import write_json
from tools import report

ROOT = pathlib.Path(__file__).parent.parent


def in_half(weights: Any) -> Any:
    """Weights in float16.

    Raises:
        ValueError: If one is too large for it.
    """
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), weights)
    if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(halves)):
        raise ValueError("a weight is above 65504, too large for float16; train again")
    return halves


def release(workdir: pathlib.Path, root: pathlib.Path = ROOT) -> pathlib.Path:
    """Writes config, weights and result of a run into its folder of `checkpoints/`.

    Raises:
        ValueError: If the run is not finished or was made with uncommitted changes.
    """
    result = report.stripped(workdir)
    config = json.loads((workdir / "config.json").read_text())
    experiment = Experiment.from_dict(config)
    weights, clock, steps = checkpoint.evaluated_weights(experiment, workdir)
    weights = in_half(weights)
    folder = root / "checkpoints" / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_released(folder / checkpoint.RELEASED, weights, clock, steps)
    write_json(folder / "config.json", config)
    write_json(folder / "result.json", result)
    return folder


def main(arguments: Sequence[str]) -> None:
    """Releases every run that is named."""
    for run in cli.parse(cli.new_flags(), arguments, __doc__ or ""):
        print(release(pathlib.Path(run)))


if __name__ == "__main__":
    cli.run(main)
