"""The paper as HTML, without a browser or a model."""

import re

import pytest

from arith_jax.demo.limits import MINUS, PLUS, TIMES
from arith_jax.demo.paper import (
    Sheet,
    answer_tokens,
    confidence_class,
    draw_note,
    draw_sheet,
    percent,
)
from arith_jax.evaluation.answers import Answer


def sheet(a, b, answer, truth, *, sign=PLUS, tokens=None, sure=None, trained=3):
    tokens = answer[::-1] if tokens is None else tokens
    sure = (1.0,) * (len(tokens) + 1) if sure is None else sure
    written = Answer(f"{a}+{b}", answer, truth, tokens, sure)
    return Sheet(a, b, sign, written, (trained, trained))


def buttons(page):
    return re.findall(r'<button[^>]*class="([^"]*)"[^>]*>([^<]*)</button>', page)


def test_digits_come_from_the_right_with_their_confidence():
    page = draw_sheet(sheet("95", "7", "102", "102", sure=(1.0, 0.995, 0.6, 0.2)))
    assert buttons(page) == [
        ("answer sure0 right", "2"),
        ("answer sure1 right", "0"),
        ("answer sure3 right", "1"),
        ("answer sure4 right end", "end"),
    ]
    assert "Right, all 3 digits." in page
    assert "No longer than" in page
    assert re.findall(r'data-token="(\d)"', page) == ["0", "1", "2", "3"]


def test_wrong_missing_and_surplus_digits_are_marked_with_the_right_ones():
    page = draw_sheet(sheet("95", "7", "12", "102"))
    assert "Wrong in 2 of 3 places." in page
    assert "answer sure0 wrong" in page
    # The model ended where the third digit should be.
    assert buttons(page)[-1] == ("answer sure0 wrong end", "end")
    assert re.findall(r'<span class="truth">([^<]*)</span>', page) == ["", "0", "1", ""]
    page = draw_sheet(sheet("1", "1", "52", "2"))
    assert "Wrong in 1 of 2 places." in page
    assert f'<span class="truth">{TIMES}</span>' in page


def test_an_answer_without_an_end_has_none():
    page = draw_sheet(sheet("1", "1", "222", "2", sure=(1.0, 1.0, 1.0)))
    assert [symbol for _, symbol in buttons(page)] == ["2", "2", "2"]


@pytest.mark.parametrize(
    ("a", "b", "sign", "carries"),
    [
        ("95", "7", PLUS, [0, 1, 1]),
        ("999", "1", PLUS, [0, 1, 1, 1]),
        ("12", "34", PLUS, [0, 0, 0]),
        ("1000", "1", MINUS, [0, 1, 1, 1, 0]),
        ("99", "99", TIMES, []),
    ],
)
def test_carries_and_borrows(a, b, sign, carries):
    assert sheet(a, b, "0", "0", sign=sign).carries() == [bool(c) for c in carries]


def test_places_beyond_training_are_marked():
    page = draw_sheet(sheet("12345", "1", "12346", "12346", trained=3))
    columns = re.findall(r'class="(column(?: [^"]*)?)"', page)
    assert ["beyond" in c for c in columns] == [False] * 3 + [True] * 3
    assert [i for i, c in enumerate(columns) if "first" in c] == [3]
    assert "beyond the 3 places of training" in page
    assert "beyond" not in draw_sheet(sheet("123", "999", "1122", "1122", trained=3))


def test_answers_are_read_off_work_on_paper():
    # 12 x 34: lines 840 and 040 make 408.
    assert answer_tokens("840+040") == [0, 4, 5, 6]
    assert answer_tokens("51-") == [0, 1, 2]
    assert answer_tokens("A1B2") == [1, 3]
    assert answer_tokens("") == []


def test_whatever_a_model_writes_is_escaped():
    text = '<img src=x onerror="alert(1)">'
    page = draw_sheet(sheet("1", "1", text, "2"))
    assert "<img" not in page
    assert 'onerror="' not in page
    assert "<b>" not in draw_note("<b>bold</b>")


def test_a_thousand_digits_stay_small():
    nines = "9" * 1000
    page = draw_sheet(sheet(nines, "1", "1" + "0" * 1000, "1" + "0" * 1000))
    assert len(page) < 600_000
    assert 'class="paper small' in page


def test_probabilities_are_never_rounded_up():
    assert percent(1.0) == "100%"
    assert percent(0.99999) == "over 99.99%"
    assert percent(0.99989) == "99.98%"
    assert percent(0.0) == "0.00%"
    assert confidence_class(None) == "unknown"
    assert confidence_class(float("nan")) == "unknown"
