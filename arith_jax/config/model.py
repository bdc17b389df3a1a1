"""The shape and rules of a model, and how a device computes it."""

import dataclasses
import math

from arith_jax.checks import MAX_INT, check_choice, check_range, check_types, shown
from arith_jax.positions.schemes import Abacus, Scheme
from arith_jax.positions.written import FIRST

TOKEN_POSITIONS = ("abacus", "learned")
# Largest size of the parameters of a model, in float32. It is known before anything is
# allocated, so that a config of unknown origin cannot use up the memory. Who wants
# more changes it here.
MAX_PARAMETER_BYTES = 16 * 2**30
# Layers that a token can pass through: each is a part of the program.
MAX_DEPTH = 1024
MAX_WINDOW = 1000
# As many places are put into a random order for every layer of a step.
MAX_RANDOM_PLACE = 2**15
ATTENTION_POSITIONS = ("fire", "rope", "relative_abacus", "rotary_abacus")


@dataclasses.dataclass(frozen=True)
class McLeishConfig:
    """What the original has and our own models do without.

    Attributes:
        head_mlp: An extra gated MLP before the final norm.
        adapter: An extra square matrix before the decoder.
        deepnorm: Initial values by DeepNorm instead of by fan-in.
        qkv_gain_quirk: DeepNorm's gain of values on the rows of the last heads, where
            the original's attention for FIRE and RoPE puts it.
    """

    head_mlp: bool = False
    adapter: bool = False
    deepnorm: bool = False
    qkv_gain_quirk: bool = False

    def __post_init__(self):
        check_types("model.mcleish", type(self), vars(self))
        if self.qkv_gain_quirk and not self.deepnorm:
            raise ValueError(
                "model.mcleish.qkv_gain_quirk=True needs model.mcleish.deepnorm=True"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and rules of a model; `configs/base.py` describes the keys.

        >>> ModelConfig(width=128).head_width
        32

    Attributes:
        width: Numbers per token.
        num_heads: Attention heads.
        mlp_width: Of the gated MLP, both halves counted.
        num_layers: Layers in the recurrent block.
        num_recurrences: Times the block is applied.
        injection: When the embedding is added: none, recurrence or layer.
        initial_state: embedding, or noise as in the original.
        positions: Any of `TOKEN_POSITIONS` and `ATTENTION_POSITIONS`; () is NoPE.
        fire_max_length: In training, FIRE sees a row's places as random ones below
            this, in ascending order; 0: as they are. Evaluation is not changed.
        table_size: Rows of the Abacus or learned table. In an experiment 0 stands for
            as many as its longest number needs.
        abacus_window: Differences of digits with a bias of their own.
        abacus_far: What becomes of digits beyond the window: mask, or one shared bias.
        norm: sandwich, x = LN(x + f(LN(x))); or post, x = LN(x + f(x)).
        norm_eps: Added to the variance.
        qk_norm: Queries and keys of unit RMS, with a learned scale per head.
        length_scale: Whether logits are multiplied by ln(visible keys + 1) / ln 32.
        mcleish: What only the original has.
        vocab_size: Symbols; an experiment takes it from its task.
        scheme: How tokens are numbered; an experiment takes it from its data.
    """

    width: int = 128
    num_heads: int = 4
    mlp_width: int = 512
    num_layers: int = 2
    num_recurrences: int = 1
    injection: str = "none"
    initial_state: str = "embedding"
    positions: tuple[str, ...] = ("relative_abacus",)
    fire_max_length: int = 0
    table_size: int = 0
    abacus_window: int = 2
    abacus_far: str = "mask"
    norm: str = "sandwich"
    norm_eps: float = 1e-6
    qk_norm: bool = True
    length_scale: bool = False
    mcleish: McLeishConfig = McLeishConfig()
    vocab_size: int = 19
    scheme: Scheme = Abacus()

    def __post_init__(self):
        check_types("model", type(self), vars(self))
        check_choice(
            "model",
            self,
            injection=("none", "recurrence", "layer"),
            initial_state=("embedding", "noise"),
            abacus_far=("bias", "mask"),
            norm=("post", "sandwich"),
        )
        sizes = ("width", "num_heads", "mlp_width", "num_layers", "num_recurrences")
        check_range("model", self, 1, MAX_INT, *sizes)
        check_range("model", self, 0, MAX_INT, "table_size")
        check_range("model", self, 0, MAX_RANDOM_PLACE, "fire_max_length")
        check_range("model", self, 0, MAX_WINDOW, "abacus_window")
        check_range("model", self, 0.0, math.inf, "norm_eps")
        known = TOKEN_POSITIONS + ATTENTION_POSITIONS
        for name in self.positions:
            if name not in known:
                raise ValueError(
                    f"model.positions has {shown(name)}; allowed: any of "
                    f"{', '.join(known)}"
                )
        if self.fire_max_length and "fire" not in self.positions:
            raise ValueError(
                f"model.fire_max_length={self.fire_max_length} needs 'fire' in "
                "model.positions; set it to 0"
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"model.width={self.width} is not a multiple of "
                f"model.num_heads={self.num_heads}; change one of them"
            )
        if self.mlp_width % 2:
            raise ValueError(
                f"model.mlp_width={self.mlp_width}: must be even, for two halves"
            )
        if self.depth > MAX_DEPTH:
            raise ValueError(
                f"model.num_layers={self.num_layers} x model.num_recurrences="
                f"{self.num_recurrences}: must be at most {MAX_DEPTH} layers"
            )
        self.check_size()
        if {"rope", "rotary_abacus"} & set(self.positions) and self.head_width % 2:
            raise ValueError(
                f"rotary positions need an even head width, got {self.head_width}; "
                "change model.width or model.num_heads"
            )
        if self.initial_state == "noise" and self.injection == "none":
            raise ValueError(
                "model.initial_state='noise' with model.injection='none' never shows "
                "the input to the model; use initial_state='embedding' or an injection"
            )
        if len(self.scheme.levels) > 1 and self.abacus_window > FIRST - 2:
            raise ValueError(
                f"model.abacus_window={self.abacus_window}: at most {FIRST - 2} with "
                f"data.position_ids={self.scheme.name!r}"
            )

    @property
    def head_width(self) -> int:
        """Numbers per head."""
        return self.width // self.num_heads

    @property
    def depth(self) -> int:
        """Layers that a token passes through."""
        return self.num_layers * self.num_recurrences

    @property
    def matrix_size(self) -> int:
        """Numbers in all matrices and tables: nearly all of the parameters."""
        mlp = self.width * self.mlp_width * 3 // 2
        num_mlps = self.num_layers + self.mcleish.head_mlp
        num_squares = 4 * self.num_layers + self.mcleish.adapter
        num_tables = len({*TOKEN_POSITIONS} & {*self.positions})
        num_rows = 2 * self.vocab_size + num_tables * self.table_size
        return num_mlps * mlp + (num_squares * self.width + num_rows) * self.width

    def check_size(self) -> None:
        """Raises `ValueError` if there are more parameters than anyone wants."""
        if 4 * self.matrix_size > MAX_PARAMETER_BYTES:
            raise ValueError(
                f"model.width={self.width}, model.mlp_width={self.mlp_width}, "
                f"model.num_layers={self.num_layers} and model.table_size="
                f"{self.table_size} make {4 * self.matrix_size / 2**30:.0f} GiB of "
                f"parameters; allowed: {MAX_PARAMETER_BYTES / 2**30:.0f} GiB "
                "(MAX_PARAMETER_BYTES in arith_jax/config/model.py)"
            )

    def check_table(self, max_position_id: int, max_offset: int = 0) -> None:
        """Raises `ValueError` if a position table, or a level of ids, ends too early.

        Past its table an embedding is NaN, and a place past its level is another line,
        silently, so this must be known before the first trace. Row 0 of a table is the
        row of the tokens that are not digits.
        """
        limit = self.scheme.max_place
        if max_position_id >= limit:
            raise ValueError(
                f"data.position_ids={self.scheme.name!r} with position ids up to "
                f"{max_position_id}: must be below {limit}; lower the lengths"
            )
        needed = max_position_id + max_offset + 1
        if "abacus" in self.positions and self.table_size < needed:
            raise ValueError(
                f"model.table_size={self.table_size} is too small: position ids up to "
                f"{max_position_id} with offset {max_offset} need {needed} rows; raise "
                "model.table_size or lower data.max_offset or the lengths"
            )

    def check_random_places(self, width: int, problems_per_row: int) -> None:
        """Raises `ValueError` if places of FIRE in training rows cannot be random."""
        limit = self.fire_max_length
        if limit and (limit <= width or problems_per_row > 1):
            raise ValueError(
                f"model.fire_max_length={limit}: must be above the {width} tokens of a "
                "training row, and data.problems_per_row 1; change that or set it to 0"
            )

    def check_row(self, width: int) -> None:
        """Raises `ValueError` if a learned position table is shorter than a row."""
        if "learned" in self.positions and self.table_size < width:
            raise ValueError(
                f"model.table_size={self.table_size} is too small: rows of {width} "
                f"tokens need {width} learned positions; raise model.table_size or "
                "lower the lengths"
            )


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a device computes a model; results change by rounding only.

    Attributes:
        dtype: Of activations, float32 or bfloat16; parameters are always float32.
        unroll: Whether layers and recurrences are written out one after another, which
            makes steps faster and compilation longer, or stay in loops.
        kernels: Whether attention, norms and gates are GPU kernels of our own.
        triton_gemm: Whether XLA may make matrix products itself, beside cuBLAS: faster
            steps, twice the compilation.
    """

    dtype: str = "float32"
    unroll: bool = False
    kernels: bool = False
    triton_gemm: bool = True

    def __post_init__(self):
        check_types("execution", type(self), vars(self))
        check_choice("execution", self, dtype=("float32", "bfloat16"))
