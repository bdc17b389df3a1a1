"""Bitwise OR with the window of `abacus_add.py`, trained on vectors up to 20 digits.

An answer digit depends on the two digits of its place and on whether a vector goes on,
which the window shows at any length. Vectors are random; the paper's have a single one
between them (`configs/paper/bitwise_or.py`), and a model of those gets no others right.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_or", "bitwise_or")
    c.model.width, c.model.num_heads, c.model.mlp_width = 128, 4, 512
    c.optim.batch_size = c.optim.micro_batch_size = 512
    c.train.steps = 1200
    c.task.random_bits = True
    if c.preset == "gpu":
        c.data.width_multiple = 64
    elif c.preset == "cpu":
        base.shrink_to_cpu(c)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
