"""Sorting on paper without comparing: a radix sort, written scan by scan.

Trained on lists of at most 10 numbers of at most 6 digits. Every pass reads the keys
in the order of the pass before, ten times, and each time writes those with one value of
one digit, so a token depends on one key and one of its digits: numbers that differ only
far behind their first digit are no harder to sort. Three position ids say where to
look: the place of the digit, the scan, and the key whose turn it is. What is left to
content is which number belongs to a key. Exact match means every token of every pass.
Evaluated to 30 x 30, on rows of 10,000 tokens. Minutes of two CPU cores are not enough
to learn it: `:cpu` shows how it begins.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_radix_sort", "radix_sorting")
    # Longer numbers only repeat the place of a pass, and make rows longer.
    c.data.max_digits, c.data.max_numbers = 6, 10
    c.task.mixed_keys, c.task.hard_lists = True, 0.2
    c.data.position_ids = "passes"
    c.data.width_multiple = 16
    c.model.width, c.model.num_heads, c.model.mlp_width = 256, 8, 1024
    c.model.num_layers = 4
    # The digit of the pass, and whether there is one for the next.
    c.model.abacus_window = 1
    # The list is in view whatever its length: attention must stay sharp.
    c.model.length_scale = True
    # All rows at once do not fit a GPU.
    c.optim.batch_size, c.optim.micro_batch_size = 96, 24
    c.train.steps, c.train.minutes = 0, 8.0
    c.eval.grid_digits, c.eval.grid_stride, c.eval.diagonal = 30, 6, ()
    c.eval.grid_samples = c.eval.set_samples = 20
    c.eval.set_lengths = (10, 20, 30)
    c.eval.buckets = (320, 768, 1232, 2688, 4672, 10304)
    if c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.data.max_digits = c.data.max_numbers = 3
        c.model.width, c.model.mlp_width, c.model.num_layers = 64, 256, 3
        c.optim.batch_size = c.optim.micro_batch_size = 32
        c.train.steps, c.train.minutes = 1500, 0.0
        c.eval.grid_digits, c.eval.grid_stride = 6, 3
        c.eval.set_lengths = (3, 6)
        c.eval.buckets = (64, 144, 288, 480)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
