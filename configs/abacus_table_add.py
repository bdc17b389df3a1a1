"""Addition with the paper's learned Abacus table, inside the window of `abacus_add.py`.

Positions come from the table alone: no relative bias. Offsets are drawn per example, up
to 140, so that training visits every row that 120-digit sums use. Without the window
(`--config.model.abacus_far=bias`) the same budget reaches 100% at 20 digits and nothing
at 100: docs/length_generalization.md.

Cost: about 5 s of training on one H100 (`gpu`). What it reaches: the README's table.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_table_add")
    c.data.max_offset = 140
    c.model.positions = ("abacus",)
    c.model.table_size = 192
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    elif c.preset == "cpu":
        base.shrink_addition_to_cpu(c)
        c.optim.batch_size = c.optim.micro_batch_size = 256
        c.train.steps = 1000
    elif c.preset == "gpu":
        c.data.width_multiple = 64
        base.apply_flagship_size(c)
        c.train.steps = 2000
    if c.preset != "smoke":
        c.eval.diagonal = (120,)
    return c
