"""Sorting as in McLeish et al. 2024, tables 1 and 2: 10 numbers of 10 digits at most.

    python launch.py --config=configs/paper/sorting.py:arch=8x1,pos=abacus+fire

Options: those of `common.start`; table 1 is `arch=8x1` with pos = fire, abacus and
abacus+fire; table 2 is abacus+fire with 8x1, 8x1 and `inject=layer`, and 1x8. Cost: one
GPU-day each. All cells to 30 x 30 are evaluated, where the original's script skips
those with both sizes above 23; exact match here also asks for `EOS`.
"""

from ml_collections import ConfigDict

from configs.paper import common


def get_config(argument: str = "") -> ConfigDict:
    """One row of the tables; presets `smoke` and `gpu` (the paper's own size)."""
    positions = ("abacus+fire", "abacus", "fire")
    c, _ = common.start(
        argument, "sorting", arch=common.DEPTH_8, pos=positions, budget=24.0
    )
    c.data.max_digits, c.data.max_numbers = 10, 10
    c.optim.micro_batch_size = 32
    c.eval.grid_digits, c.eval.diagonal = 30, ()
    c.eval.set_lengths = (10, 20, 30)
    c.eval.buckets = (160, 320, 640, 1088)
    return common.finish(c)
