"""Addition with the paper's learned Abacus table, inside a window or without one.

Positions come from the table alone: no relative bias. Offsets are drawn per example, up
to 140, so that training visits every row that 120-digit sums use.

    python launch.py --config=configs/abacus_table_add.py
    python launch.py --config=configs/abacus_table_add.py:far=bias,gpu

`far` is what becomes of digits beyond the window: they are hidden (`mask`), or nothing
is (`bias`). Then training shows what a longer sum would add: the digits of the other
sums in a row are seen, whose rows of the table are further apart than any of one sum's.
It is not learned in minutes on a CPU: docs/length_generalization.md.

Cost: about 5 s of training on one H100 (`gpu`); without a window four minutes of an
H200 for eight seeds together. What it reaches: the README's table.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    options, preset = base.split_argument(argument)
    far = base.choose(options, "far", "mask", "bias")
    base.refuse_rest(options, "far")
    c = base.start(preset, "abacus_table_add")
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
    if far == "bias":
        c.name = "abacus_table_soft_add"
        c.model.abacus_far = "bias"
        c.train.far_problems = True
        c.data.problems_per_row = 2
        if c.preset == "gpu":
            c.data.problems_per_row, c.data.width_multiple = 8, 16
            c.train.steps = 24_000
            c.eval.diagonal_samples = 100
    return c
