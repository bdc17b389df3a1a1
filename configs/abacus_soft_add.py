"""Addition with the soft relative Abacus bias: nothing is masked, all is learned.

Digits beyond the window share one learned bias, and symbols have one of their own
(`kinds`). In training a far digit counts as up to 1,000, as there would be in longer
rows: so the model learns to leave them out, whatever their number. That carries as far
as the window (docs/length_generalization.md).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_soft_add")
    c.model.abacus_far = "bias"
    c.data.position_ids, c.train.max_far_copies = "kinds", 1000.0
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    elif c.preset == "cpu":
        base.shrink_addition_to_cpu(c)
        c.train.steps = 2500
        c.eval.diagonal = (160, 1000)
    elif c.preset == "gpu":
        c.data.width_multiple = 64
        base.apply_flagship_size(c)
        c.train.steps = 4000
        # Whole rows: blocks need the window.
        c.eval.diagonal_samples = 100
    return c
