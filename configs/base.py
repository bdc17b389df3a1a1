"""Every key once, with its unit and its reason, and the strict argument parser.

The values here are our recipe on one GPU; an experiment differs by assignments only.
"""

import jax
from ml_collections import ConfigDict

from arith_jax.tasks.make import default_options

PRESETS = ("smoke", "cpu", "gpu")


def get_config(task: str = "addition") -> ConfigDict:
    """All keys, with those of a task's options in the section `task`.

    Args:
        task: addition, subtraction, multiplication, division, square_root,
            multi_addition, sorting, radix_sorting, copying, bitwise_or; addsub is the
            first two mixed, arithmetic the first three.
    """
    c = ConfigDict()
    c.name = "base"  # of the experiment; default folder under runs/
    c.preset = ""  # size chosen: smoke, cpu or gpu
    c.seed = 0  # decides weights, data and noise
    c.num_seeds = 1  # models trained at once, in one program: this seed and the next
    c.deterministic = False  # on a GPU: the same bits every time, slower steps

    # What a row holds. The options are those of the task, all off:
    # zero_pad: write both operands with the longer one's digits
    # carry_chains: share of examples given a long chain of carries or borrows
    # repeats: share of examples made of two different digits at most
    # complement: subtraction; negative results as ten's complement
    # scratchpad: multiplication writes every partial sum of schoolbook multiplication,
    #     off which the product is read; sorting writes an insertion sort; sums of many
    #     numbers, multi_addition, are written as running sums
    # hard_lists: share of lists whose numbers have one length, or (both tasks of
    #     sorting) are two numbers repeated, or (multi_addition) give long carries
    # edges: division, square_root; share without a remainder, with the largest, or of
    #     quotient 0 or a root of nines and zeros
    # reverse: copying; write strings from their end
    # mixed_keys: both tasks of sorting; keys are any symbols, not consecutive ones, of
    #     which no two are further apart than the longest list
    # blanks: chance of a PAD before each prompt token (paper, figure 20)
    # random_bits: bitwise OR of any two vectors, not of a one and zeros
    # index_hints: a hint symbol before every digit (paper, figure 21)
    c.task = ConfigDict({"name": task} | default_options(task))

    c.data = ConfigDict()
    c.data.max_digits = 20  # longest operand trained on; lengths uniform on 1..this
    c.data.max_numbers = 0  # of lists: the longest trained on, uniform on 1..this
    c.data.position_ids = "abacus"  # or coupled, where operators count too (Cho et al.)
    # or mirrored, from the end of the prompt, for reversed copies
    # or kinds, where a symbol has a bias of its own, for abacus_far=bias
    # or, for written work: lines (place and line) of products, terms of running sums,
    # items (column, too) of sorted lists, groups (of lines, too) of divisions, roots,
    # passes (line and turn) of radix sorts
    c.data.max_offset = 0  # position ids start at 1 + U{0..this}; only tables need it
    c.data.max_gap = 0  # before a place, up to so many rows of a table are left out
    c.data.offset_per = "example"  # or "batch" as in the paper, which learns slower
    c.data.predict_prompt = False  # train on the prompt's tokens too (paper, figure 16)
    c.data.width_multiple = 1  # rows are padded to a multiple of this many tokens
    c.data.problems_per_row = 1  # a power of two, whose lengths are complementary: with
    # 2, 20-digit sums take 79 tokens a pair, not 2 x 64; 8 of them 304; a GPU wants
    # width_multiple 16 with it, not 64

    c.model = ConfigDict()
    c.model.width = 512  # numbers per token
    c.model.num_heads = 8
    c.model.mlp_width = 1024  # of the gated MLP, both halves counted
    c.model.num_layers = 2  # in the recurrent block
    c.model.num_recurrences = 1  # times the block is applied
    c.model.injection = "none"  # add the embedding: none, recurrence, layer
    c.model.initial_state = "embedding"  # or noise, as in the original
    c.model.positions = ("relative_abacus",)  # any of abacus, learned (added to
    # tokens), fire, rope, relative_abacus, rotary_abacus (in attention); () is NoPE
    c.model.fire_max_length = 0  # random places for fire in training, below this
    c.model.table_size = 0  # rows of the abacus or learned table; 0: as many as needed
    c.model.abacus_window = 2  # digit differences with a bias of their own
    c.model.abacus_far = "mask"  # digits beyond the window: mask, or one shared bias
    c.model.norm = "sandwich"  # x = LN(x + f(LN(x))); or post, as in the original
    c.model.norm_eps = 1e-6  # added to the variance
    c.model.qk_norm = True  # queries and keys of unit RMS, learned scale per head
    c.model.length_scale = False  # logits times ln(visible keys + 1) / ln 32
    c.model.mcleish = ConfigDict()  # what only the original has
    c.model.mcleish.head_mlp = False  # an extra MLP before the final norm
    c.model.mcleish.adapter = False  # an extra square matrix before the decoder
    c.model.mcleish.deepnorm = False  # initial values by DeepNorm, not by fan-in
    c.model.mcleish.qkv_gain_quirk = False  # DeepNorm's value gain on wrong rows

    c.loss = ConfigDict()
    c.loss.alpha = 1.0  # progressive loss: weight of the pass of random depth
    c.loss.max_backprop = 1  # largest number of recurrences with gradient (paper: half)
    c.loss.reduction = "mean"  # over counted tokens; none: over all positions
    c.loss.throttle = False  # the original's constant factor for looped models

    c.optim = ConfigDict()
    c.optim.optimizer = "muon"  # matrices of the layers by Muon, the rest by AdamW
    c.optim.learning_rate = 1e-3  # AdamW, peak
    c.optim.muon_learning_rate = 0.02  # Muon, peak
    c.optim.beta1 = 0.9
    c.optim.beta2 = 0.98
    c.optim.eps = 1e-8
    c.optim.weight_decay = 0.0  # on all but norms, biases and the query scale
    c.optim.clip_norm = 0.5  # global gradient norm; 0 is off
    c.optim.warmup = 0.05  # fraction of the budget, linear from 0
    c.optim.decay_start = 0.5  # fraction of the budget, then linear
    c.optim.final_learning_rate = 0.03  # fraction of the peak at the end
    c.optim.ema_decay = 0.99  # of the weights, per update; 0 is off
    c.optim.batch_size = 2048  # rows per update
    c.optim.micro_batch_size = 2048  # rows per step; an update gathers several
    c.optim.ramp_until = 0.0  # fraction of the budget at which batch_size is reached

    c.train = ConfigDict()
    c.train.steps = 400  # budget in micro-batches, or 0
    c.train.minutes = 0.0  # budget in minutes without compilation, or 0
    c.train.key_noise = 0.0  # logit of each key + U(0, this); for abacus_far=bias
    c.train.max_far_copies = 1.0  # for abacus_far=bias: digits beyond the window count
    # as 1 to so many, log-uniform, one number a row, as in a row so much longer
    c.train.far_problems = False  # for a table alone, abacus_far=bias and several
    # problems a row: digits of the others are seen where they are beyond the window
    # Steps between lines of metrics.jsonl; short ones are not waited for in between.
    c.train.log_every = 10
    c.train.checkpoint_minutes = 5.0  # between checkpoints
    c.train.keep_checkpoints = 2  # the newest so many; 0: all
    c.train.tensorboard = False  # also write event files (needs tensorboardX)
    c.train.wandb = ""  # project of Weights & Biases to log to (needs wandb)
    c.train.skip_nonfinite = False  # leave updates out whose loss or gradient is not
    # finite, and count them, where a run would stop
    c.train.init_from = ""  # workdir of a run, or released folder, whose weights
    # training begins with

    c.eval = ConfigDict()
    c.eval.name = ""  # of an evaluation beside the run's own; its result has a file
    c.eval.seed = 2024  # of the evaluation examples, the same for every run
    c.eval.grid_digits = 100  # grid of both sizes up to this; 0 is none
    c.eval.grid_stride = 1  # outside training: every so many sizes, on both axes
    c.eval.grid_samples = 100  # examples per cell, as in the paper
    c.eval.diagonal = (120, 200, 500, 1000)  # larger cells (n, n)
    c.eval.diagonal_samples = 1000  # examples per length
    c.eval.set_lengths = (10, 20, 50, 100)  # of carry chains, zeros, equal operands
    c.eval.set_samples = 100  # examples per length of those sets
    c.eval.buckets = (64, 128, 192, 256, 320, 640, 1536, 3072)  # row widths, in tokens,
    # that rows are padded to: each is compiled once, beside others (3-10 s on a GPU)
    c.eval.dense_width = 640  # with a window, wider rows (tokens) attend in blocks
    c.eval.token_budget = 2**19  # tokens per batch
    c.eval.logit_budget = 2**30  # attention logits per batch and layer

    c.execution = ConfigDict()  # how a device computes it; results differ by rounding
    c.execution.dtype = "bfloat16"  # of activations; parameters are always float32
    c.execution.unroll = True  # layers and recurrences: faster steps, longer to compile
    c.execution.kernels = True  # on an NVIDIA GPU (Ampere or later), in bfloat16:
    # attention (one level of ids, not rotary), norms and gates in kernels of our own
    c.execution.triton_gemm = True  # XLA makes matrix products itself where that is
    # faster than cuBLAS; without, compiled in half the time, for runs of seconds
    return c


