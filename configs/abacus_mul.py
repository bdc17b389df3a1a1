"""Multiplication with soft Abacus attention, trained on at most 15 digits.

Every answer digit needs all pairs of digits whose places add up to its own, so nothing
is masked: the Abacus table tells absolute places, with an offset that trains the rows
of longer products too, and the relative bias tells differences. Evaluated to 25 x 25,
as in the paper. The sizes are a first guess.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_mul")
    set_model(c)
    c.data.task, c.data.max_digits = "multiplication", 15
    c.data.repeats = 0.05
    c.eval.grid_digits, c.eval.diagonal = 25, ()
    c.eval.set_lengths = (5, 15, 25)
    c.eval.buckets = (64, 128)
    if c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.data.max_digits = 3
        c.model.layers = 3
        c.optim.batch_size = c.optim.micro_batch_size = 256
        c.train.steps = 1500
        c.eval.grid_digits, c.eval.grid_stride = 8, 1
        c.eval.set_lengths = (3, 5)
        c.eval.buckets = (24, 64)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c


def set_model(c: ConfigDict) -> None:
    """A deeper model than for addition, without the mask."""
    c.data.width_multiple = 64
    # Products of 25-digit numbers have 50 digits; 30 are trained without offset.
    c.data.max_offset = 24
    c.model.positions = ("abacus", "relative_abacus")
    c.model.table_size = 128
    c.model.abacus_far = "bias"
    c.model.layers = 6
    c.model.mlp_width = 2048
    c.optim.batch_size = c.optim.micro_batch_size = 1024
    c.optim.ema_decay = 0.999
    c.train.steps, c.train.minutes = 0, 15.0
