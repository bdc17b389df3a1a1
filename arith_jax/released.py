"""Trained models: those of a run's workdir, and those that come with the package."""

import dataclasses
import json
import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from arith_jax.checks import one_line, shown
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.answers import Answer, answers
from arith_jax.model.execution import on_this_device
from arith_jax.model.transformer import Transformer
from arith_jax.tasks.task import why_not
from arith_jax.training.checkpoint import evaluated_weights
from arith_jax.training.workdir import local_path, seed_folder

# Inside an installed package, and beside it in a clone.
FOLDERS = (
    pathlib.Path(__file__).parent / "checkpoints",
    pathlib.Path(__file__).parent.parent / "checkpoints",
)

# Of the released models, those that answer: the first whose task reads an expression.
ANSWERING = (
    "abacus_add",
    "abacus_addsub",
    "abacus_arithmetic",
    "abacus_multi_add",
    "abacus_div",
    "abacus_radix_sort",
    "abacus_or",
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

    def solve(
        self, expressions: Sequence[str], *, num_recurrences: int | None = None
    ) -> list[Answer]:
        """The model's own answers, by greedy decoding, and how sure it is of them.

            >>> (answer,) = load_released("abacus_add").solve(["98+120"])
            >>> answer.answer, answer.is_right, answer.tokens
            ('218', True, '812')
            >>> [round(value, 2) for value in answer.probabilities]  # and of the end
            [1.0, 1.0, 1.0, 1.0]

        Args:
            expressions: Of the model's task, as people write them; those of about one
                length are answered together.
            num_recurrences: Of a looped model's block; None: as many as in training.

        Raises:
            ValueError: If one is no expression of the task, or is too long for the
                model's table of positions or for the memory that attention may take;
                or if `num_recurrences` is not positive, or the model is not looped.
        """
        most = self.experiment.model.num_recurrences
        if num_recurrences is not None and (num_recurrences < 1 or most == 1):
            raise ValueError(
                f"num_recurrences={num_recurrences}: must be at least 1, of a looped "
                f"model; this one was trained with {most}"
            )
        return answers(
            self.experiment, self.params, expressions, num_recurrences=num_recurrences
        )


def released_folders() -> dict[str, pathlib.Path]:
    """The released models that are there, by name: as files, they can be left out."""
    paths = [path for folder in FOLDERS for path in folder.glob("*/config.json")]
    return {path.parent.name: path.parent for path in reversed(paths)}


def released_folder(name: str = "abacus_add") -> pathlib.Path:
    """Where a released model is.

    Raises:
        ValueError: If there is none of this name.
    """
    folders = released_folders()
    if name in folders:
        return folders[name]
    raise ValueError(
        f"no released model {name!r}; allowed: {', '.join(sorted(folders))}"
    )


def load_released(name: str = "abacus_add") -> TrainedModel:
    """A released model, by its name.

    `abacus_add` adds, as `abacus_table_add` does with the paper's table and
    `abacus_soft_add` without a window; `abacus_addsub` subtracts, `abacus_arithmetic`
    multiplies, too, `abacus_radix_sort` sorts, and `abacus_or` joins vectors of bits.

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


def read_experiment(folder: pathlib.Path) -> Experiment:
    """What the model of a folder was trained by.

    Raises:
        ValueError: If its `config.json` cannot be read or is not valid.
    """
    config = read_config(folder)
    try:
        return Experiment.from_dict(config)
    except ValueError as error:
        raise ValueError(f"checkpoint {folder}, config.json: {error}") from error


def folder_for(
    experiments: Mapping[pathlib.Path, Experiment], expression: str
) -> pathlib.Path:
    """The first of several folders whose model's task reads an expression.

    Args:
        experiments: Of runs or released models, by folder.
        expression: In the form that people write.

    Raises:
        ValueError: If there is none.
    """
    examples, errors = [], []
    for folder, experiment in experiments.items():
        task = experiment.data.task
        try:
            task.prompt(expression)
        except ValueError as error:
            examples += task.examples(random.Random(0), ())
            errors.append(error)
        else:
            return folder
    if len(errors) == 1:
        raise errors[0]
    raise ValueError(
        f"expression {shown(expression)} is of no task of these models; allowed: as "
        f"{' or '.join(dict.fromkeys(examples))}{why_not(expression)}"
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
    experiment = read_experiment(folder)
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