def split_argument(argument: str) -> tuple[dict[str, str], str]:
    """Options and preset of a string argument such as `arch=8x2,pos=abacus,smoke`.

    Raises:
        ValueError: If a word is neither `key=value` nor a preset, or comes twice.
    """
    options: dict[str, str] = {}
    preset = ""
    for word in filter(None, argument.split(",")):
        key, is_option, value = word.partition("=")
        if (key in options) if is_option else preset:
            raise ValueError(f"config argument {argument!r} gives {key!r} twice")
        if is_option:
            options[key] = value
        elif word in PRESETS:
            preset = word
        else:
            raise ValueError(
                f"config argument {word!r} is unknown; allowed: "
                f"{', '.join(PRESETS)} or key=value"
            )
    return options, preset


def start(argument: str, name: str, task: str = "addition") -> ConfigDict:
    """All keys, for an experiment of ours; the argument is a preset or empty."""
    options, preset = split_argument(argument)
    refuse_rest(options)
    c = get_config(task)
    c.name = name
    c.preset = preset or preset_for_device()
    return c


def choose(options: dict[str, str], key: str, *allowed: str) -> str:
    """Takes an option out of the parsed ones; the first value is the default.

    Raises:
        ValueError: If its value is not allowed.
    """
    value = options.pop(key, allowed[0])
    if value not in allowed:
        raise ValueError(
            f"config argument {key}={value!r} is unknown; allowed: {', '.join(allowed)}"
        )
    return value


