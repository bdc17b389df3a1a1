"""Addition with the paper's learned Abacus table under our optimizer and norms.

Offsets are drawn per example, up to 100, so every row of the table that 100-digit sums
use is trained. Key noise forces the attention margins that longer rows need.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_table_add")
    c.data.max_offset = 100
    c.data.width_multiple = 64
    c.model.positions = ("abacus",)
    c.model.table_size = 128
    c.model.abacus_far = "bias"
    c.model.length_scale = True
    c.model.key_noise = 3.0
    c.optim.ema_decay = 0.999
    c.train.steps = 1200
    c.eval.diagonal = (120,)
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    elif c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.model.length_scale, c.model.key_noise = False, 0.0
    return c
