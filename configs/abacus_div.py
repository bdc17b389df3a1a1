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
    base.apply_written_size(c)
    # Enough for a carry; and divisors of three digits show all that there is to see.
    c.model.abacus_window = 1
    c.eval.diagonal, c.eval.set_lengths = (25, 50), (4, 12, 25)
    c.eval.buckets = (336, 1024, 2304, 8960, 34304)
    if c.preset == "cpu":
        base.shrink_written_to_cpu(c)
        c.eval.diagonal = (15,)
        c.eval.buckets = (224, 448, 1344, 3424)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
