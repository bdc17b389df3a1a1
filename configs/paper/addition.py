"""Addition as in McLeish et al. 2024: model, data, loss, optimizer and schedules.

    python launch.py --config=configs/paper/addition.py:arch=8x2,pos=abacus

Options: `arch` = layers x recurrences: 16x1, 8x2, 4x4, 2x8 or 1x16; `pos` = abacus,
nope, fire, rope, learned, abacus+fire or abacus+rope; `inject` = recurrence or layer
(the paper's "standard transformer with input injection", for 16x1). Cost: one GPU-day
each (`train.minutes`), 8 exaFLOP in the paper. Paper's result for 8x2 abacus: 99.1%
over the 100 x 100 grid outside training, mean of 3.
"""

from ml_collections import ConfigDict

from configs import base

ARCHITECTURES = ("16x1", "8x2", "4x4", "2x8", "1x16")
POSITIONS = {
    "abacus": ("abacus",),
    "nope": (),
    "fire": ("fire",),
    "rope": ("rope",),
    "learned": ("learned",),
    "abacus+fire": ("abacus", "fire"),
    "abacus+rope": ("abacus", "rope"),
}


def get_config(argument: str = "") -> ConfigDict:
    """One row of the paper; presets `smoke` and `gpu` (the paper's own size)."""
    options, preset = base.split_argument(argument)
    arch = base.choose(options, "arch", "8x2", *ARCHITECTURES)
    pos = base.choose(options, "pos", "abacus", *POSITIONS)
    inject = base.choose(options, "inject", "recurrence", "recurrence", "layer")
    base.refuse_rest(options, "arch", "pos", "inject")
    if preset == "cpu":
        raise ValueError(
            "config argument 'cpu' is not for the paper's models, which take a "
            "GPU-day; allowed: smoke, gpu"
        )
    layers, recurrences = (int(part) for part in arch.split("x"))
    c = base.get_config()
    c.name = f"paper_addition_{arch}_{pos}" + ("_ii" if inject == "layer" else "")
    c.preset = preset or "gpu"
    c.data.max_offset = 100
    c.data.offset_per = "batch"
    c.model.width, c.model.heads, c.model.mlp_width = 1024, 16, 2048
    c.model.layers, c.model.recurrences = layers, recurrences
    c.model.max_backprop = max(recurrences // 2, 1)
    c.model.injection, c.model.initial_state = inject, "noise"
    c.model.positions = POSITIONS[pos]
    c.model.table_size = 512
    c.model.abacus_far = "bias"
    c.model.norm, c.model.norm_eps = "post", 1e-12
    c.model.head_mlp = c.model.adapter = True
    c.model.init = "deepnorm"
    # The original's attention for FIRE and RoPE lays out heads otherwise.
    c.model.qkv_gain_quirk = bool({"fire", "rope"} & set(c.model.positions))
    c.model.qk_norm = False
    c.optim.optimizer = "adamw"
    c.optim.learning_rate = 1e-4
    c.optim.eps, c.optim.weight_decay = 1e-12, 0.01
    c.optim.warmup, c.optim.decay_start, c.optim.final_learning_rate = 0.1, 0.9, 0.0
    c.optim.ema_decay = 0.0
    c.optim.batch_size, c.optim.micro_batch_size = 8192, 512
    c.optim.ramp_until = 0.6
    c.train.steps, c.train.minutes = 0, 24 * 60.0
    # The learned table ends at 512 tokens: 100-digit sums still fit a row.
    c.eval.diagonal = (120, 160)
    c.eval.buckets = (128, 320, 512)
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