def take_number(
    options: dict[str, str], key: str, default: float, *, low: float, high: float
) -> float:
    """Takes a number out of the parsed options.

    Raises:
        ValueError: If it is not a number from `low` to `high`.
    """
    text = options.pop(key, str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ValueError(
            f"config argument {key}={text!r}: must be a number from {low} to {high}"
        )
    return value


def refuse_rest(options: dict[str, str], *known: str) -> None:
    """Raises `ValueError` if an option was not used."""
    if options:
        raise ValueError(
            f"config argument {sorted(options)[0]!r} is unknown; allowed keys: "
            f"{', '.join(known) or 'none'}"
        )


def preset_for_device() -> str:
    """`gpu` on a GPU or TPU, else `cpu`."""
    return "cpu" if jax.default_backend() == "cpu" else "gpu"


def apply_flagship_size(c: ConfigDict) -> None:
    """The size of addition on a GPU, where a wider model is no better."""
    c.task.carry_chains = c.task.repeats = 0.1
    c.model.width, c.model.num_heads, c.model.mlp_width = 128, 4, 512
    c.optim.batch_size = c.optim.micro_batch_size = 512
    c.train.steps = 1200
    # Half the compilation; a step takes about a tenth longer.
    c.execution.triton_gemm = False


def shrink_to_cpu(c: ConfigDict) -> None:
    """Makes an experiment of ours a matter of minutes on two CPU cores."""
    c.preset = "cpu"
    c.data.max_digits = 8
    c.data.width_multiple = 1
    c.model.width, c.model.num_heads, c.model.mlp_width = 128, 4, 512
    c.execution.dtype, c.execution.kernels = "float32", False
    c.optim.batch_size = c.optim.micro_batch_size = 64
    c.optim.ema_decay = 0.99
    c.train.steps, c.train.minutes = 600, 0.0
    c.eval.grid_stride, c.eval.grid_samples = 5, 8
    c.eval.diagonal_samples = c.eval.set_samples = 20
    # Few programs: each takes a second and a half to compile.
    c.eval.buckets = (160, 320, 3072)
    # Small batches stay in the processor's cache.
    c.eval.token_budget, c.eval.logit_budget = 2**12, 2**24
    # Blocks pay off earlier than on a GPU.
    c.eval.dense_width = 100


def shrink_addition_to_cpu(c: ConfigDict) -> None:
    """The same for addition: half a minute of training, then 10,000 digits."""
    shrink_to_cpu(c)
    c.data.problems_per_row = 2  # less padding, shorter steps
    # With 600, one of eight seeds has an error in some thousand sums on some CPUs.
    c.train.steps = 700
    c.task.carry_chains = c.task.repeats = 0.1
    c.eval.diagonal = (160, 1000, 10000)


def apply_written_size(c: ConfigDict) -> None:
    """The size of division and square roots, whose rows are long."""
    c.data.max_digits, c.data.width_multiple = 4, 16
    c.model.width, c.model.num_heads, c.model.mlp_width = 128, 4, 512
    c.model.num_layers = 3
    c.optim.batch_size = c.optim.micro_batch_size = 256
    c.train.steps = 2000
    c.eval.grid_digits, c.eval.diagonal_samples = 12, 100


def shrink_written_to_cpu(c: ConfigDict) -> None:
    """The same on two CPU cores."""
    shrink_to_cpu(c)
    c.data.max_digits = 3
    c.model.width, c.model.num_heads, c.model.mlp_width = 64, 2, 256
    c.optim.batch_size = c.optim.micro_batch_size = 16
    c.train.steps = 1200
    c.eval.grid_digits, c.eval.grid_stride, c.eval.diagonal_samples = 9, 3, 10
    c.eval.set_lengths = (3, 9)


def shrink_to_smoke(c: ConfigDict) -> None:
    """Makes any experiment small enough for a test on two CPU cores."""
    c.preset = "smoke"
    c.data.max_digits = 3
    c.data.max_numbers = min(c.data.max_numbers, 3)
    c.data.max_offset = min(c.data.max_offset, 8)
    c.data.width_multiple = 1
    c.model.width, c.model.num_heads, c.model.mlp_width = 32, 2, 64
    c.model.num_layers = min(c.model.num_layers, 2)
    c.model.num_recurrences = min(c.model.num_recurrences, 2)
    c.loss.max_backprop = min(c.loss.max_backprop, c.model.num_recurrences)
    c.execution.dtype = "float32"
    c.execution.unroll = c.execution.kernels = False
    c.optim.batch_size = 16 if c.optim.batch_size == c.optim.micro_batch_size else 32
    c.optim.micro_batch_size = 16
    c.train.steps, c.train.minutes = 30, 0.0
    c.eval.grid_digits, c.eval.grid_stride, c.eval.grid_samples = 8, 4, 4
    c.eval.diagonal, c.eval.diagonal_samples = (12,), 4
    c.eval.set_lengths, c.eval.set_samples = (4, 8), 4
    c.eval.buckets = (64,)
