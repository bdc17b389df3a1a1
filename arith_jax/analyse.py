"""Pictures of what a trained model does, from its workdir.

python -m arith_jax.analyse recurrences --checkpoint=DIR       accuracy by recurrences
python -m arith_jax.analyse thinking 98+120 --checkpoint=DIR   answers after each
python -m arith_jax.analyse attention 98+120 --checkpoint=DIR  who looks at whom
python -m arith_jax.analyse digits --checkpoint=DIR            accuracy at every place
python -m arith_jax.analyse carries --checkpoint=DIR           accuracy by carry chain

DIR is the workdir of a run or a released folder; by default the released flagship.
"""

import argparse
import pathlib
import random
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from arith_jax import losses, plots, solve, vocab
from arith_jax.addition import Addition
from arith_jax.data import Batch, as_batch, evaluation_batch, round_up
from arith_jax.experiment import Experiment
from arith_jax.model import attention_weights, forward
from arith_jax.model_config import ModelConfig
from arith_jax.solve import Trained

NUM_SAMPLES = 200  # per size and kind
PICTURES = ("recurrences", "thinking", "attention", "digits", "carries")


@partial(jax.jit, static_argnums=0)
def predictions(
    config: ModelConfig, params: Any, batch: Batch, recurrences: Int[Array, ""]
) -> Int[Array, "b t"]:
    """Teacher-forced argmax after any number of recurrences, one program for all."""
    logits = forward(
        config,
        params,
        batch.ids,
        batch.positions,
        num_frozen=recurrences,
        num_trained=0,
    )
    return jnp.argmax(logits, axis=-1)


def samples(experiment: Experiment, size: int, kinds: Sequence[int] = (0,)) -> Batch:
    """Fixed examples of the cell (size, size), as many of each kind.

    Raises:
        ValueError: If a table of positions ends before these sizes.
    """
    task, cell = experiment.data.make_task(), (size, size)
    experiment.model.check_table(experiment.data.longest_position(cell), 0)
    width = round_up(task.row_width(*cell), 64)
    experiment.model.check_row(width)
    rows = jnp.array([[k, *cell, i] for i in range(NUM_SAMPLES) for k in kinds])
    key = jax.random.key(experiment.eval.seed)
    draw = jax.jit(evaluation_batch, static_argnums=(0, 3, 4, 5))
    return draw(task, key, rows, cell, width, experiment.data.position_ids)


