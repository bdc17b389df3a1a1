"""Sorting on paper: an insertion sort, written key by key, trained on 10 x 10.

With a scratchpad (`task.scratchpad`) every line is the line above with one more key, so
each token compares two numbers at most. Three position ids say where to look: the place
of the leading digit of the number to insert, its line, and the column of the line
above. The windows of place, line and column hide the rest, but for the keys of the list
and the digits beside the place, of which a query picks those of one key. Numbers are
compared by length and by their first five digits. Exact match means every key of every
line. Evaluated to 30 x 30, as in the paper.

    python launch.py --config=configs/abacus_sort.py
    python launch.py --config=configs/abacus_sort.py:answer=keys,gpu

`answer` is what is written: all lines (`lines`), or the sorted keys alone (`keys`), the
paper's format. Then nothing hides anything; places come from a table with gaps in
training, so that lengths meet that are further apart than ten digits. It is not learned
in minutes on a CPU: docs/length_generalization.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(argument: str = "") -> ConfigDict:
    """The experiment; the argument is `smoke`, `cpu`, `gpu` or empty (by device)."""
    options, preset = base.split_argument(argument)
    answer = base.choose(options, "answer", "lines", "keys")
    base.refuse_rest(options, "answer")
    c = base.start(preset, "abacus_sort", "sorting")
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
    if answer == "keys":
        write_keys_alone(c)
    return c


def write_keys_alone(c: ConfigDict) -> None:
    """Changes the config to the paper's format."""
    c.name = "abacus_sort_keys"
    c.task.scratchpad = False
    c.data.position_ids, c.data.max_offset, c.data.max_gap = "abacus", 10, 3
    c.model.positions, c.model.abacus_far = ("abacus", "fire"), "bias"
    if c.preset == "gpu":
        c.model.num_layers = 6
        c.train.steps = 6600
        c.eval.grid_stride, c.eval.grid_samples, c.eval.set_samples = 5, 20, 20
        c.eval.buckets = (160, 320, 640, 1088)
