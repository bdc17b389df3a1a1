"""Multiplication on paper: every partial sum is written, and every step is local.

With a scratchpad (`task.scratchpad`) a digit of a line depends on a few digits of the
line above, of the first operand and of its own line, and on one digit of the second.
Position ids with two levels, place and line, put all of these side by side, and the
window of `abacus_add.py` on both levels hides the rest: what a query sees does not
change with the size of the numbers, as in addition. Exact match means every digit of
every line. Trained on at most 8 digits (`cpu`: 4), evaluated to 25 x 25, as in the
paper, and on longer numbers.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    return written_work(argument, "abacus_mul", "multiplication")


def written_work(argument: str, name: str, task: str) -> ConfigDict:
    """Ids with two levels, and a model twice as wide as the flagship.

    Args:
        argument: Of the config.
        name: Of the experiment.
        task: multiplication, or a mixture with it.
    """
    c = base.start(argument, name, task)
    c.task.scratchpad, c.data.position_ids = True, "lines"
    c.task.repeats = 0.1
    c.data.max_digits, c.data.width_multiple = 8, 16
    c.model.width, c.model.num_heads, c.model.mlp_width = 256, 8, 1024
    c.model.num_layers = 3
    c.optim.batch_size = c.optim.micro_batch_size = 1024
    c.train.steps = 2500
    c.eval.grid_digits, c.eval.diagonal = 25, (50, 100)
    c.eval.diagonal_samples = 100
    c.eval.set_lengths = (5, 15, 25)
    c.eval.buckets = (128, 320, 768, 2816, 10432)
    if c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.data.max_digits = 4
        c.train.steps = 1500
        c.eval.grid_digits, c.eval.grid_stride = 15, 5
        c.eval.diagonal, c.eval.diagonal_samples = (25,), 20
        c.eval.set_lengths = (4, 15)
        c.eval.buckets = (40, 128, 320, 768)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
