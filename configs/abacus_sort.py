"""Sorting with soft Abacus attention, trained on 10 numbers of 10 digits at most.

Comparing two numbers needs their lengths and highest differing digits, so nothing is
masked among them: the relative bias tells which digits stand higher, another the last
few tokens apart, and the length factor keeps attention sharp in longer lists. Every key
of the answer is a line of its own, which hides the keys before the last: what comes
next must be looked up, not counted. A share of lists has numbers of one length, which
uniform lists decide by chance. Evaluated to 30 x 30, as in the paper. Not tuned yet:
docs/experiments.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_sort")
    c.data.task, c.data.max_digits, c.data.max_numbers = "sorting", 10, 10
    c.data.hard_lists = 0.3
    c.data.width_multiple = 64
    c.model.vocab_size = 118
    c.data.position_ids, c.model.position_levels = "lines", 2
    c.model.positions = ("relative_abacus", "relative")
    c.model.abacus_far = "bias"
    c.model.length_scale = True
    c.model.layers = 6
    c.optim.batch_size = c.optim.micro_batch_size = 512
    c.optim.ema_decay = 0.999
    c.train.steps, c.train.minutes = 0, 15.0
    c.eval.grid_digits, c.eval.diagonal = 30, ()
    c.eval.set_lengths = (10, 20, 30)
    c.eval.buckets = (192, 384, 704, 1088)
    if c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.data.max_digits = c.data.max_numbers = 4
        c.model.layers = 3
        c.train.steps = 1500
        c.eval.grid_digits, c.eval.grid_stride = 8, 2
        c.eval.set_lengths = (4, 8)
        c.eval.buckets = (40, 80, 128)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
