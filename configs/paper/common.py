"""What all experiments of McLeish et al. 2024 share: options, model, optimizer.

Source: the released shells and defaults, mcleish7/arithmetic @ 86022a5.
"""

from ml_collections import ConfigDict

from configs import base

# Layers in the recurrent block x recurrences, by effective depth.
DEPTH_8 = ("8x1", "4x2", "2x4", "1x8")
DEPTH_16 = ("16x1", "8x2", "4x4", "2x8", "1x16")
DEPTH_32 = ("32x1", "16x2", "8x4", "4x8", "2x16", "1x32")
POSITIONS = {
    "abacus": ("abacus",),
    "nope": (),
    "fire": ("fire",),
    "rope": ("rope",),
    "learned": ("learned",),
    "abacus+fire": ("abacus", "fire"),
    "abacus+rope": ("abacus", "rope"),
}
INJECTIONS = ("recurrence", "layer")
SIZES = ("20", "10", "30", "40")  # the default first


def start(
    argument: str,
    task: str,
    *,
    arch: tuple[str, ...],
    pos: tuple[str, ...],
    budget: float,
    extra: tuple[str, ...] = (),
) -> tuple[ConfigDict, dict[str, str]]:
    """A row of the paper but for its data and evaluation, and its other options.

    Options common to all tasks: `arch`, layers x recurrences; `pos`, how positions are
    told; `inject`, the embedding added once per recurrence or before every layer (with
    one recurrence the paper's "standard transformer" and "with input injection"); `k`,
    the largest Abacus offset; `alpha`, the weight of the random-depth pass in the
    progressive loss, the rest being a full-depth pass; `budget`, hours of training.

    Args:
        argument: The string argument of a config.
        task: Name of the task and of the config file.
        arch: Allowed architectures, the default first.
        pos: Allowed positions, the default first.
        budget: Default hours.
        extra: Options that the task itself takes out of the returned ones.

    Raises:
        ValueError: If an option or its value is unknown.
    """
    options, preset = base.split_argument(argument)
    tuned = sorted(options.keys() - {"arch", "pos", "inject"})
    given = [f"{key}{options[key]}" for key in tuned]
    if preset == "cpu":
        raise ValueError(
            "config argument 'cpu' is not for the paper's models, which take hours of "
            "a GPU; allowed: smoke, gpu"
        )
    chosen = base.choose(options, "arch", *arch)
    named = base.choose(options, "pos", *pos)
    c = base.get_config(task)
    c.preset = preset or "gpu"
    layers, recurrences = (int(part) for part in chosen.split("x"))
    c.model.num_layers, c.model.num_recurrences = layers, recurrences
    c.model.injection = base.choose(options, "inject", *INJECTIONS)
    c.model.positions = POSITIONS[named]
    injected = ["ii"] if c.model.injection == "layer" else []
    # The whole argument, so that every row has a folder of its own.
    c.name = "_".join(["paper", task, chosen, named, *injected, *given])
    c.data.max_offset = int(base.take_number(options, "k", 100, low=0, high=400))
    c.loss.alpha = base.take_number(options, "alpha", 1.0, low=0.0, high=1.0)
    hours = base.take_number(options, "budget", budget, low=0.001, high=1000.0)
    c.train.steps, c.train.minutes = 0, 60.0 * hours
    set_recipe(c)
    known = ("arch", "pos", "inject", "k", "alpha", "budget", *extra)
    rest = {key: value for key, value in options.items() if key not in extra}
    base.refuse_rest(rest, *known)
    return c, options


def set_recipe(c: ConfigDict) -> None:
    """Table 5 of the paper: the model but for its depth, loss, optimizer, schedules."""
    c.data.offset_per = "batch"
    c.model.width, c.model.num_heads, c.model.mlp_width = 1024, 16, 2048
    c.loss.max_backprop = max(c.model.num_recurrences // 2, 1)
    c.model.initial_state = "noise"
    c.model.table_size = 512
    c.model.abacus_far = "bias"
    c.model.norm, c.model.norm_eps = "post", 1e-12
    original = c.model.mcleish
    original.head_mlp = original.adapter = original.deepnorm = True
    # The original's attention for FIRE and RoPE lays out heads otherwise.
    original.qkv_gain_quirk = bool({"fire", "rope"} & set(c.model.positions))
    c.model.qk_norm = False
    c.optim.optimizer = "adamw"
    c.optim.learning_rate = 1e-4
    c.optim.eps, c.optim.weight_decay = 1e-12, 0.01
    c.optim.warmup, c.optim.decay_start, c.optim.final_learning_rate = 0.1, 0.9, 0.0
    c.optim.ema_decay = 0.0
    c.optim.batch_size, c.optim.micro_batch_size = 8192, 512
    c.optim.ramp_until = 0.6


def has_relative(c: ConfigDict) -> bool:
    """Whether Abacus is combined with FIRE or RoPE."""
    return len(c.model.positions) > 1


def finish(c: ConfigDict) -> ConfigDict:
    """Shrinks a row for a test if it is asked for."""
    if c.preset == "smoke":
        base.shrink_to_smoke(c)
    return c
