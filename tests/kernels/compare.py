"""How kernels are compared with the plain operations that they stand for."""

import jax
import numpy as np


def assert_close(actual, expected, tolerance=5e-5):
    """Compares trees of float32, each array by the size of its largest number.

    The tolerance is for sums of some hundred products in another order.
    """
    pairs = zip(*map(jax.tree.leaves, (actual, expected)), strict=True)
    for number, (x, y) in enumerate(pairs):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert x.shape == y.shape
        error, size = np.max(np.abs(x - y)), np.max(np.abs(y))
        assert error <= tolerance * size, f"array {number}: {error} of {size}"
