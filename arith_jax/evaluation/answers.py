"""A model's own answers to written expressions."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from arith_jax import vocab
from arith_jax.config.data import round_up
from arith_jax.config.experiment import Experiment
from arith_jax.model.decode import decode
from arith_jax.model.transformer import Transformer

# Attention logits of a layer in one batch, at best and at most: 4 GiB in float32.
BATCH_LOGITS = 2**24
MAX_LOGITS = 2**30
MAX_ROWS = 128


class Question(NamedTuple):
    """An expression as the model reads it.

    Attributes:
        prompt: The text.
        width: Tokens that it is padded to.
        num_new: Tokens of its answer, rounded up.
    """

    prompt: str
    width: int
    num_new: int


def rounded(count: int, least: int) -> int:
    """Rounds up to a multiple of `least` and of about an eighth of the number.

    Every new shape costs a compilation: so there are few of them.
    """
    return round_up(count, max(least, 2 ** (count.bit_length() - 4)))


def logits_of(experiment: Experiment, question: Question) -> int:
    """Attention logits of a layer."""
    num_keys = question.width + question.num_new
    return experiment.model.num_heads * question.width * num_keys


def read_question(experiment: Experiment, expression: str) -> Question:
    """Reads an expression of the experiment's task.

    Args:
        experiment: Task and model.
        expression: In the form that people write.

    Raises:
        ValueError: If it is not one of the task, or is too long for the model's
            position table or for the memory that attention may take.
    """
    data, config = experiment.data, experiment.model
    prompt = data.task.prompt(expression)
    cell = data.task.sizes(prompt)
    config.check_table(data.max_position_id(cell))
    num_new = rounded(data.task.answer_width(*cell) + 1, 32)
    question = Question(prompt, rounded(len(prompt), 64), num_new)
    config.check_row(question.width + num_new)
    if logits_of(experiment, question) > MAX_LOGITS:
        size = 4 * logits_of(experiment, question) / 2**30
        raise ValueError(
            f"expression of {len(prompt)} tokens: its attention takes {size:.0f} GiB; "
            f"allowed: {4 * MAX_LOGITS // 2**30} GiB; give shorter numbers"
        )
    return question


def answers(
    experiment: Experiment, params: Any, expressions: Sequence[str]
) -> list[str]:
    """The model's own answers to expressions of its task, such as `98+120`.

    Args:
        experiment: Model, task and how the device computes.
        params: Parameters, or their moving average.
        expressions: In the form that people write.

    Raises:
        ValueError: As `read_question`.
    """
    questions = [read_question(experiment, text) for text in expressions]
    return answers_to(experiment, params, questions)


def answers_to(
    experiment: Experiment, params: Any, questions: Sequence[Question]
) -> list[str]:
    """The model's own answers to questions that were read, in their order.

    Args:
        experiment: Model, task and how the device computes.
        params: Parameters, or their moving average.
        questions: From `read_question`.
    """
    by_index: dict[int, str] = {}
    for batch in batches(experiment, questions):
        answered = answer_batch(experiment, params, [questions[i] for i in batch])
        by_index.update(zip(batch, answered, strict=True))
    return [by_index[index] for index in range(len(questions))]


def batches(
    experiment: Experiment, questions: Sequence[Question]
) -> Iterator[list[int]]:
    """Indices of questions of one shape, as many as fit into a batch."""
    alike: dict[tuple[int, int], list[int]] = {}
    for index, question in enumerate(questions):
        alike.setdefault((question.width, question.num_new), []).append(index)
    for indices in alike.values():
        fitting = BATCH_LOGITS // logits_of(experiment, questions[indices[0]])
        size = max(1, min(MAX_ROWS, 2 ** (fitting.bit_length() - 1)))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def answer_batch(
    experiment: Experiment, params: Any, questions: Sequence[Question]
) -> list[str]:
    """Answers to questions of one shape, in one program."""
    data = experiment.data
    # A power of two, for few shapes: those that are missing ask what the first does.
    num_rows = 2 ** (len(questions) - 1).bit_length()
    prompts = [data.task.vocab.encode(question.prompt) for question in questions]
    prompts += prompts[:1] * (num_rows - len(prompts))
    ids = np.full((num_rows, questions[0].width), vocab.PAD, np.int32)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    tokens = decode(
        Transformer(experiment.model, experiment.execution),
        params,
        jnp.array(ids),
        jnp.array([len(prompt) for prompt in prompts]),
        num_new=questions[0].num_new,
        positions=data.scheme.position_ids(jnp.array(ids)),
    )
    written = [data.task.vocab.decode(row) for row in np.asarray(tokens).tolist()]
    return [
        data.task.read_answer(question.prompt, text)
        for question, text in zip(questions, written, strict=False)
    ]


def solved_examples(experiment: Experiment, params: Any) -> list[str]:
    """A few exercises as the model solves them, by greedy decoding, of growing size."""
    task, max_cell = experiment.data.task, experiment.data.max_cell
    limits = experiment.eval.max_evaluated(task, max_cell)
    rng = random.Random(experiment.eval.seed)
    sizes = {max_cell}
    for factor, cap in ((4, 10**9), (10, 60)):
        a, b = (
            max(n, min(factor * n, limit, cap))
            for n, limit in zip(max_cell, limits, strict=True)
        )
        sizes.add((a, b))
    expressions = task.examples(rng, sorted(sizes))
    lines = []
    given = answers(experiment, params, expressions)
    for expression, answer in zip(expressions, given, strict=True):
        prompt = task.prompt(expression)
        truth = task.read_answer(prompt, task.true_answer(prompt))
        verdict = "right" if answer == truth else f"wrong, it is {truth}"
        lines.append(f"{expression} = {answer}  ({verdict})")
    return lines
