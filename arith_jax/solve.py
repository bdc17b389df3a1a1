"""Lets trained models compute.

python -m arith_jax.solve "98765432109876543210+12345" [--checkpoint=DIR]
python -m arith_jax.solve --file=FILE      an expression a line; - is standard input
some command | python -m arith_jax.solve -

Expressions: 12+34, 34-12, 12x34 or 12*34, a list to sort, 30,4,17, and 001|00000. Each
is answered by the released model whose task it is, or by the one of --checkpoint.
Answers to arguments are printed one a line, what there is to say of them on standard
error. Answers to lines are JSON lines, in the order of the lines. A line that is no
expression is named on standard error, the others are answered, and the exit code is 2;
empty lines are skipped.
"""

import contextlib
import functools
import itertools
import json
import pathlib
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import rich.console
import rich.progress
from absl import flags

from arith_jax import cli
from arith_jax.checks import one_line
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.answers import Answer, Question, answers_to, read_question
from arith_jax.released import (
    ANSWERING,
    folder_for,
    load_trained,
    read_experiment,
    released_folders,
)

# Yours if you trained one, else the released one.
TRAINED = pathlib.Path("runs/abacus_add")
# Lines that are read before they are answered, so that memory does not depend on the
# length of a file, and the bytes of a line.
NUM_LINES = 1024
MAX_LINE = 2**22

# By the folder of the model, the preferred ones first.
Experiments = Mapping[pathlib.Path, Experiment]

load = functools.lru_cache(maxsize=len(ANSWERING))(load_trained)


class Line(NamedTuple):
    """An expression and where it stands, for errors."""

    where: str
    text: str


class Asked(NamedTuple):
    """A question and the folder of the model that answers it."""

    folder: pathlib.Path
    question: Question


