"""Sums and differences in one model, with the window of `abacus_add.py`.

Negative results are ten's complements (`data.complement`), so that every digit of a
difference depends on digits of its own and lower places, as in a sum: a window cannot
see which operand is larger before the answer begins. Trained on at most 20 digits
(`cpu`: 8). Cost: about twice `abacus_add.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_addsub")
    c.data.task, c.data.complement = "addsub", True
    c.eval.grid_stride = 5
    if c.preset == "gpu":
        c.data.width_multiple = 64
        base.size_of_flagship(c)
        c.train.steps = 2400
    elif c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.data.carry_chains = c.data.repeats = 0.1
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
