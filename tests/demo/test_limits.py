"""What a browser may send, and what is said to the rest."""

import math
import random
import time

import pytest

from arith_jax.demo import limits
from arith_jax.demo.limits import read_number, read_whole, read_word


@pytest.mark.parametrize(
    ("text", "digits"),
    [("12", "12"), (" 7\n", "7"), ("000", "0"), ("0" * 9 + "5", "5")],
)
def test_numbers_are_read(text, digits):
    assert read_number(text, "first number") == digits


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("9" * 100_000, "has 100,000 characters; this page takes at most 1,000 digits"),
        ("9" * 1001, "has 1,001 characters"),
        ("", "is empty"),
        (" ", "is empty"),
        ("<script>alert(1)</script>", "has '<' in it"),
        ("\u0661\u0662", "has '\u0661' in it"),
        ("\uff11\uff12", "has '\uff11' in it"),
        ("1\x002", "has '\\x00' in it"),
        ("-5", "has '-' in it"),
        ("1.5", "has '.' in it"),
        ("$(id)", "has '$' in it"),
        ("1\u20282", "in it"),
        (None, "is not a text"),
        (12, "is not a text"),
        (["1"], "is not a text"),
        ({"path": "/etc/passwd"}, "is not a text"),
    ],
)
def test_what_is_no_number_is_refused_in_one_sentence(value, said):
    with pytest.raises(ValueError, match="first number") as caught:
        read_number(value, "first number")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_the_size_is_looked_at_before_anything_else():
    text = " " * 10_000_000
    start = time.perf_counter()
    with pytest.raises(ValueError, match="10,000,000 characters"):
        read_number(text, "first number")
    assert time.perf_counter() - start < 0.05


def test_whole_numbers_are_read():
    assert read_whole(20, "length", 1, 200) == 20
    assert read_whole(20.0, "length", 1, 200) == 20


@pytest.mark.parametrize(
    "value", [0, 201, 1.5, -3, math.nan, math.inf, True, "20", None, [20], 10**400, {}]
)
def test_what_is_no_length_is_refused(value):
    with pytest.raises(ValueError, match="must be a whole number from 1 to 200"):
        read_whole(value, "length", 1, 200)


@pytest.mark.parametrize("value", ["x", None, 3, ["+"], "<b>" * 10_000])
def test_what_is_not_offered_is_refused(value):
    with pytest.raises(ValueError, match=r"must be one of \+") as caught:
        read_word(value, "operator", ["+"])
    assert len(str(caught.value)) < 200


def test_drawn_numbers_have_the_length_asked_for():
    rng = random.Random(0)
    for length in (1, 2, 20, limits.MAX_DRAWN):
        drawn = {limits.draw_number(rng, length) for _ in range(50)}
        assert {len(number) for number in drawn} == {length}
        assert len(drawn) > 5