def main(arguments: Sequence[str]) -> None:
    """Prints the model's answer to each expression.

    Raises:
        ValueError: If there is no expression, or one is of no model's task.
    """
    cli.keep_compiled()
    values = cli.new_flags()
    texts = {
        "checkpoint": "Workdir of a run, or a released folder; default: for sums "
        f"{TRAINED} if it holds a finished run, else the released model of the task.",
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
    folders = model_folders(values.checkpoint)
    experiments = {folder: read_experiment(folder) for folder in folders}
    if values.file is None:
        num_bad = answer_arguments(experiments, expressions)
    else:
        num_bad = answer_file(experiments, values.file)
    if num_bad:
        sys.exit(cli.BAD_INPUT)


def model_folders(checkpoint: str | None) -> list[pathlib.Path]:
    """Where the models are that may answer, the preferred ones first.

    Args:
        checkpoint: What the command line names, or None.

    Raises:
        ValueError: If it is no path of this machine.
    """
    if checkpoint is not None:
        return [cli.local_path("checkpoint", checkpoint)]
    there = released_folders()
    trained = [TRAINED] if (TRAINED / "result.json").exists() else []
    return trained + [there[name] for name in ANSWERING if name in there]


def answer_arguments(experiments: Experiments, texts: Sequence[str]) -> int:
    """Prints an answer a line, and what there is to say of them on standard error.

    Returns:
        How many texts are no expressions.
    """
    asked, num_bad = read_lines_of(
        experiments, [Line("", text.strip()) for text in texts]
    )
    for folder in dict.fromkeys(folder for folder, _ in asked):
        print(f"model: {folder}", file=sys.stderr)
    started = time.perf_counter()
    answered = answer(asked)
    seconds = time.perf_counter() - started
    for one in answered:
        print(one.answer, flush=True)
        print(judged(one), file=sys.stderr)
    if answered:
        print(f"{seconds:.2f} s", file=sys.stderr)
    return num_bad


def answer_file(experiments: Experiments, name: str) -> int:
    """Prints a JSON line for each line of a file; returns how many are no expressions.

    Args:
        experiments: Of the models, by folder.
        name: Of the file; `-` is standard input.

    Raises:
        ValueError: If it cannot be read, or is not a text.
    """
    num_answers = num_right = num_bad = 0
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        file, size = stack.enter_context(open_file(name))
        # A person who types waits for the answer to each line.
        num_lines = 1 if file.isatty() else NUM_LINES
        progress = stack.enter_context(progress_bar())
        bar = progress.add_task("", total=size, count=0)
        lines = read_lines("standard input" if name == "-" else name, file)
        while chunk := list(itertools.islice(lines, num_lines)):
            asked, bad = read_lines_of(experiments, chunk)
            num_bad += bad
            for (folder, _), one in zip(asked, answer(asked), strict=True):
                num_answers += 1
                num_right += one.is_right
                print(json.dumps(content(one, folder)), flush=num_lines == 1)
            sys.stdout.flush()
            read = sum(len(line.text.encode()) + 1 for line in chunk)
            progress.update(bar, advance=read, count=num_answers)
    seconds = time.perf_counter() - started
    print(
        f"{num_answers:,} answers, {num_right:,} right, {seconds:.2f} s",
        file=sys.stderr,
    )
    return num_bad


def progress_bar() -> rich.progress.Progress:
    """A bar of the bytes that were read, on standard error, if that is a terminal."""
    console = rich.console.Console(stderr=True)
    return rich.progress.Progress(
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.fields[count]:,} answers"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def judged(one: Answer) -> str:
    """What there is to say of an answer, in a line."""
    place, token, probability = one.least_certain
    if not token:
        where = "that it ends there"
    elif one.tokens[::-1] == one.answer:
        where = f"digit {place} from the right, {token}"
    else:
        where = f"token {place} of what it wrote, {token!r}"
    verdict = "right" if one.is_right else f"wrong, it is {one.truth}"
    return f"{verdict}; least certain: {where}, {probability:.4%}"


def content(one: Answer, folder: pathlib.Path) -> dict[str, Any]:
    """An answer as a line of JSON."""
    place, token, probability = one.least_certain
    least_certain = {"place": place, "token": token, "probability": probability}
    return {
        "expression": one.expression,
        "answer": one.answer,
        "right": one.is_right,
        "truth": one.truth,
        "least_certain": least_certain,
        "model": folder.name,
    }


@contextlib.contextmanager
def open_file(name: str) -> Iterator[tuple[Any, int | None]]:
    """Opens a file of expressions, in bytes; gives its size, too, if it has one.

    Raises:
        ValueError: If it cannot be read.
    """
    if name == "-":
        yield sys.stdin.buffer, None
        return
    path = cli.local_path("file", name)
    try:
        file = path.open("rb")
    except OSError as error:
        raise ValueError(f"--file={name} cannot be read: {error.strerror}") from error
    with file:
        yield file, path.stat().st_size or None


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


def read_lines_of(
    experiments: Experiments, lines: Iterable[Line]
) -> tuple[list[Asked], int]:
    """Questions to models, and how many lines are none: those are named.

    Args:
        experiments: Of the models, by folder.
        lines: Expressions.
    """
    asked, num_bad = [], 0
    for where, text in lines:
        try:
            folder = folder_for(experiments, text)
            asked.append(Asked(folder, read_question(experiments[folder], text)))
        except ValueError as error:
            num_bad += 1
            print(f"error: {one_line(f'{where}{error}')}", file=sys.stderr)
    return asked, num_bad


def answer(asked: Sequence[Asked]) -> list[Answer]:
    """The answers, in the order of the questions.

    Raises:
        ValueError: If a model's checkpoint cannot be read.
    """
    answered: dict[int, Answer] = {}
    for folder in dict.fromkeys(folder for folder, _ in asked):
        experiment, _, params = load(folder)
        indices = [index for index, (other, _) in enumerate(asked) if other == folder]
        questions = [asked[index].question for index in indices]
        given = answers_to(experiment, params, questions)
        answered.update(zip(indices, given, strict=True))
    return [answered[index] for index in range(len(asked))]


if __name__ == "__main__":
    cli.run(main)
