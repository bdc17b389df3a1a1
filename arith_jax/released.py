"""Trained models: those of a run's workdir, and those that come with the package."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax

from arith_jax.checks import one_line
from arith_jax.config.experiment import Experiment
from arith_jax.model.execution import on_this_device
from arith_jax.model.transformer import Transformer
from arith_jax.training.checkpoint import evaluated_weights
from arith_jax.training.workdir import local_path, seed_folder

# Inside an installed package, and beside it in a clone.
FOLDERS = (
    pathlib.Path(__file__).parent / "checkpoints",
    pathlib.Path(__file__).parent.parent / "checkpoints",
)

# Bytes of a config.json.
MAX_CONFIG = 2**20


class TrainedModel(NamedTuple):
    """A trained model.

    Attributes:
        experiment: What it was trained by, and how it computes here.
        model: For `forward` and `decode`.
        params: Its parameters.
    """

    experiment: Experiment
    model: Transformer
    params: Any


def released_folder(name: str = "abacus_add") -> pathlib.Path:
    """Where a released model is.

    Raises:
        ValueError: If there is none of this name.
    """
    for folder in FOLDERS:
        if (folder / name / "config.json").exists():
            return folder / name
    names = {path.parent.name for f in FOLDERS for path in f.glob("*/config.json")}
    raise ValueError(f"no released model {name!r}; allowed: {', '.join(sorted(names))}")


def load_released(name: str = "abacus_add") -> TrainedModel:
    """A released model: `abacus_add`, or `abacus_table_add` with the paper's table.

        >>> experiment, model, params = load_released()
        >>> prompt = experiment.data.task.prompt("98+120")
        >>> prompts = jnp.array([experiment.data.task.vocab.encode(prompt)])
        >>> lengths = jnp.array([len(prompt)])
        >>> tokens = decode(model, params, prompts, lengths, num_new=4)[0].tolist()
        >>> experiment.data.task.vocab.decode(tokens)  # least significant digit first
        '812'

    Raises:
        ValueError: If there is none of this name.
    """
    return load_trained(released_folder(name))


def read_config(folder: pathlib.Path) -> Any:
    """The content of a folder's `config.json`, of whatever origin.

    Raises:
        ValueError: If it cannot be read.
    """
    path = folder / "config.json"
    try:
        if path.is_file() and path.stat().st_size <= MAX_CONFIG:
            return json.loads(path.read_bytes())
        problem = f"no valid config.json of at most {MAX_CONFIG} bytes in it"
    except (OSError, ValueError, RecursionError) as error:
        problem = f"no valid config.json in it ({one_line(str(error))[:200]})"
    raise ValueError(
        f"checkpoint {folder} cannot be read: {problem}; name the workdir of a run "
        "with --checkpoint, or train one first: python launch.py "
        "--config=configs/abacus_add.py"
    )


def load_trained(folder: pathlib.Path | str) -> TrainedModel:
    """The model of a run's workdir or of a released folder.

    On a CPU it computes in float32, whatever it was trained in.

        >>> trained = load_trained("runs/abacus_add")  # doctest: +SKIP

    Args:
        folder: With `config.json`, and `checkpoints/` or released weights.

    Raises:
        ValueError: If the folder holds no run, or one of several seeds, or its
            checkpoint cannot be read.
    """
    folder = local_path(folder)
    config = read_config(folder)
    try:
        experiment = Experiment.from_dict(config)
    except ValueError as error:
        raise ValueError(f"checkpoint {folder}, config.json: {error}") from error
    if experiment.num_seeds > 1:
        first, last = experiment.seeds[0], experiment.seeds[-1]
        raise ValueError(
            f"checkpoint {folder} is a run of several seeds; name the folder of one: "
            f"{seed_folder(folder, first)} to {seed_folder(folder, last).name}"
        )
    execution = on_this_device(experiment.execution, jax.default_backend())
    experiment = dataclasses.replace(experiment, execution=execution)
    params, _, _ = evaluated_weights(experiment, folder)
    return TrainedModel(experiment, Transformer(experiment.model, execution), params)
