"""Lets a trained model compute.

python -m arith_jax.solve "98765432109876543210+12345" [--checkpoint=DIR]
python -m arith_jax.solve --file=FILE      an expression a line; - is standard input
some command | python -m arith_jax.solve -

Expressions are those of the run's task: 12+34, 12-34, 12x34 or 12*34, 001|00000, or a
list to sort, 30,4,17. Answers come in their order, one a line. A line that is no
expression is named on standard error, the others are answered, and the exit code is 2;
empty lines are skipped.
"""

import contextlib
import itertools
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags

from arith_jax import cli
from arith_jax.checks import one_line
from arith_jax.evaluation.answers import Question, answers, answers_to, read_question
from arith_jax.released import TrainedModel, load_trained, released_folder

# Yours if you trained one, else the released one.
TRAINED = pathlib.Path("runs/abacus_add")
# Lines that are read before they are answered, so that memory does not depend on the
# length of a file, and the bytes of a line.
NUM_LINES = 1024
MAX_LINE = 2**22


class Line(NamedTuple):
    """An expression and where it stands, for errors."""

    where: str
    text: str


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
    texts = {
        "checkpoint": "Workdir of a run, or a released folder; default: "
        f"{TRAINED} if it holds a finished run, else the released model.",
        "file": "An expression a line; - for standard input.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    # A number's sign is not the beginning of a flag.
    arguments = [re.sub(r"^-(?=\d)", " -", argument) for argument in arguments]
    expressions = cli.parse(values, arguments, __doc__ or "")
    if values.file is None and expressions == ["-"]:
        values.file, expressions = "-", []
    if (values.file is None) == (not expressions):
        raise ValueError(
            'no expression, or a file as well; allowed: one or more, as in "12+34", or '
            "--file=FILE, or - for lines of standard input"
        )
    if values.checkpoint is not None:
        folder = cli.local_path("checkpoint", values.checkpoint)
    else:
        is_trained = (TRAINED / "result.json").exists()
        folder = TRAINED if is_trained else released_folder()
    print(f"model: {folder}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        if values.file is None:
            lines: Iterable[Line] = (Line("", text.strip()) for text in expressions)
        else:
            name = "standard input" if values.file == "-" else values.file
            lines = read_lines(name, stack.enter_context(open_file(values.file)))
        num_bad = print_answers(load_trained(folder), lines)
    if num_bad:
        sys.exit(cli.BAD_INPUT)


def open_file(name: str) -> contextlib.AbstractContextManager[Any]:
    """Opens a file of expressions; `-` is standard input.

    Raises:
        ValueError: If it cannot be read.
    """
    if name == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    path = cli.local_path("file", name)
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"--file={name} cannot be read: {error.strerror}") from error


def read_lines(name: str, file: Any) -> Iterator[Line]:
    """The lines of a file that are not empty.

    Args:
        name: Of the file, for errors.
        file: In bytes.

    Raises:
        ValueError: If it is not a text, or a line is too long.
    """
    for number in itertools.count(1):
        line = file.readline(MAX_LINE + 1)
        if not line:
            return
        where = f"{name}, line {number}: "
        if len(line) > MAX_LINE:
            raise ValueError(f"{where}longer than {MAX_LINE} bytes; not an expression")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}byte {error.start + 1} is not UTF-8; allowed: a text file "
                "with an expression a line"
            ) from error
        if text.strip():
            yield Line(where, text.rstrip("\r\n"))


def print_answers(trained: TrainedModel, lines: Iterable[Line]) -> int:
    """Prints an answer to each line and returns how many are no expressions.

    Args:
        trained: The model.
        lines: Expressions; one that is none is named on standard error.
    """
    experiment, _, params = trained
    num_bad, lines = 0, iter(lines)
    while chunk := list(itertools.islice(lines, NUM_LINES)):
        questions: list[Question] = []
        for where, text in chunk:
            try:
                questions.append(read_question(experiment, text))
            except ValueError as error:
                num_bad += 1
                print(f"error: {one_line(f'{where}{error}')}", file=sys.stderr)
        for answer in answers_to(experiment, params, questions):
            print(answer, flush=True)
    return num_bad


if __name__ == "__main__":
    cli.run(main)
