"""The smallest model found that still adds: two layers, 8 numbers a token.

The flagship's recipe at 1,392 parameters. It needs more steps than a wide model.

Cost: about a minute of a GPU (`gpu`). What it reaches: the README's table; one seed of
eight is weaker, which one layer of width 16 (2,624 parameters) does not have.
"""

from ml_collections import ConfigDict

from configs import abacus_add


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = abacus_add.get_config(argument)
    c.name = "abacus_tiny_add"
    if c.preset != "smoke":
        c.model.width, c.model.num_heads, c.model.mlp_width = 8, 2, 16
        c.optim.batch_size = c.optim.micro_batch_size = 1024
        c.train.steps = 8000
        if c.preset == "cpu":
            c.optim.batch_size = c.optim.micro_batch_size = 256
            c.train.steps = 4000
    return c
