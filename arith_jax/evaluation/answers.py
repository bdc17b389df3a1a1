"""A model's own answers to written expressions.

Greedy decoding writes a token, reads it, and writes the next. Here a whole answer is
read at once, as a draft, and the model says what it would have written after each of
its tokens: up to the first token that differs, and with it, that is what decoding gives
(a draft from anywhere is as good; here it is the true answer). What the model wrote is
the next draft, until nothing differs. So a right answer takes one pass, whose memory
grows linearly with the row where attention is in blocks, and a wrong one a few.
"""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from arith_jax import vocab
from arith_jax.config.data import round_up
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.evaluate import SHARED_WIDTH, blocks_for
from arith_jax.model.forward import forward
from arith_jax.model.pieces import queries_at_a_time
from arith_jax.model.transformer import Transformer
from arith_jax.tasks.mixture import part_of

# Memory of a batch, by `bytes_of`: at best, so that a processor's cache holds most of
# it, and at most.
BATCH_BYTES = 2**26
MAX_BYTES = 2**33


class Answer(NamedTuple):
    """What a model answers.

    Attributes:
        expression: As it was given.
        answer: The model's, as people write it.
        truth: The right one, by Python.
        tokens: What the model wrote, without the end: for numbers, the least
            significant digit first.
        probabilities: Of each of the tokens, given those before, and of the end; there
            is no end if the model had not come to one after as many tokens as the
            longest right answer has.
    """

    expression: str
    answer: str
    truth: str
    tokens: str
    probabilities: tuple[float, ...]

    @property
    def is_right(self) -> bool:
        """Whether every digit is right."""
        return self.answer == self.truth

    @property
    def least_certain(self) -> tuple[int, str, float]:
        """The place of the least certain token, from 1, the token, its probability.

        The token is empty if it is the end.
        """
        place = int(np.argmin(self.probabilities))
        return place + 1, self.tokens[place : place + 1], self.probabilities[place]


class Question(NamedTuple):
    """An expression as the model reads it.

    Attributes:
        expression: As it was given.
        prompt: The text.
        draft: The answer that is read first: the true one.
        num_new: Tokens of the longest right answer, with its end.
        width: Tokens that the row is padded to.
    """

    expression: str
    prompt: str
    draft: str
    num_new: int
    width: int


def row_width(num_tokens: int) -> int:
    """Rounds up to a multiple of 64 and of about an eighth of the number.

    Every new shape costs a compilation: so there are few of them.
    """
    return round_up(num_tokens, max(64, 2 ** (num_tokens.bit_length() - 4)))


def bytes_of(experiment: Experiment, width: int) -> int:
    """About the memory that a row takes: what a layer holds at once.

    Its attention logits and weights, and numbers of each token, as measured for rows of
    3,000 to 300,000 tokens on a CPU.
    """
    model, blocks = experiment.model, blocks_for(experiment, width)
    if blocks is None:
        num_logits = width * queries_at_a_time(width, width)
    else:
        num_logits = width * (3 * blocks.size + blocks.symbols)
    num_numbers = width * (8 * model.width + 4 * model.mlp_width)
    return 4 * (2 * model.num_heads * num_logits + num_numbers)


def read_question(experiment: Experiment, expression: str) -> Question:
    """Reads an expression of the experiment's task.

    Args:
        experiment: Task and model.
        expression: In the form that people write.

    Raises:
        ValueError: If it is not one of the task, or is too long for the model's
            position table or for the memory that an answer may take.
    """
    data, config = experiment.data, experiment.model
    prompt = data.task.prompt(expression)
    cell = data.task.sizes(prompt)
    config.check_table(data.max_position_id(cell))
    # Of this calculation: in a mixture, products are worked out line by line.
    num_new = part_of(data.task, prompt).answer_width(*cell) + 1
    width = row_width(len(prompt) + num_new)
    config.check_row(width)
    size = bytes_of(experiment, width)
    if size > MAX_BYTES:
        raise ValueError(
            f"expression of {len(prompt)} tokens: the model would take "
            f"{size / 2**30:.0f} GiB; allowed: {MAX_BYTES // 2**30} GiB; give shorter "
            "numbers"
        )
    draft = data.task.true_answer(prompt)
    return Question(expression, prompt, draft, num_new, width)


def answers(
    experiment: Experiment,
    params: Any,
    expressions: Sequence[str],
    *,
    num_recurrences: int | None = None,
) -> list[Answer]:
    """The model's own answers to expressions of its task, such as `98+120`.

    Args:
        experiment: Model, task and how the device computes.
        params: Parameters, or their moving average.
        expressions: In the form that people write.
        num_recurrences: Of the model's block; None: as many as it was trained with.

    Raises:
        ValueError: As `read_question`.
    """
    questions = [read_question(experiment, text) for text in expressions]
    return answers_to(experiment, params, questions, num_recurrences=num_recurrences)