def right_tokens(
    model: Trained, batch: Batch, recurrences: int
) -> tuple[Bool[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]:
    """Which answer tokens are right, and which tokens are the answer's."""
    labels, mask = losses.targets(batch)
    found = predictions(model.model, model.weights, batch, jnp.int32(recurrences))
    return np.asarray((found == labels) & mask), np.asarray(mask)


def exact(model: Trained, batch: Batch, recurrences: int) -> Bool[np.ndarray, " b"]:
    """Which whole answers are right."""
    right, mask = right_tokens(model, batch, recurrences)
    return np.all(right | ~mask, axis=1)


def recurrence_sweep(
    model: Trained, sizes: Sequence[int], most: int
) -> dict[int, list[float]]:
    """Share of right answers of each size after 1 to `most` recurrences."""
    found = {}
    for size in sizes:
        batch = samples(model.experiment, size)
        found[size] = [float(exact(model, batch, r).mean()) for r in range(1, most + 1)]
    return found


def thoughts(model: Trained, expression: str, most: int) -> tuple[str, list[str]]:
    """The true answer and what the model would write after each recurrence.

    Every token is predicted with the true answer before it, so a line shows what is
    known at that depth, not what decoding would make of an early mistake.
    """
    batch, start = written(model.experiment, expression)
    task = model.experiment.data.make_task()
    truth = task.truth(task.prompt(expression))
    lines = []
    for recurrences in range(1, most + 1):
        found = predictions(model.model, model.weights, batch, jnp.int32(recurrences))
        answer = np.asarray(found)[0, start - 1 : start + len(truth)]
        lines.append("".join(symbol(task.vocab, token) for token in answer.tolist()))
    return truth + symbol(task.vocab, vocab.EOS), lines


def symbol(table: vocab.Vocab, token: int) -> str:
    """One character for any token: a dot for the end, a blank for padding."""
    special = {vocab.EOS: ".", vocab.PAD: " "}
    return special.get(token) or table.decode([token]) or "?"


def written(experiment: Experiment, expression: str) -> tuple[Batch, int]:
    """An expression with its true answer as one row, and where the answer starts."""
    task = experiment.data.make_task()
    prompt = task.prompt(expression)
    ids = [*task.vocab.encode(prompt + task.truth(prompt)), vocab.EOS]
    scheme = experiment.data.position_ids
    return as_batch(task, jnp.array([ids]), scheme=scheme), len(prompt)


def attention_maps(model: Trained, expression: str) -> tuple[np.ndarray, list[str]]:
    """Attention [layers in depth, heads, queries, keys] and the tokens' labels."""
    batch, _ = written(model.experiment, expression)
    weights = attention_weights(model.model, model.weights, batch.ids, batch.positions)
    maps = np.asarray(weights[:, :, 0])
    table = model.experiment.data.make_task().vocab
    labels = [symbol(table, token) for token in np.asarray(batch.ids)[0].tolist()]
    return maps.reshape(-1, *maps.shape[2:]), labels


def digit_accuracy(model: Trained, sizes: Sequence[int]) -> dict[int, list[float]]:
    """Share of right tokens at every place of the answer, `EOS` among them."""
    found = {}
    for size in sizes:
        batch = samples(model.experiment, size)
        right, mask = right_tokens(model, batch, model.model.recurrences)
        # Answers differ in length: place i of a row is its i-th counted token.
        place = np.cumsum(mask, axis=1) - 1
        longest = int(mask.sum(axis=1).max())
        counts = np.zeros((2, longest))
        for row, values in enumerate((right & mask, mask)):
            np.add.at(counts[row], place[values], 1)
        found[size] = (counts[0] / counts[1]).tolist()
    return found


def longest_chain(ids: Sequence[int], plus: int, equals: int) -> int:
    """Places the longest carry of a written sum travels: 0 without any carry."""
    tokens = list(ids)
    a, b = tokens[: tokens.index(plus)], tokens[tokens.index(plus) + 1 :]
    b = b[: b.index(equals)]
    carry = chain = longest = 0
    for i in range(max(len(a), len(b))):
        digits = [x[i] - vocab.DIGIT_ZERO for x in (a, b) if i < len(x)]
        carry = int(sum(digits) + carry > 9)
        chain = chain + 1 if carry else 0
        longest = max(longest, chain)
    return longest


def carry_accuracy(model: Trained, size: int) -> dict[int, tuple[int, int]]:
    """Right and all sums by the length of their longest carry chain.

    Half of the sums are uniform; the others have one long chain each, so that every
    length occurs.

    Raises:
        ValueError: If the task is not addition.
    """
    task = model.experiment.data.make_task()
    if not isinstance(task, Addition):
        raise ValueError(
            f"carry chains are for addition; this run is {task.title}: choose another "
            "picture"
        )
    kinds = [0, list(task.kinds).index("chains")]
    batch = samples(model.experiment, size, kinds)
    right = exact(model, batch, model.model.recurrences)
    plus, equals = task.vocab.id("+"), task.vocab.id("=")
    found: dict[int, tuple[int, int]] = {}
    for ids, is_right in zip(np.asarray(batch.ids).tolist(), right, strict=True):
        chain = longest_chain(ids, plus, equals)
        correct, total = found.get(chain, (0, 0))
        found[chain] = (correct + int(is_right), total + 1)
    return dict(sorted(found.items()))


def place_of(checkpoint: pathlib.Path) -> pathlib.Path:
    """Folder of the pictures: the run's own; released folders stay as they are."""
    return pathlib.Path("runs/analyse") if checkpoint == solve.RELEASED else checkpoint


def draw(options: argparse.Namespace) -> pathlib.Path:
    """Computes and draws one picture.

    Raises:
        ValueError: If the workdir or the expression does not fit the picture.
    """
    model = solve.load_model(options.checkpoint)
    task = model.experiment.data.make_task()
    path = options.out or place_of(options.checkpoint) / f"{options.picture}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    expression = options.expression or task.examples(random.Random(0), [])[0]
    most = options.recurrences or 2 * model.model.recurrences
    title = f"{model.experiment.name}, seed {model.experiment.seed}"
    if options.picture == "recurrences":
        found = recurrence_sweep(model, options.sizes, most)
        plots.draw_recurrences(path, found, model.model.recurrences, title)
    elif options.picture == "thinking":
        plots.draw_thinking(path, *thoughts(model, expression, most), title)
    elif options.picture == "attention":
        plots.draw_attention(path, *attention_maps(model, expression), title)
    elif options.picture == "digits":
        found = digit_accuracy(model, options.sizes)
        plots.draw_places(path, found, title, task.answer_axis)
    else:
        plots.draw_carries(path, carry_accuracy(model, options.sizes[-1]), title)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws one picture and prints where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m arith_jax.analyse", description="Look into a trained model."
    )
    parser.add_argument("picture", choices=PICTURES)
    parser.add_argument("expression", nargs="?", help="of the task; default its own")
    parser.add_argument(
        "--checkpoint",
        type=pathlib.Path,
        default=solve.RELEASED,
        help="workdir of a run, or a released folder",
    )
    parser.add_argument("--out", type=pathlib.Path, help="file to write")
    parser.add_argument("--recurrences", type=int, help="most; default twice the run's")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 20, 40, 100])
    options = parser.parse_args(arguments)
    try:
        print(draw(options))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
