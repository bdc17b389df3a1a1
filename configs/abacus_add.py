"""The flagship: addition with windowed relative Abacus attention.

    python launch.py --config=configs/abacus_add.py
    python launch.py --config=configs/abacus_add.py:gpu,eval=reach --mode=eval

Every digit attends to the digits at most two places away in any number of the row,
whatever their distance in tokens, and to the operators. What a query sees does not
change with the length of the numbers, so what is learned at 8 or 20 digits is what
runs at 1,000. Two layers. Cost: about 2 s of training on one H100 (`gpu`, at most 20
digits), half a minute on 2 CPU cores (`cpu`, at most 8 digits).

`eval` is another evaluation of a finished run, a row of EVALUATIONS, whose result has a
file of its own: 10,000 and 100,000 digits (`reach`), a million digits (`far`), or more
than a million sums of up to 100 digits (`million`).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base

# Of numbers much longer than the grid's: no grid, no sets.
LONG: dict[str, Any] = {"grid_digits": 0, "set_samples": 0}
EVALUATIONS: dict[str, dict[str, Any]] = {
    "grid": {},
    "reach": LONG | {"diagonal": (10_000, 100_000), "diagonal_samples": 100},
    "far": LONG | {"diagonal": (1_000_000,), "diagonal_samples": 10},
    "million": {
        "grid_digits": 20,
        "grid_samples": 2_500,
        "diagonal": (100,),
        "diagonal_samples": 100_000,
        "set_samples": 10_000,
        "buckets": (64, 320),
    },
}


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    options, preset = base.split_argument(argument)
    evaluation = base.choose(options, "eval", *EVALUATIONS)
    base.refuse_rest(options, "eval")
    c = base.start(preset, "abacus_add")
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    elif c.preset == "cpu":
        base.shrink_addition_to_cpu(c)
    elif c.preset == "gpu":
        c.data.width_multiple = 64
        base.apply_flagship_size(c)
    if evaluation != "grid":
        c.eval.name = evaluation
        c.eval.update(EVALUATIONS[evaluation])
    return c
