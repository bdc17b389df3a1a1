"""The flagship: addition with windowed relative Abacus attention."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    options, preset = base.split_argument(argument)
    base.refuse_rest(options)
    c = base.get_config()
    c.name = "abacus_add"
    c.preset = preset or base.preset_for_device()
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    elif c.preset == "cpu":
        c.data.max_digits = 10
        c.model.width, c.model.heads, c.model.mlp_width = 128, 4, 512
        c.model.dtype = "float32"
        c.optim.batch_size = c.optim.micro_batch_size = 64
        c.train.steps = 600
        c.eval.grid_stride = 5
        c.eval.grid_samples = 8
        c.eval.diagonal_samples = 16
        c.eval.set_samples = 25
        c.eval.buckets = (40, 80, 160, 240, 320, 640, 1536, 3072)
        c.eval.token_budget = 2**14
        c.eval.logit_budget = 2**24
    elif c.preset == "gpu":
        c.data.width_multiple = 64
    return c
