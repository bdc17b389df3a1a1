"""Addition with the soft relative Abacus bias: nothing is masked, all is learned.

Digits beyond the window share one learned bias, and length-scaled logits keep the
attention sharp in longer rows; key noise forces margins, but needs the longer training
of the `gpu` preset. Less reach than `abacus_add.py`: it shows what the mask is worth.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_soft_add")
    c.model.abacus_far = "bias"
    c.model.length_scale = True
    c.model.key_noise = 2.0
    c.data.width_multiple = 64
    c.optim.ema_decay = 0.999
    c.train.steps = 1200
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    elif c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.model.key_noise = 0.0
    return c