def answers_to(
    experiment: Experiment,
    params: Any,
    questions: Sequence[Question],
    *,
    num_recurrences: int | None = None,
) -> list[Answer]:
    """The model's own answers to questions that were read, in their order.

    Args:
        experiment: Model, task and how the device computes.
        params: Parameters, or their moving average.
        questions: From `read_question`.
        num_recurrences: Of the model's block; None: as many as it was trained with.
    """
    by_index: dict[int, Answer] = {}
    for batch in batches(experiment, questions):
        several = [questions[index] for index in batch]
        answered = answer_batch(experiment, params, several, num_recurrences)
        by_index.update(zip(batch, answered, strict=True))
    return [by_index[index] for index in range(len(questions))]


def batches(
    experiment: Experiment, questions: Sequence[Question]
) -> Iterator[list[int]]:
    """Indices of questions of one shape, as many as fit into a batch."""
    alike: dict[int, list[int]] = {}
    for index, question in enumerate(questions):
        alike.setdefault(question.width, []).append(index)
    for width, indices in alike.items():
        fitting = max(1, BATCH_BYTES // bytes_of(experiment, width))
        size = 2 ** (fitting.bit_length() - 1)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def answer_batch(
    experiment: Experiment,
    params: Any,
    questions: Sequence[Question],
    num_recurrences: int | None,
) -> list[Answer]:
    """Answers to questions of one shape, in one program."""
    task, width = experiment.data.task, questions[0].width
    # A power of two, for few shapes: rows that are missing are empty.
    num_rows = 2 ** (len(questions) - 1).bit_length()
    ids = np.full((num_rows, width), vocab.PAD, np.int32)
    for row, question in zip(ids, questions, strict=False):
        tokens = [*task.vocab.encode(question.prompt + question.draft), vocab.EOS]
        row[: len(tokens)] = tokens
    if num_recurrences is None:
        num_recurrences = experiment.model.num_recurrences
    read, depth = reader(experiment, width), jnp.array(num_recurrences)
    answered: dict[int, Answer] = {}
    while len(answered) < len(questions):
        written, probabilities = jax.device_get(read(params, jnp.array(ids), depth))
        for index in set(range(len(questions))) - set(answered):
            question = questions[index]
            first, num_new = len(question.prompt), question.num_new
            # What stands after a token is said at that token.
            said = slice(first - 1, first - 1 + num_new)
            tokens, draft = written[index, said], ids[index, first : first + num_new]
            (ends,) = np.nonzero(tokens == vocab.EOS)
            num_tokens = int(ends[0]) if ends.size else num_new
            num_read = min(num_tokens, num_new - 1)
            if np.array_equal(draft[:num_read], tokens[:num_read]):
                text = task.vocab.decode(tokens.tolist())
                answered[index] = Answer(
                    question.expression,
                    task.read_answer(question.prompt, text),
                    task.read_answer(question.prompt, question.draft),
                    text,
                    tuple(probabilities[index, said][: num_tokens + 1].tolist()),
                )
            draft[:] = tokens
    return [answered[index] for index in range(len(questions))]


@lru_cache(maxsize=64)
def reader(experiment: Experiment, width: int) -> Any:
    """A program: what a model would write after each token of rows, and how surely.

    Args:
        experiment: Model, scheme and how the device computes.
        width: Tokens of a row.
    """
    model = Transformer(experiment.model, experiment.execution)
    blocks, scheme = blocks_for(experiment, width), experiment.data.scheme
    is_looped = experiment.model.num_recurrences > 1

    @jax.jit
    def read(
        params: Any, ids: Int[Array, "b t"], depth: Int[Array, ""]
    ) -> tuple[Int[Array, "b t"], Float[Array, "b t"]]:
        # One program for all depths, where there are several.
        options = {"num_frozen": depth, "num_trained": 0} if is_looped else {}
        logits = forward(
            model,
            params,
            ids,
            scheme.position_ids(ids),
            num_segments=1,
            blocks=blocks,
            **options,
        ).astype(jnp.float32)
        highest = jnp.max(logits, axis=-1)
        probabilities = jnp.exp(highest - jax.nn.logsumexp(logits, axis=-1))
        return jnp.argmax(logits, axis=-1), probabilities

    return read


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
    questions = [
        read_question(experiment, text) for text in task.examples(rng, sorted(sizes))
    ]
    # Short ones have one width: a program more takes longer to compile than to run.
    short = [q.width for q in questions if q.width <= SHARED_WIDTH]
    questions = [
        q._replace(width=max(short)) if q.width <= SHARED_WIDTH else q
        for q in questions
    ]
    lines = []
    for answer in answers_to(experiment, params, questions):
        verdict = "right" if answer.is_right else f"wrong, it is {answer.truth}"
        lines.append(f"{answer.expression} = {answer.answer}  ({verdict})")
    return lines
