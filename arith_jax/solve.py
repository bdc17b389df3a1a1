"""A trained model as a function and as a command.

python -m arith_jax.solve "98765432109876543210+12345" [--checkpoint=DIR]

Expressions are those of the run's task: 12+34, 12-34, 12x34 or 12*34, 001|00000, or a
list to sort, 30,4,17.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from arith_jax import checkpoint, decode
from arith_jax.experiment import Experiment
from arith_jax.model_config import ModelConfig

# Yours if you trained one, else the released one.
TRAINED = pathlib.Path("runs/abacus_add")
RELEASED = pathlib.Path(__file__).parent.parent / "checkpoints" / "abacus_add"


class Trained(NamedTuple):
    """A trained model: its experiment, how it computes here, and its weights."""

    experiment: Experiment
    model: ModelConfig
    weights: Any


def load_model(folder: pathlib.Path) -> Trained:
    """The model of a run's workdir or of a released folder.

    On a CPU it computes in float32, whatever it was trained in.

    Raises:
        ValueError: If the folder holds no run or its checkpoint cannot be read.
    """
    path = folder / "config.json"
    try:
        experiment = Experiment.from_dict(json.loads(path.read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"checkpoint {folder} cannot be read: no valid config.json in it; name the "
            "workdir of a run with --checkpoint, or train one first: "
            "python launch.py --config=configs/abacus_add.py"
        ) from error
    model = experiment.model
    if jax.default_backend() == "cpu":
        model = dataclasses.replace(model, dtype="float32")
    weights, _, _ = checkpoint.evaluated_weights(experiment, folder)
    return Trained(experiment, model, weights)


def load_solver(folder: pathlib.Path) -> Callable[[Sequence[str]], list[str]]:
    """A function from expressions to the answers of a trained model.

    Raises:
        ValueError: If the folder holds no run or its checkpoint cannot be read.
    """
    experiment, model, weights = load_model(folder)

    def solver(expressions: Sequence[str]) -> list[str]:
        return decode.answers(model, experiment.data, weights, expressions)

    return solver


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the model's answer to each expression."""
    parser = argparse.ArgumentParser(
        prog="python -m arith_jax.solve", description="Let a trained model compute."
    )
    parser.add_argument("expressions", nargs="+", metavar="EXPRESSION")
    parser.add_argument(
        "--checkpoint",
        type=pathlib.Path,
        help="workdir of a run, or a released folder "
        f"(default: {TRAINED} if it holds a finished run, else {RELEASED.name} "
        "in checkpoints/)",
    )
    options = parser.parse_args(arguments)
    trained = (TRAINED / "result.json").exists()
    folder = options.checkpoint or (TRAINED if trained else RELEASED)
    try:
        found = load_solver(folder)(options.expressions)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for answer in found:
        print(answer)


if __name__ == "__main__":
    main()
