"""Pictures of grids."""

import numpy as np

from arith_jax.config.evaluation import EvalConfig
from arith_jax.evaluation import plots


def graded(a, b):
    """A cell of which one of a x b answers is right."""
    return {"a": a, "b": b, "correct": 1, "total": a * b}


def test_every_size_has_the_share_of_the_next_longer_one_that_was_graded():
    grid = EvalConfig(grid_digits=12, grid_stride=4).grid((3, 6))
    shares = plots.grid_shares([graded(*cell) for cell in grid], (3, 6))
    row, column = np.indices(shares.shape) + 1
    is_trained = (row <= 3) & (column <= 6)
    up = lambda size: -(-size // 4) * 4
    expected = np.where(is_trained, row * column, up(row) * up(column))
    np.testing.assert_allclose(shares, 1 / expected)


def test_cells_without_examples_have_no_share():
    cells = [graded(1, 1), {"a": 2, "b": 1, "correct": 0, "total": 0}, graded(2, 2)]
    shares = plots.grid_shares([*cells, graded(120, 120)], (1, 1))
    np.testing.assert_array_equal(np.isnan(shares), [[False, True], [True, False]])
    assert plots.grid_shares([], (3, 3)).shape == (0, 0)
