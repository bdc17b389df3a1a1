"""Addition with the soft relative Abacus bias: nothing is masked, all is learned.

Digits beyond the window share one learned bias. Length-scaled logits keep the attention
sharp in longer rows, and key noise forces margins; with both, 4,000 steps carry as far
as the window does (docs/length_generalization.md). The `cpu` preset leaves the noise
out, which needs longer training, and shows what the window is worth in half a minute.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_soft_add")
    c.model.abacus_far = "bias"
    c.model.length_scale = True
    c.train.key_noise = 2.0
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    elif c.preset == "cpu":
        base.shrink_addition_to_cpu(c)
        c.train.key_noise = 0.0
        c.eval.diagonal = (160, 1000)
    elif c.preset == "gpu":
        c.data.width_multiple = 64
        base.apply_flagship_size(c)
        c.train.steps = 4000
        # Whole rows: blocks need the window.
        c.eval.diagonal_samples = 100
    return c
