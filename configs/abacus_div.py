"""Long division by repeated subtraction: quotients and divisors of 4 digits at most.

Every line is the line above without the divisor, or with it and the next digit of the
dividend (`tasks/division.py`). Position ids of three levels say where these are: the
place, the line, and the digit of the dividend that a group of lines belongs to. The
windows on all three hide the rest. Exact match means every digit of every line.
Evaluated to 12 x 12, and on quotients and divisors of 25 and 50 digits.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_div", "division")
    c.data.position_ids = "groups"
    c.task.edges = 0.2
    c.data.max_digits, c.data.width_multiple = 4, 16
    c.model.width, c.model.num_heads, c.model.mlp_width = 128, 4, 512
    c.model.num_layers = 3
    # Enough for a carry; and divisors of three digits show all that there is to see.
    c.model.abacus_window = 1
    c.optim.batch_size = c.optim.micro_batch_size = 256
    c.train.steps = 2000
    c.eval.grid_digits, c.eval.diagonal = 12, (25, 50)
    c.eval.diagonal_samples = 100
    c.eval.set_lengths = (4, 12, 25)
    c.eval.buckets = (336, 1024, 2304, 8960, 34304)
    if c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.data.max_digits = 3
        c.model.width, c.model.num_heads, c.model.mlp_width = 64, 2, 256
        c.optim.batch_size = c.optim.micro_batch_size = 16
        c.train.steps = 1200
        c.eval.grid_digits, c.eval.grid_stride = 9, 3
        c.eval.diagonal, c.eval.diagonal_samples = (15,), 10
        c.eval.set_lengths = (3, 9)
        c.eval.buckets = (224, 448, 1344, 3424)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
