"""Sums and differences in one model, with the window of `abacus_add.py`.

Negative results are ten's complements (`task.complement`), so that every digit of a
difference depends on digits of its own and lower places, as in a sum: a window cannot
see which operand is larger before the answer begins. Trained on at most 20 digits
(`cpu`: 8). Cost: about twice `abacus_add.py`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_addsub", "addsub")
    c.task.complement = True
    c.eval.grid_stride = 5
    if c.preset == "gpu":
        c.data.width_multiple = 64
        base.apply_flagship_size(c)
        c.train.steps = 2400
    elif c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.task.carry_chains = c.task.repeats = 0.1
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
