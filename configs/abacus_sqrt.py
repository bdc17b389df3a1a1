"""Square roots by subtracting odd numbers: roots of 6 digits at most.

    python launch.py --config=configs/abacus_sqrt.py

Every line is made of up to three lines above it and of one pair of digits of the number
(`tasks/square_root.py`). As in long division, position ids of three levels say where
these are, and windows hide the rest; that on places is two wide, as a pair of digits is
brought down. Lines of roots of 6 digits are long enough that some of that window lies
around no end of a line, those of 4 are not. Exact match means every digit of every
line. Evaluated to roots of 12 digits, and of 20, 40 and 60. Two CPU cores are too slow
for all that: `:cpu` has at most 3 digits, and has not been trained to its end.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_sqrt", "square_root")
    c.data.position_ids = "roots"
    c.task.edges = 0.3
    base.apply_written_size(c)
    c.data.max_digits = 6
    c.eval.diagonal, c.eval.set_lengths = (20, 40, 60), (6, 12, 20)
    c.eval.buckets = (864, 2560, 5760, 19968, 42432)
    c.eval.diagonal_samples = 20
    if c.preset == "cpu":
        base.shrink_written_to_cpu(c)
        c.eval.diagonal = ()
        c.eval.buckets = (336, 848, 1552)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
