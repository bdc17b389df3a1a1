"""Pictures of what a trained model does, from its workdir.

python -m arith_jax.analyse recurrences --checkpoint=DIR       accuracy by recurrences
python -m arith_jax.analyse thinking 98+120 --checkpoint=DIR   answers after each
python -m arith_jax.analyse attention 98+120 --checkpoint=DIR  who looks at whom
python -m arith_jax.analyse digits --checkpoint=DIR            accuracy at every place
python -m arith_jax.analyse carries --checkpoint=DIR           accuracy by carry chain

DIR is the workdir of a run or a released folder; by default the released flagship.
"""

import pathlib
import random
import re
from collections.abc import Sequence

from absl import flags

from arith_jax import cli
from arith_jax.checks import shown
from arith_jax.config.model import MAX_DEPTH
from arith_jax.evaluation import plots
from arith_jax.evaluation.analysis import Analysis
from arith_jax.released import load_trained, released_folder

PICTURES = ("recurrences", "thinking", "attention", "digits", "carries")


def make_flags() -> flags.FlagValues:
    """The flags of this command."""
    values = cli.new_flags()
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Workdir of a run, or a released folder; default: the released flagship.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "out",
        None,
        "File to write; default: in the run's folder, or runs/analyse/.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "recurrences",
        None,
        "Largest number; default twice the run's.",
        lower_bound=1,
        upper_bound=MAX_DEPTH,
        flag_values=values,
    )
    flags.DEFINE_list(
        "sizes", ["10", "20", "40", "100"], "Of the operands.", flag_values=values
    )
    return values


def draw(
    analysis: Analysis,
    path: pathlib.Path,
    words: Sequence[str],
    values: flags.FlagValues,
) -> None:
    """Computes and draws one picture.

    Args:
        analysis: The model.
        path: File to write.
        words: One of `PICTURES`, and an expression for some of them.
        values: The flags.

    Raises:
        ValueError: If the run or the expression does not fit the picture.
    """
    experiment = analysis.experiment
    task, depth = experiment.data.task, experiment.model.num_recurrences
    picture, *given = words
    expression = given[0] if given else task.examples(random.Random(0), [])[0]
    max_recurrences = values.recurrences or 2 * depth
    sizes = read_sizes(values.sizes)
    title = f"{experiment.name}, {experiment.seeds_text}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture == "recurrences":
        shares = analysis.recurrence_sweep(sizes, max_recurrences)
        plots.draw_recurrences(path, shares, num_trained=depth, title=title)
    elif picture == "thinking":
        thoughts = analysis.thoughts(expression, max_recurrences)
        plots.draw_thinking(path, *thoughts, title=title)
    elif picture == "attention":
        plots.draw_attention(path, *analysis.attention_maps(expression), title=title)
    elif picture == "digits":
        shares = analysis.digit_accuracy(sizes)
        plots.draw_places(path, shares, title=title, label=task.answer_axis)
    else:
        plots.draw_carries(path, analysis.carry_accuracy(sizes[-1]), title=title)


def read_sizes(words: Sequence[str]) -> list[int]:
    """The sizes of operands that a flag lists.

    Raises:
        ValueError: If there are none, or one is no whole number or too large.
    """
    is_size = lambda word: re.fullmatch("[0-9]{1,4}", word) and int(word) > 0
    if not words or not all(map(is_size, words)):
        raise ValueError(
            f"--sizes={shown(','.join(words))}: must be whole numbers from 1 to 9999, "
            "with commas"
        )
    return [int(word) for word in words]


def main(arguments: Sequence[str]) -> None:
    """Draws one picture and prints where it is.

    Raises:
        ValueError: If the picture is unknown or does not fit the run.
    """
    values = make_flags()
    rest = cli.parse(values, arguments, __doc__ or "")
    if not rest or rest[0] not in PICTURES or len(rest) > 2:
        raise ValueError(
            f"arguments {shown(' '.join(rest))}: must be a picture and at most one "
            f"expression; allowed pictures: {', '.join(PICTURES)}"
        )
    # Released folders stay as they are.
    given = values.checkpoint
    if given is not None:
        given = cli.local_path("checkpoint", given)
    folder = given or pathlib.Path("runs/analyse")
    path = (
        cli.local_path("out", values.out)
        if values.out is not None
        else folder / f"{rest[0]}.png"
    )
    trained = load_trained(given or released_folder())
    draw(Analysis(*trained), path, rest, values)
    print(path)


if __name__ == "__main__":
    cli.run(main)
