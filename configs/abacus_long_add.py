"""The longest reach: the flagship trained ten times longer, asked for 100,000 digits.

Trained on at most 20 digits (`cpu`: 8, and three times longer). Attention in blocks
keeps memory and time linear in the row, which is 300,004 tokens there.

Cost: about two minutes of a GPU. What it reaches: the README's table.
"""

from ml_collections import ConfigDict

from configs import abacus_add


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = abacus_add.get_config(argument)
    c.name = "abacus_long_add"
    if c.preset != "smoke":
        c.eval.diagonal = (200, 1_000, 10_000, 100_000)
        c.eval.diagonal_samples = 100
    if c.preset == "gpu":
        c.train.steps *= 10
    elif c.preset == "cpu":
        c.train.steps *= 3
        c.eval.diagonal_samples = 4
    return c
