"""Bitwise OR as in McLeish et al. 2024, figure 8: vectors up to 20 digits.

    python launch.py --config=configs/paper/bitwise_or.py:arch=1x16,pos=abacus

Options: those of `common.start`; `arch` = 16x1 (with `inject=layer` for the shells'
"standard transformer with input injection") or 1x16; `size`, the longest vector. Cost:
one GPU-hour each. Every cell to 100 x 100 is evaluated with all its min(i, j) strings;
the original's script stops at 40 x 40. Paper's values are in its figure only.
"""

from ml_collections import ConfigDict

from configs import base
from configs.paper import common


def get_config(argument: str = "") -> ConfigDict:
    """One bar of the figure; presets `smoke` and `gpu` (the paper's own size)."""
    positions = ("abacus", "fire", "nope")
    architectures = ("1x16", *common.DEPTH_16)
    c, options = common.start(
        argument,
        "bitwise_or",
        arch=architectures,
        pos=positions,
        budget=1.0,
        extra=("size",),
    )
    c.data.max_digits = int(base.choose(options, "size", *common.SIZES))
    if c.model.num_recurrences == 1 and c.model.injection == "layer":
        c.optim.micro_batch_size = 256
    c.eval.diagonal = ()
    c.eval.buckets = (128, 320)
    return common.finish(c)
