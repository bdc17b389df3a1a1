"""What each ingredient of `abacus_add.py` is worth: one change, a small budget.

    python launch.py --config=configs/ablation_add.py:change=no_qk_norm --config.seed=1

`change` is a row of CHANGES, `none` by default; `budget` is `short` (400 steps of 256
sums, at which the unchanged recipe just arrives) or `long` (4,000, to tell slow from
never). Cost: seconds of one H100. The table that comes out is in
docs/length_generalization.md.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base

STEPS = {"short": 400, "long": 4000}

# No window: every digit is visible, however far.
SOFT: dict[str, Any] = {"model.abacus_far": "bias"}
SCALED = SOFT | {"model.length_scale": True}
# Rows 1 to 161 of the table are trained: 100-digit sums and 20 digits more.
TABLE: dict[str, Any] = {
    "model.positions": ("abacus",),
    "model.table_size": 192,
    "data.max_offset": 140,
}
# The paper's looped models: progressive loss, input added at every recurrence, half of
# the recurrences with gradient. As many operations as 400 steps of `16x1`.
DEEP: dict[str, Any] = {"execution.unroll": False}
LOOPED = DEEP | {"model.injection": "recurrence"}

CHANGES: dict[str, dict[str, Any]] = {
    "none": {},
    # How positions are told, with the window and without it.
    "window_0": {"model.abacus_window": 0},
    "window_1": {"model.abacus_window": 1},
    "window_3": {"model.abacus_window": 3},
    "window_8": {"model.abacus_window": 8},
    "rotary_window": {"model.positions": ("rotary_abacus",)},
    "mask_alone": {"model.positions": ()},
    "table_window": TABLE,
    "table_batch_offset": TABLE | {"data.offset_per": "batch"},
    "table_and_bias": TABLE | {"model.positions": ("abacus", "relative_abacus")},
    "table_soft": TABLE | SOFT,
    "coupled_table_soft": TABLE | SOFT | {"data.position_ids": "coupled"},
    "table_soft_noise": TABLE | SCALED | {"train.key_noise": 2.0},
    "soft": SOFT,
    "soft_scaled": SCALED,
    "soft_noise_0.5": SCALED | {"train.key_noise": 0.5},
    "soft_noise_2": SCALED | {"train.key_noise": 2.0},
    "soft_noise_4": SCALED | {"train.key_noise": 4.0},
    "rotary_soft": SOFT | {"model.positions": ("rotary_abacus",)},
    "fire": SOFT | {"model.positions": ("fire",)},
    "rope": SOFT | {"model.positions": ("rope",)},
    "nope": SOFT | {"model.positions": ()},
    # Everything else, with the flagship's window and bias.
    "window_noise_2": {"train.key_noise": 2.0},
    "window_scaled": {"model.length_scale": True},
    "no_qk_norm": {"model.qk_norm": False},
    "post_norm": {"model.norm": "post"},
    "adamw": {"optim.optimizer": "adamw"},
    "no_ema": {"optim.ema_decay": 0.0},
    "weight_decay": {"optim.weight_decay": 0.1},
    "uniform_digits": {"task.carry_chains": 0.0, "task.repeats": 0.0},
    "zero_pad": {"task.zero_pad": True},
    "packed": {"data.problems_per_row": 2, "data.width_multiple": 16},
    "layers_1": {"model.num_layers": 1},
    "layers_3": {"model.num_layers": 3},
    "layers_4": {"model.num_layers": 4},
    "width_32": {"model.width": 32, "model.num_heads": 2, "model.mlp_width": 128},
    "width_64": {"model.width": 64, "model.mlp_width": 256},
    "width_256": {"model.width": 256, "model.mlp_width": 1024},
    "recurrent_1x2": {"model.num_layers": 1, "model.num_recurrences": 2},
    "recurrent_2x2": {"model.num_recurrences": 2},
    "recurrent_2x2_input": {
        "model.num_recurrences": 2,
        "model.injection": "recurrence",
    },
    "16x1": DEEP | {"model.num_layers": 16},
    "16x1_input": DEEP | {"model.num_layers": 16, "model.injection": "layer"},
    "8x2_input": LOOPED
    | {"model.num_layers": 8, "model.num_recurrences": 2, "train.steps": 686},
    "1x16_input": LOOPED
    | {
        "model.num_layers": 1,
        "model.num_recurrences": 16,
        "loss.max_backprop": 8,
        "train.steps": 1000,
    },
}


def get_config(argument: str = "") -> ConfigDict:
    """One row of the table; presets `smoke`, `cpu` and `gpu`, by default the device."""
    options, preset = base.split_argument(argument)
    change = base.choose(options, "change", *CHANGES)
    budget = base.choose(options, "budget", *STEPS)
    base.refuse_rest(options, "change", "budget")
    c = base.get_config()
    c.name = f"ablation_add_{change}_{budget}"
    c.preset = preset or base.preset_for_device()
    c.data.width_multiple = 64
    base.apply_flagship_size(c)
    c.optim.batch_size = c.optim.micro_batch_size = 256
    c.train.steps = STEPS[budget]
    c.eval.grid_stride, c.eval.diagonal = 20, (1000,)
    c.eval.buckets = (320, 3072)
    c.eval.logit_budget = 2**28
    if c.preset == "cpu":
        base.shrink_addition_to_cpu(c)
        c.data.problems_per_row = 1  # that is a row of the table
        c.train.steps = STEPS[budget]
        c.eval.buckets = (320, 3072)
    with c.unlocked():
        c.update_from_flattened_dict(CHANGES[change])
    if "model.table_size" in CHANGES[change]:
        c.eval.diagonal = (120,)
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
