"""Sorting on paper: an insertion sort, written key by key, trained on 10 x 10.

With a scratchpad (`task.scratchpad`) every line is the line above with one more key, so
each token compares two numbers at most. Three position ids say where to look: the place
of the leading digit of the number to insert, its line, and the column of the line
above. The windows of place, line and column hide the rest, but for the keys of the list
and the digits beside the place, of which a query picks those of one key. Numbers are
compared by length and by their first five digits. Exact match means every key of every
line. Evaluated to 30 x 30, as in the paper.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    c = base.start(argument, "abacus_sort", "sorting")
    c.data.max_digits, c.data.max_numbers = 10, 10
    c.task.scratchpad, c.task.mixed_keys, c.task.hard_lists = True, True, 0.2
    c.data.position_ids = "items"
    c.data.width_multiple = 16
    c.model.width, c.model.num_heads, c.model.mlp_width = 256, 8, 1024
    c.model.num_layers = 4
    c.model.abacus_window = 4
    # The list is in view whatever its length: attention must stay sharp.
    c.model.length_scale = True
    c.optim.batch_size = c.optim.micro_batch_size = 512
    c.train.steps = 4000
    c.eval.grid_digits, c.eval.diagonal = 30, ()
    c.eval.set_lengths = (10, 20, 30)
    c.eval.buckets = (208, 480, 896, 1488)
    if c.preset == "cpu":
        base.shrink_to_cpu(c)
        c.data.max_digits = c.data.max_numbers = 4
        c.model.num_layers = 3
        c.train.steps = 1500
        c.eval.grid_digits, c.eval.grid_stride = 8, 2
        c.eval.set_lengths = (4, 8)
        c.eval.buckets = (48, 80, 144)
    elif c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
