"""Copies of strings of digits, or copies from the end: a baseline, at most 20 digits.

    python launch.py --config=configs/abacus_copy.py
    python launch.py --config=configs/abacus_copy.py:cpu,reverse=on

A digit of the answer has the place of its source (`abacus`), which for a reversed copy
is counted from the end of the prompt (`mirrored`). The source of the next digit is one
place further, and the answer ends where there is none: both are inside a window of two
places, at any length. Evaluated to 1,000 digits.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    options, preset = base.split_argument(argument)
    is_reversed = base.choose(options, "reverse", "off", "on") == "on"
    base.refuse_rest(options, "reverse")
    c = base.start(preset, "abacus_copy", "copying")
    if is_reversed:
        c.name = "abacus_copy_reverse"
        c.task.reverse, c.data.position_ids = True, "mirrored"
    c.data.width_multiple = 16
    c.model.width, c.model.num_heads, c.model.mlp_width = 128, 4, 512
    c.optim.batch_size = c.optim.micro_batch_size = 512
    c.train.steps = 300
    c.eval.grid_stride, c.eval.set_lengths = 10, (10, 100, 1000)
    c.eval.buckets = (320, 2048)
    if c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.train.steps = 200
        c.eval.grid_stride = 10
        c.eval.buckets = (80, 320, 2048)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
