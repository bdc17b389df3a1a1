import math

import pytest

from arith_jax.evaluation import summary


def test_interval_is_student_s():
    # By hand: mean 0.6, standard deviation 0.1; t(0.975; 2 degrees of freedom) is
    # 4.303 in any table, so the margin is 4.303 x 0.1 / sqrt(3) = 0.2484.
    low, high = summary.mean_interval([0.5, 0.7, 0.6])
    assert (low, high) == pytest.approx((0.3516, 0.8484), abs=1e-4)
    # t(0.975; 4) is 2.776; deviations -2, -1, 0, 1, 2 hundredths.
    values = [0.48, 0.49, 0.5, 0.51, 0.52]
    margin = 2.776 * 0.01 * math.sqrt(2.5 / 5)
    expected = (0.5 - margin, 0.5 + margin)
    assert summary.mean_interval(values) == pytest.approx(expected, abs=1e-5)


def test_interval_stays_within_what_a_share_can_be():
    low, high = summary.mean_interval([0.9, 1.0, 1.0])
    assert (low, high) == (pytest.approx(0.9667 - 0.1434, abs=1e-4), 1.0)
    assert summary.mean_interval([0.0, 0.1])[0] == 0
    assert summary.mean_interval([1.0, 1.0, 1.0]) == [1, 1]


def counts(correct, total=10):
    return {"correct": correct, "total": total}


def result(correct):
    """A result in which everything was right so many times of ten."""
    cells = [
        {"a": a, "b": b, **counts(correct, total)}
        for a, b, total in ((2, 2, 10), (2, 40, 10), (50, 50, 0), (200, 200, 10))
    ]
    return {
        "exact_match": {"id": counts(correct)},
        "cells": cells,
        "sets": {"chains": [{**cells[0]}, {**cells[0], "a": 4, "b": 4}]},
        "parts": {"addition": {"exact_match": {"ood": counts(correct)}, "cells": []}},
        "first_answer": {"id": counts(correct)},
    }


def test_counts_of_all_seeds_become_one_spread():
    made = summary.over_seeds([result(5), result(7), result(6), result(9)])
    expected = summary.spread([0.5, 0.7, 0.6, 0.9])
    assert expected["values"] == [0.5, 0.7, 0.6, 0.9]
    assert expected["median"] == pytest.approx(0.65)
    assert expected["mean"] == pytest.approx(0.675)
    assert (expected["min"], expected["max"]) == (0.5, 0.9)
    assert made == {
        "grid_limit": 40,
        "exact_match": {"id": expected},
        "parts": {"addition": {"ood": expected}},
        "first_answer": {"id": expected},
        "diagonal": [{"a": 2, "b": 2} | expected, {"a": 200, "b": 200} | expected],
        "sets": {"chains": {"first": 2, "last": 4} | expected},
    }
