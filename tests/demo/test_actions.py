"""What the page does, with released models and without a browser."""

import random
import shutil
import sys

import pytest

from arith_jax import cli
from arith_jax.demo import __main__ as demo
from arith_jax.demo import actions as module
from arith_jax.demo import models
from arith_jax.demo.actions import Actions, Request, telling_token
from arith_jax.demo.limits import PLUS
from arith_jax.released import released_folder


@pytest.fixture(scope="module")
def actions():
    offered = models.find_models([])
    made = {model.title: model for model in offered}
    return Actions(made, models.find_pair(offered, offered[0]), random.Random(0))


def ask(actions, **values):
    request = Request(next(iter(actions.models)), "999", PLUS, "1", 1)
    return actions.show(request._replace(**values))


def test_the_page_shows_an_answer_and_what_it_reads(actions):
    page, heat, solved = ask(actions)
    assert "Right, all 4 digits." in page
    assert "3 and 1 digits" in heat
    assert solved.sheet.answer.answer == "1000"
    assert telling_token(solved.sheet) == 2
    assert "place 3" in actions.read(solved, None)
    assert "the end of the answer" in actions.read(solved, 4)


@pytest.mark.parametrize("token", [5, -1, 0.5, "0", {"a": 1}, float("nan"), 10**99])
def test_clicks_on_nothing_are_refused(actions, token):
    assert 'class="note"' in actions.read(ask(actions)[2], token)


@pytest.mark.parametrize(
    "values",
    [
        {"a": "9" * 100_000},
        {"a": "<script>alert(1)</script>"},
        {"b": "\u0661"},
        {"b": "\0"},
        {"b": None},
        {"a": ["1"]},
        {"sign": ";"},
        {"sign": None},
        {"title": "../../etc/passwd"},
        {"title": {"a": 1}},
    ],
)
def test_hostile_fields_are_refused_politely(actions, values):
    page, heat, solved = ask(actions, **values)
    assert page.startswith('<p class="note" role="alert">')
    assert "<script" not in page
    assert len(page) < 1000
    assert (heat, solved) == ("", None)
    assert actions.read(solved, 0) == ""


def test_tables_that_end_too_early_are_said(actions):
    table = next(t for t, m in actions.models.items() if "table" in t)
    page, _, solved = ask(actions, title=table, a="9" * 900)
    assert "The model cannot do this: model.table_size=192 is too small" in page
    assert solved is None


def test_lengths_of_drawn_numbers(actions):
    a, b = actions.draw_numbers(30, 7.0)
    assert (len(a), len(b)) == (30, 7)
    with pytest.raises(ValueError, match="length of the second number"):
        actions.draw_numbers(30, 1000)


def test_the_comparison_grows(actions):
    tables = list(actions.compare(10))
    assert [table.count("<tr>") for table in tables] == [2, 3]
    assert tables[-1].count("4 of 4 right") == 4
    assert 'class="note"' in next(actions.compare(10**6))


def test_programs_are_dropped_once_there_are_many(actions, monkeypatch):
    monkeypatch.setattr(module, "MAX_SHAPES", 2)
    cleared = []
    monkeypatch.setattr(module.jax, "clear_caches", lambda: cleared.append(1))
    monkeypatch.setattr(actions, "shapes", set())
    for length in (2, 2, 80, 200, 200):
        ask(actions, a="5" * length)
    assert (len(cleared), len(actions.shapes)) == (1, 1)


def test_models_without_results_have_no_map(tmp_path):
    folder = tmp_path / "alone"
    shutil.copytree(released_folder(), folder)
    (folder / "result.json").unlink()
    (given, *_) = models.find_models([folder])
    assert given.title == f"Sums: relative bias, window ({folder})"
    assert given.cells == []
    (folder / "result.json").write_text('{"cells": 3')
    assert models.Model.in_folder(folder).cells == []


def test_the_pair_has_a_window_and_none():
    offered = models.find_models([])
    windowed = [model for model in offered if model.has_window]
    assert models.find_pair(windowed, None) == (windowed[0],)
    others = [model for model in windowed if model.folder.name == "abacus_table_add"]
    first, second = models.find_pair(windowed, *others)
    assert "model.table_size: 0 and 192" in models.what_differs(first, second)


def run(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["demo", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.run(demo.main)
    return end.value.code, capsys.readouterr().err


def test_without_gradio_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    code, said = run(capsys, monkeypatch)
    assert code == 2
    assert said.count("\n") == 1
    assert 'pip install "arith-jax[demo]"' in said


def test_bad_command_lines_end_in_one_line(capsys, monkeypatch):
    for arguments in (["extra"], ["--port=0"], ["--nonsense=1"], ["--port=http"]):
        code, said = run(capsys, monkeypatch, *arguments)
        assert (code, said.count("\n")) == (2, 1), arguments
