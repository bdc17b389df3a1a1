"""Multiplication as in McLeish et al. 2024, figure 6: operands up to 15 digits.

    python launch.py --config=configs/paper/multiplication.py:pos=abacus

Options: those of `common.start`; `pos` = abacus, fire or abacus+fire. Cost: 8 GPUs for
a day in the paper; here one device, `budget` hours. Paper's result: near perfect up to
15 x 15 with abacus, errors with fire towards 15 x 15; grid to 25 x 25.
"""

from ml_collections import ConfigDict

from configs.paper import common


def get_config(argument: str = "") -> ConfigDict:
    """One panel of the figure; presets `smoke` and `gpu` (the paper's own size)."""
    positions = ("abacus", "fire", "abacus+fire")
    architectures = ("4x4", *common.DEPTH_16)
    c, _ = common.start(
        argument, "multiplication", arch=architectures, pos=positions, budget=24.0
    )
    c.data.max_digits = 15
    c.loss.reduction, c.loss.throttle = "none", True
    # 8 GPUs of 512 rows there: an update has 4096 or 8192. Gathered, 512 fit one GPU.
    c.optim.micro_batch_size = 512
    if "fire" in c.model.positions:
        c.optim.learning_rate = 6e-5
    c.eval.grid_digits, c.eval.diagonal = 25, ()
    c.eval.set_lengths = (5, 15, 25)
    c.eval.buckets = (64, 112)
    return common.finish(c)
