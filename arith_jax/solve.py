"""A trained model as a function and as a command.

python -m arith_jax.solve "98765432109876543210+12345" [--checkpoint=DIR]
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax

from arith_jax import checkpoint, decode, train
from arith_jax.experiment import Experiment

DEFAULT_CHECKPOINT = pathlib.Path("runs/abacus_add")


def load_solver(folder: pathlib.Path) -> Callable[[Sequence[str]], list[str]]:
    """A function from expressions to the answers of the run in a workdir.

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
    like = jax.eval_shape(
        lambda: train.make_state(experiment.model, experiment.optim, 0)
    )
    weights, _, _ = checkpoint.restore_weights(
        folder / "checkpoints", like.params, experiment.optim.ema_decay > 0
    )

    def solver(expressions: Sequence[str]) -> list[str]:
        return decode.answers(experiment.model, experiment.data, weights, expressions)

    return solver


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the model's answer to each expression."""
    parser = argparse.ArgumentParser(
        prog="python -m arith_jax.solve", description="Let a trained model add."
    )
    parser.add_argument("expressions", nargs="+", metavar="A+B")
    parser.add_argument("--checkpoint", type=pathlib.Path, default=DEFAULT_CHECKPOINT)
    options = parser.parse_args(arguments)
    try:
        found = load_solver(options.checkpoint)(options.expressions)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for answer in found:
        print(answer)


if __name__ == "__main__":
    main()
