"""Addition as in McLeish et al. 2024: model, data, loss, optimizer and schedules.

    python launch.py --config=configs/paper/addition.py:arch=8x2,pos=abacus

Options: those of `common.start`; `size`, the longest operand trained on; `prompt=on`
trains on the prompt's tokens too; `throttle=on` is the released code's "divide the
gradients by the number of recurrences", a constant factor; `blanks`, the chance of a
blank before each prompt token in training (the paper does not say which); `hints=on`
writes index hints; `random=128` shows FIRE random places below 128 in training (128 is
the example of the original's README, just more than a row with hints has tokens). Cost:
one GPU-day each, 8 exaFLOP in the paper. Paper's result for 8x2 abacus: 99.1% over the
100 x 100 grid outside training, mean of 3.
"""

from ml_collections import ConfigDict

from configs import base
from configs.paper import common

ARCHITECTURES = ("8x2", *common.DEPTH_8, *common.DEPTH_16, *common.DEPTH_32)
EXTRA = ("size", "prompt", "throttle", "blanks", "hints", "random")


def get_config(argument: str = "") -> ConfigDict:
    """One row of the paper; presets `smoke` and `gpu` (the paper's own size)."""
    positions = tuple(common.POSITIONS)
    c, options = common.start(
        argument,
        "addition",
        arch=ARCHITECTURES,
        pos=positions,
        budget=24.0,
        extra=EXTRA,
    )
    c.data.max_digits = int(base.choose(options, "size", *common.SIZES))
    c.data.predict_prompt = base.choose(options, "prompt", "off", "on") == "on"
    c.loss.throttle = base.choose(options, "throttle", "off", "on") == "on"
    c.task.blanks = base.take_number(options, "blanks", 0.0, low=0.0, high=0.5)
    c.task.index_hints = base.choose(options, "hints", "off", "on") == "on"
    random = base.take_number(options, "random", 0, low=0, high=2**15)
    c.model.fire_max_length = int(random)
    is_standard = c.model.num_recurrences == 1 and c.model.injection == "recurrence"
    if is_standard or common.has_relative(c):
        c.optim.micro_batch_size = 256
    c.eval.diagonal = tuple(range(110, 161, 10))
    c.eval.buckets = (*range(16, 321, 16), 512)
    if c.data.max_offset > 100:
        # Abacus rows end at 100 + the longest trained number otherwise.
        c.eval.diagonal = tuple(range(110, 221, 10))
        c.eval.buckets = (64, 128, 192, 256, 320, 512, 704)
    if c.task.index_hints:
        c.eval.buckets = (256, 640, 1024)
        if "learned" in c.model.positions:
            raise ValueError(
                "config argument pos='learned' with hints=on: 100-digit sums do not "
                "fit the 512 learned positions; allowed: other pos"
            )
    return common.finish(c)
