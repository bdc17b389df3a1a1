"""Sums of many numbers, as running sums: trained on 10 numbers of 10 digits at most.

With a scratchpad (`task.scratchpad`) every line is the line above plus the number
beside it. Position ids of two levels, place and line, put these side by side, and the
windows on both hide the rest, so that neither more numbers nor longer ones change what
a query sees. Exact match means every digit of every line. Evaluated to 30 x 30, as in
Cho et al. 2024b, and to 100 numbers of 100 digits.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_multi_add", "multi_addition")
    c.task.scratchpad, c.data.position_ids = True, "terms"
    c.task.hard_lists = 0.3
    c.data.max_digits, c.data.max_numbers = 10, 10
    c.data.width_multiple = 16
    c.model.width, c.model.num_heads, c.model.mlp_width = 128, 4, 512
    c.model.num_layers = 3
    # Enough for a carry; and numbers of three digits show all that there is to see.
    c.model.abacus_window = 1
    c.optim.batch_size = c.optim.micro_batch_size = 256
    c.train.steps = 2000
    c.eval.grid_digits, c.eval.diagonal = 30, (50, 100)
    c.eval.diagonal_samples = 100
    c.eval.set_lengths = (10, 30)
    c.eval.buckets = (256, 640, 1280, 2048, 5376, 20992)
    if c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.data.max_digits = c.data.max_numbers = 4
        c.train.steps = 1200
        c.eval.grid_digits, c.eval.grid_stride = 12, 4
        c.eval.diagonal, c.eval.diagonal_samples = (20, 40), 20
        c.eval.set_lengths = (4, 12)
        c.eval.buckets = (56, 176, 416, 960, 3584)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
