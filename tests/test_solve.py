"""Expressions as people give them: in arguments, files and pipes."""

import io
import os
import pathlib
import random
import subprocess
import sys

import pytest

from arith_jax import cli, solve
from arith_jax.evaluation import answers
from arith_jax.released import load_released
from arith_jax.tasks.make import make_task

ROOT = pathlib.Path(cli.__file__).parent.parent


def solved(capsys, *arguments):
    """Lines of answers, lines of errors and the exit code."""
    code = 0
    try:
        solve.main(arguments)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if not line.startswith("model: ")]
    return out.splitlines(), errors, code


def test_lines_of_a_file_are_answered_in_their_order(tmp_path, capsys):
    path = tmp_path / "sums.txt"
    path.write_bytes(b"999+1\r\n\n  12 + 34 =  \n12*3\n-5+3\n0000007+1\n1+" + b"9" * 60)
    out, errors, code = solved(capsys, f"--file={path}")
    assert out == ["1000", "46", "8", "1" + "0" * 60]
    assert code == 2
    assert [line.partition(" is not a sum")[0] for line in errors] == [
        f"error: {path}, line 4: expression '12*3'",
        f"error: {path}, line 5: expression '-5+3'",
    ]
    assert errors[1].endswith("numbers have no sign")


def test_lines_of_standard_input_are_answered(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1+2\n3+4")))
    assert solved(capsys, "-") == (["3", "7"], [], 0)


def test_answers_do_not_depend_on_the_other_lines(monkeypatch):
    monkeypatch.setattr(answers, "MAX_ROWS", 4)
    experiment, _, params = load_released()
    numbers = [3, 10**40 - 1, 77, 10**70, 5, 6, 7]
    texts = [f"{number}+1" for number in numbers]
    wanted = [str(number + 1) for number in numbers]
    assert answers.answers(experiment, params, texts) == wanted
    assert answers.answers(experiment, params, []) == []


@pytest.mark.slow
def test_numbers_longer_than_python_reads_are_answered(tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("1" * 4301 + "+1")
    assert solved(capsys, f"--file={path}") == (["1" * 4300 + "2"], [], 0)


@pytest.mark.parametrize("name", ["addition", "subtraction", "multiplication"])
def test_no_task_reads_or_writes_long_numbers_as_integers(name):
    task = make_task(name, {})
    prompt = task.prompt(f"{'1' * 5000}{task.operator}{'0' * 9}1")
    assert task.sizes(prompt) == (5000, 1)
    number = {"addition": "2", "subtraction": "0", "multiplication": "1"}[name]
    right = task.true_answer(prompt)
    assert task.read_answer(prompt, right) == "1" * 4999 + number
    assert len(task.examples(random.Random(0), [(5000, 1)])[1]) == 5002


def test_a_list_of_long_numbers_is_sorted():
    task = make_task("sorting", {})
    prompt = task.prompt(f"{'2' * 5000},00{'1' * 5000}")
    assert task.true_answer(prompt) == "B,A"
    assert task.read_answer(prompt, "B,A") == f"{'1' * 5000},{'2' * 5000}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1+2\n\x80\x81\n", "line 2: byte 1 is not UTF-8; allowed: a text file"),
        (b"1+2\n" + b"1" * 2**22 + b"+1\n", "line 2: longer than 4194304 bytes"),
    ],
)
def test_files_that_are_no_text_are_refused(content, message, tmp_path, capsys):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        solve.main([f"--file={path}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no expression, or a file as well; allowed: one or more"),
        (["1+2", "--file=x"], "no expression, or a file as well"),
        (["--file=/no/such"], "--file=/no/such cannot be read: No such file"),
        (["1+2", "--checkpoint=gs://x"], "--checkpoint='gs://x': must be a path of"),
        (["1+2", "--checkpoint="], "--checkpoint='': must be a path of"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve.main(arguments)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=f"checkpoint {tmp_path}/run cannot be read"):
        solve.main(["1+2", "--checkpoint=~/run"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\u0661+2", "'\u0661' is a digit, but not one of 0-9"),
        ("1+\u00b2", "'\u00b2' is a digit, but not one of 0-9"),
        ("-5+3", "numbers have no sign"),
        ("5+-3", "numbers have no sign"),
        ("1" * 10**5, "is not a sum; allowed"),
        ("1+1" + " " * 10**5 + "x", "is not a sum; allowed"),
        ("1+" + "1" * 10**5, "attention takes .* allowed: 4 GiB"),
    ],
)
def test_expressions_are_refused_in_one_short_line(text, message):
    experiment = load_released().experiment
    with pytest.raises(ValueError, match=message) as caught:
        answers.read_question(experiment, text)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a value"), 2),
        (OSError(28, "No space left on device"), 1),
        (FloatingPointError("the loss is not finite"), 1),
    ],
)
def test_exit_codes_tell_bad_input_from_a_failed_run(error, code, capsys):
    def main(arguments):
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.slow
def test_a_process_of_64_bits_trains_and_solves(tmp_path):
    for command in (
        ["launch.py", "--config=configs/abacus_add.py:smoke", f"--workdir={tmp_path}"],
        ["-m", "arith_jax.solve", "12+34"],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "46\n"
