"""The flagship: addition with windowed relative Abacus attention.

Every digit attends to the digits at most two places away in any number of the row,
whatever their distance in tokens, and to the operators. What a query sees does not
change with the length of the numbers, so what is learned at 8 or 20 digits is what
runs at 1,000. Two layers.

Measured, seeds 0-7: 1.7 s of training on one H100 (`gpu`, at most 20 digits), no error
in any evaluation up to 100,000 digits; 27 s on 2 CPU cores (`cpu`, at most 8 digits),
no error in the 1,000-digit sums. Details: the README's table.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_add")
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    elif c.preset == "cpu":
        base.shrink_addition_to_cpu(c)
    elif c.preset == "gpu":
        c.data.width_multiple = 64
        base.size_of_flagship(c)
    return c
