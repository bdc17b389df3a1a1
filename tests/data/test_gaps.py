"""Gaps between the rows of a table, for places of training examples."""

import dataclasses

import jax
import numpy as np
import pytest

from arith_jax.config.data import DataConfig
from arith_jax.config.experiment import Experiment
from arith_jax.data.batch import training_batch
from arith_jax.tasks.sorting import Sorting
from configs import abacus_sort

LISTS = DataConfig(task=Sorting(), max_digits=6, max_numbers=4, max_offset=5, max_gap=3)
SUMS = DataConfig(max_digits=6, max_offset=5, max_gap=3, problems_per_row=2)
batch_of = jax.jit(training_batch, static_argnums=(0, 3))


def rows_of(config):
    """For each example, the row of the table of each place that it has."""
    plain = dataclasses.replace(config, max_gap=0)
    batch, without = (batch_of(c, jax.random.key(0), 0, 512) for c in (config, plain))
    rows = []
    for row, segment in enumerate(np.asarray(batch.segment)):
        for number in range(batch.num_segments):
            here = segment == number
            places = np.asarray(without.positions)[row, here]
            positions = np.asarray(batch.positions)[row, here]
            pairs = {*zip(places.tolist(), positions.tolist(), strict=True)}
            # A place has one row, in all numbers of an example; symbols have none.
            assert len(pairs) == len(set(places.tolist()))
            assert (0, 0) in pairs
            rows.append([at for _, at in sorted(pairs - {(0, 0)})])
    return rows


@pytest.mark.parametrize("config", [LISTS, SUMS], ids=["lists", "packed sums"])
def test_places_keep_their_order_and_skip_no_more_than_they_may(config):
    rows = rows_of(config)
    steps = [np.diff(row) for row in rows]
    assert {int(step) for step in np.concatenate(steps)} == {1, 2, 3, 4}
    # A quarter of the examples has no gaps, as in evaluation; some have large ones.
    long = [step for step in steps if len(step) >= 3]
    assert 0.2 < np.mean([(step == 1).all() for step in long]) < 0.4
    assert any((step > 2).all() for step in long)
    first = {row[0] for row in rows}
    assert first == set(range(1, 1 + config.max_offset + config.max_gap + 1))
    assert max(row[-1] for row in rows) <= config.max_shift + 7


def test_without_gaps_ids_are_as_they_were():
    key = jax.random.key(1)
    plain = dataclasses.replace(LISTS, max_gap=0)
    places = np.asarray(batch_of(plain, key, 3, 64).positions)
    gaps = np.asarray(batch_of(LISTS, key, 3, 64).positions)
    assert (np.diff(np.unique(places[0])[1:]) == 1).all()
    # Nothing else depends on them.
    for name in ("ids", "labels", "mask"):
        one, two = (getattr(batch_of(c, key, 3, 64), name) for c in (plain, LISTS))
        np.testing.assert_array_equal(one, two)
    assert (gaps >= places).all()


def test_the_table_has_a_row_for_every_gap():
    config = abacus_sort.get_config("answer=keys,smoke")
    config.data.max_digits, config.data.max_offset, config.data.max_gap = 4, 10, 3
    config.eval.set_lengths = ()
    assert Experiment.from_dict(config).model.table_size == 4 + 10 + 4 * 3 + 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.positions", ("relative_abacus",), r"model.positions=\('relative_abac"),
        ("model.abacus_far", "mask", r"max_gap=3 with model.abacus_far='mask', which"),
        ("train.max_far_copies", 2.0, r"with train.max_far_copies=2.0, which reads"),
        ("data.position_ids", "items", r"does not fit"),
        ("data.max_gap", -1, r"data.max_gap=-1: must be at least 0"),
    ],
)
def test_gaps_are_refused_where_places_are_compared(key, value, message):
    config = abacus_sort.get_config("answer=keys,smoke")
    section, name = key.split(".")
    config[section][name] = value
    with pytest.raises(ValueError, match=message):
        Experiment.from_dict(config)
