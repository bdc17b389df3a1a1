"""Lets a trained model compute.

python -m arith_jax.solve "98765432109876543210+12345" [--checkpoint=DIR]

Expressions are those of the run's task: 12+34, 12-34, 12x34 or 12*34, 001|00000, or a
list to sort, 30,4,17.
"""

import pathlib
import re
import sys
from collections.abc import Callable, Sequence

from absl import flags

from arith_jax import cli
from arith_jax.evaluation.answers import answers
from arith_jax.released import load_trained, released_folder

# Yours if you trained one, else the released one.
TRAINED = pathlib.Path("runs/abacus_add")


def load_solver(folder: pathlib.Path) -> Callable[[Sequence[str]], list[str]]:
    """A function from expressions to the answers of a trained model.

    Args:
        folder: Of a run, or of a released model.

    Raises:
        ValueError: If the folder holds no run or its checkpoint cannot be read.
    """
    experiment, _, params = load_trained(folder)
    return lambda expressions: answers(experiment, params, expressions)


def main(arguments: Sequence[str]) -> None:
    """Prints the model's answer to each expression.

    Raises:
        ValueError: If there is no expression, or one is not of the model's task.
    """
    values = cli.new_flags()
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Workdir of a run, or a released folder; default: "
        f"{TRAINED} if it holds a finished run, else the released model.",
        flag_values=values,
    )
    # A number's sign is not the beginning of a flag.
    arguments = [re.sub(r"^-(?=\d)", " -", argument) for argument in arguments]
    expressions = cli.parse(values, arguments, __doc__ or "")
    if not expressions:
        raise ValueError('no expression; allowed: one or more, as in "12+34"')
    is_trained = (TRAINED / "result.json").exists()
    if values.checkpoint:
        folder = pathlib.Path(values.checkpoint)
    else:
        folder = TRAINED if is_trained else released_folder()
    print(f"model: {folder}", file=sys.stderr)
    for answer in load_solver(folder)(expressions):
        print(answer)


if __name__ == "__main__":
    cli.run(main)
