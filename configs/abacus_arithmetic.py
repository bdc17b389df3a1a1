"""One model for sums, differences and products, each a third of training.

The model of `abacus_mul.py`, whose position ids have lines for products and places only
for sums and differences; negative differences as in `abacus_addsub.py`.
"""

from ml_collections import ConfigDict

from configs import abacus_mul


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = abacus_mul.written_work(argument, "abacus_arithmetic", "arithmetic")
    c.task.complement = True
    if c.preset != "smoke":
        c.task.carry_chains = 0.1
    return c
