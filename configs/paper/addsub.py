"""Addition and subtraction in one model as in McLeish et al. 2024, figure 5.

    python launch.py --config=configs/paper/addsub.py

Half the examples are sums, half differences; negative results are written as the
released generator would, reversed with their sign. Options: those of `common.start`
and `size`. Cost: one GPU-day. Paper's result: "extreme generalization" for both; values
are in its figure only.
"""

from ml_collections import ConfigDict

from configs import base
from configs.paper import common


def get_config(argument: str = "") -> ConfigDict:
    """The figure's model; presets `smoke` and `gpu` (the paper's own size)."""
    architectures = ("8x2", *common.DEPTH_16)
    positions = ("abacus", "nope", "fire")
    c, options = common.start(
        argument,
        "addsub",
        arch=architectures,
        pos=positions,
        budget=24.0,
        extra=("size",),
    )
    c.data.max_digits = int(base.choose(options, "size", *common.SIZES))
    # The figure is a diagonal; the grid in steps of 10 and the trained square.
    c.eval.grid_stride = 10
    c.eval.diagonal = tuple(n for n in range(22, 121, 2) if n % 10)
    c.eval.diagonal_samples = 100
    c.eval.buckets = (128, 320, 512)
    return common.finish(c)
