"""Attention, heat map and comparison as SVG."""

import base64
import io
import xml.etree.ElementTree as ET

import matplotlib.image
import numpy as np
import pytest

from arith_jax.demo import arcs, attention, growth, heatmap, models
from arith_jax.demo.attention import Reading, Token, places
from arith_jax.demo.growth import Attempt, Step
from arith_jax.evaluation import plots
from arith_jax.evaluation.answers import Answer
from arith_jax.released import load_released, released_folder


def parsed(page):
    """The page as XML, which also tells that every tag is closed."""
    return ET.fromstring(f"<div>{page.replace('<br>', '<br/>')}</div>")


def test_places_of_a_row():
    assert places("89+021=8") == [
        Token("8", 0, 1),
        Token("9", 0, 2),
        Token("+", 0, 0),
        Token("0", 1, 1),
        Token("2", 1, 2),
        Token("1", 1, 3),
        Token("=", 1, 0),
        Token("8", 2, 1),
    ]


def test_attention_is_that_of_the_symbol_before_and_inside_the_window():
    trained = load_released()
    a = "12345678901234567890"
    tokens = "08642" + "0" * 15
    read = attention.read(trained, f"{a}+{a}", tokens, 12, num_recurrences=1)
    assert read.chosen == Token("0", 2, 13)
    assert read.weights.shape == (2, 4, 20 + 1 + 20 + 1 + 12)
    np.testing.assert_allclose(read.weights.sum(axis=-1), 1, rtol=1e-4)
    # The query is the twelfth digit of the answer, with a window of two places.
    seen = {read.tokens[i].place for i in np.nonzero(read.weights.max(axis=(0, 1)))[0]}
    assert seen <= {0, 10, 11, 12, 13, 14}
    end = attention.read(trained, "1+1", "2", 1, num_recurrences=1)
    assert end.chosen.symbol == "."
    for index in (-1, 2):
        with pytest.raises(ValueError, match="there is no such symbol"):
            attention.read(trained, "1+1", "2", index, num_recurrences=1)


def test_attention_of_rows_that_are_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(attention, "MAX_WEIGHTS", 1000)
    with pytest.raises(ValueError, match="Give shorter numbers"):
        attention.read(load_released(), "1+1", "2", 0, num_recurrences=1)


def reading(depth=2):
    tokens = places("12345678+1=935")
    weights = np.full((depth, 4, len(tokens)), 1 / len(tokens))
    return Reading(tokens, Token("4", 2, 4), weights)


def test_arcs_are_drawn_for_near_symbols_and_the_rest_is_said():
    root = parsed(arcs.draw_reading(reading()))
    assert len(root.findall(".//svg")) == 2
    # Of 14 symbols those of the first number's eight places, and all others, are near.
    assert len(root.findall(".//svg")[0].findall("path")) == 4 * 14
    assert "0% of the attention" in "".join(root.itertext())
    assert "place 4" in root.find(".//h3").text


def test_deep_models_show_a_few_layers():
    root = parsed(arcs.draw_reading(reading(depth=16)))
    titles = [element.text for element in root.findall(".//figcaption/b")]
    assert titles == [f"layer {n} of 16" for n in (1, 6, 11, 16)]


def cells(lengths):
    return [
        {"a": a, "b": b, "correct": int(a <= b), "total": 1}
        for a in lengths
        for b in lengths
    ]


def test_the_map_has_a_marker_at_the_lengths():
    root = parsed(heatmap.draw_map(cells(range(1, 101)), (20, 20), (30, 10)))
    here = root.findall(".//circle")[-1]
    scale = heatmap.SIDE / 100
    assert float(here.get("cx")) == pytest.approx(heatmap.MARGIN + 9.5 * scale)
    assert float(here.get("cy")) == pytest.approx(8 + heatmap.SIDE - 29.5 * scale)
    assert "beyond the map" not in "".join(root.itertext())
    beyond = heatmap.draw_map(cells(range(1, 101)), (20, 20), (500, 10))
    assert "beyond the map" in beyond


def test_lengths_between_graded_ones_have_the_next_longer_one():
    shares = plots.grid_shares(cells([1, 10]), (1, 1))
    assert shares.shape == (10, 10)
    assert shares[0, 0] == shares[0, 9] == shares[9, 9] == 1
    assert shares[5, 0] == 0
    data = heatmap.picture(shares).partition(",")[2]
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))
    assert pixels.shape[:2] == (10, 10)


def test_without_graded_cells_there_is_a_note():
    assert "No heat map" in heatmap.draw_map([], (20, 20), (1, 1))


def test_the_comparison_shows_a_wrong_sum_if_there_is_one():
    model = models.Model.in_folder(released_folder())
    right = Answer("5+5", "10", "10", "01", (1.0, 1.0, 1.0))
    wrong = Answer("6+6", "2", "12", "2", (1.0, 1.0))
    steps = [Step(1, [Attempt([right, wrong]), Attempt((), "too <long>")])]
    page = growth.draw_growth([model, model], steps, 2)
    root = parsed(page)
    assert "1 of 2 right" in "".join(root.itertext())
    assert "too <long>" in "".join(root.itertext())
    paths = {p.get("class"): p.get("d") for p in root.findall(".//path")}
    assert paths["right"].startswith("M1.1")
    assert paths["wrong"].startswith("M0.1")
