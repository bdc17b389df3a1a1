"""Expressions as people give them: in arguments, files and pipes."""

import io
import json
import os
import pathlib
import random
import re
import subprocess
import sys

import pytest

from arith_jax import cli, solve
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation import answers
from arith_jax.evaluation.answers import Answer
from arith_jax.released import folder_for, load_released
from arith_jax.tasks.make import make_task
from arith_jax.training.record import write_json
from configs import abacus_add, abacus_arithmetic, abacus_sort

ROOT = pathlib.Path(cli.__file__).parent.parent


def solved(capsys, *arguments):
    """Lines of answers, lines of errors and the exit code."""
    code = 0
    try:
        solve.main(arguments)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    return out.splitlines(), errors, code


def answers_in(lines):
    return [json.loads(line)["answer"] for line in lines]


def test_lines_of_a_file_are_answered_in_their_order(tmp_path, capsys):
    path = tmp_path / "sums.txt"
    path.write_bytes(b"999+1\r\n\n  12 + 34 =  \n12^3\n-5+3\n0000007+1\n1+" + b"9" * 60)
    out, errors, code = solved(capsys, f"--file={path}")
    assert answers_in(out) == ["1000", "46", "8", "1" + "0" * 60]
    assert code == 2
    assert [line.partition(" is ")[0] for line in errors] == [
        f"error: {path}, line 4: expression '12^3'",
        f"error: {path}, line 5: expression '-5+3'",
    ]
    assert errors[1].endswith("numbers have no sign")


def test_lines_of_standard_input_are_answered(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1+2\n3+4")))
    out, errors, code = solved(capsys, "-")
    assert (answers_in(out), errors, code) == (["3", "7"], [], 0)
    line = json.loads(out[0])
    assert line.pop("least_certain").keys() == {"place", "token", "probability"}
    assert line == {
        "expression": "1+2",
        "answer": "3",
        "right": True,
        "truth": "3",
        "model": "abacus_add",
    }


def test_what_there_is_to_say_of_an_answer(capsys):
    solve.main(["999+1", "2+2"])
    out, err = capsys.readouterr()
    assert out == "1000\n4\n"
    model, first, second, seconds = err.splitlines()
    assert re.fullmatch("model: .*abacus_add", model)
    assert re.fullmatch(
        r"right; least certain: (digit [1-4] from the right, [01]|that it ends there), "
        r"[0-9.]+%",
        first,
    )
    assert second.startswith("right; ")
    assert re.fullmatch(r"[0-9.]+ s", seconds)
    wrong = Answer("1x12", "13", "12", "1=13", (0.9, 0.8, 0.5, 0.9, 0.9))
    assert solve.judged(wrong) == (
        "wrong, it is 12; least certain: token 3 of what it wrote, '1', 50.0000%"
    )


def test_a_person_who_types_is_answered_at_once(capsys, monkeypatch):
    class Terminal(io.BytesIO):
        def isatty(self):
            return True

        def readline(self, size=-1):
            # The line before has been answered when this one is asked for.
            answered.append(len(capsys.readouterr().out.splitlines()))
            return super().readline(size)

    answered = []
    terminal = io.TextIOWrapper(Terminal(b"1+2\n3+4\n"))
    monkeypatch.setattr(sys, "stdin", terminal)
    solve.main(["-"])
    assert answered == [0, 1, 1]


def test_each_expression_goes_to_the_model_that_knows_its_task():
    experiments = {}
    for module in (abacus_sort, abacus_arithmetic, abacus_add):
        experiment = Experiment.from_dict(module.get_config("smoke"))
        experiments[pathlib.Path(experiment.name)] = experiment
    names = ["abacus_arithmetic", "abacus_arithmetic", "abacus_sort"]
    for text, name in zip(["1+2", "3*4", "3,1"], names, strict=True):
        assert folder_for(experiments, text).name == name
    assert folder_for(dict(reversed(experiments.items())), "1+2").name == "abacus_add"
    with pytest.raises(ValueError, match=r"is of no task of these .*: as .*30,4.* or "):
        folder_for(experiments, "1/2")
    with pytest.raises(ValueError, match="numbers have no sign"):
        folder_for(experiments, "-5+3")
    with pytest.raises(ValueError, match="is not a sum"):
        folder_for(dict([*experiments.items()][-1:]), "3*4")


def test_the_released_models_answer_what_they_are_for(capsys):
    given = ["98+120", "7-19", "12*34", "1+22+333", "100/7", "31,4,15", "0110|1"]
    out, errors, code = solved(capsys, *given)
    wanted = ["218", "-12", "408", "356", "14 remainder 2", "4,15,31", "1110"]
    assert (out, errors, code) == (wanted, [], 0)


def test_a_run_of_yours_answers_before_the_released_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    released = solve.model_folders(None)
    assert released[0].name == "abacus_add"
    (tmp_path / solve.TRAINED).mkdir(parents=True)
    write_json(tmp_path / solve.TRAINED / "result.json", {})
    assert solve.model_folders(None) == [solve.TRAINED, *released]
    assert solve.model_folders("x") == [pathlib.Path("x")]
    with pytest.raises(ValueError, match="checkpoint x cannot be read"):
        solve.main(["1+2", "--checkpoint=x"])


def test_answers_do_not_depend_on_the_other_lines(monkeypatch):
    monkeypatch.setattr(answers, "BATCH_BYTES", 2**22)
    experiment, _, params = load_released()
    numbers = [3, 10**40 - 1, 77, 10**70, 5, 6, 7]
    texts = [f"{number}+1" for number in numbers]
    wanted = [str(number + 1) for number in numbers]
    given = answers.answers(experiment, params, texts)
    assert [answer.answer for answer in given] == wanted
    assert answers.answers(experiment, params, []) == []


@pytest.mark.slow
def test_numbers_longer_than_python_reads_are_answered(tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("1" * 4301 + "+1")
    out, errors, code = solved(capsys, f"--file={path}")
    assert (answers_in(out), errors, code) == (["1" * 4300 + "2"], [], 0)


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
        ("1+" + "1" * 10**7, "the model would take .* GiB; allowed: 8 GiB"),
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
