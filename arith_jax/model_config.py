"""The shape and rules of a model, checked. Imports `kernels` and `positions`."""

import dataclasses
import re

import jax

from arith_jax import kernels
from arith_jax.positions import FIRST, LEVEL

TOKEN_POSITIONS = ("abacus", "learned")
ATTENTION_POSITIONS = (
    "fire",
    "rope",
    "relative_abacus",
    "rotary_abacus",
)
# The first generation of NVIDIA GPUs that multiplies bfloat16.
AMPERE = 8.0


def compute_capability() -> float:
    """Generation of the NVIDIA GPU that JAX runs on; 0 for any other device."""
    if jax.default_backend() != "gpu":
        return 0.0
    found = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    # That of an AMD GPU is a name.
    return float(found) if re.fullmatch(r"\d+\.\d+", found) else 0.0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and rules of the model; the knobs are described in `configs/base.py`."""

    vocab_size: int
    width: int
    heads: int
    mlp_width: int
    layers: int
    recurrences: int
    max_backprop: int
    injection: str
    initial_state: str
    positions: tuple[str, ...]
    table_size: int
    abacus_window: int
    abacus_far: str
    position_levels: int
    norm: str
    norm_eps: float
    head_mlp: bool
    adapter: bool
    init: str
    qkv_gain_quirk: bool
    qk_norm: bool
    qk_gain: float
    length_scale: bool
    key_noise: float
    dtype: str
    unroll: bool
    kernels: bool

    def __post_init__(self):
        def choose(name: str, *allowed: str):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"model.{name}={getattr(self, name)!r} is unknown; allowed: "
                    + ", ".join(allowed)
                )

        choose("injection", "none", "recurrence", "layer")
        choose("initial_state", "embedding", "noise")
        choose("abacus_far", "bias", "mask")
        choose("norm", "post", "sandwich")
        choose("init", "lecun", "deepnorm")
        choose("dtype", "float32", "bfloat16")
        known = TOKEN_POSITIONS + ATTENTION_POSITIONS
        for name in self.positions:
            if name not in known:
                raise ValueError(
                    f"model.positions has {name!r}; allowed: any of {', '.join(known)}"
                )
        for name in ("width", "heads", "mlp_width", "layers", "recurrences"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"model.{name}={getattr(self, name)}: must be at least 1"
                )
        if self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} is not a multiple of "
                f"model.heads={self.heads}; change one of them"
            )
        if {"rope", "rotary_abacus"} & set(self.positions) and self.head_width % 2:
            raise ValueError(
                f"rotary positions need an even head width, got {self.head_width}; "
                "change model.width or model.heads"
            )
        if self.initial_state == "noise" and self.injection == "none":
            raise ValueError(
                "model.initial_state='noise' with model.injection='none' never shows "
                "the input to the model; use initial_state='embedding' or an injection"
            )
        if self.position_levels not in (1, 2, 3):
            raise ValueError(
                f"model.position_levels={self.position_levels}: must be 1, or 2 for "
                "data.position_ids='lines', or 3 for 'items'"
            )
        if self.position_levels > 1 and self.abacus_window > FIRST - 2:
            raise ValueError(
                f"model.abacus_window={self.abacus_window}: at most {FIRST - 2} with "
                f"model.position_levels={self.position_levels}"
            )
        if not 1 <= self.max_backprop <= self.recurrences:
            raise ValueError(
                f"model.max_backprop={self.max_backprop}: must be between 1 and "
                f"model.recurrences={self.recurrences}"
            )
        if self.qkv_gain_quirk and self.init != "deepnorm":
            raise ValueError(
                f"model.qkv_gain_quirk=True needs model.init='deepnorm', "
                f"got {self.init!r}"
            )

    @property
    def head_width(self) -> int:
        """Numbers per head."""
        return self.width // self.heads

    @property
    def uses_kernels(self) -> bool:
        """Whether `flash`, `norms` and `gate` do what they can, in bfloat16."""
        if not self.kernels or self.dtype != "bfloat16" or kernels.triton is None:
            return False
        return compute_capability() >= AMPERE

    def check_table(self, longest_number: int, max_offset: int) -> None:
        """Raises `ValueError` if a position table, or a level of ids, ends too early.

        `nn.Embed` returns NaN past its table, and a place past its level is another
        line, silently, so this must be known before the first trace. Row 0 of a table
        is the row of the tokens that are not digits.
        """
        if self.position_levels > 1 and longest_number >= LEVEL:
            raise ValueError(
                f"model.position_levels={self.position_levels} with position ids up to "
                f"{longest_number}: must be below {LEVEL}; lower the lengths"
            )
        needed = longest_number + max_offset + 1
        if "abacus" in self.positions and self.table_size < needed:
            raise ValueError(
                f"model.table_size={self.table_size} is too small: numbers of "
                f"{longest_number} digits with offset {max_offset} need {needed} rows; "
                "raise model.table_size or lower data.max_offset or the eval lengths"
            )

    def check_row(self, width: int) -> None:
        """Raises `ValueError` if a learned position table is shorter than a row."""
        if "learned" in self.positions and self.table_size < width:
            raise ValueError(
                f"model.table_size={self.table_size} is too small: rows of {width} "
                f"tokens need {width} learned positions; raise model.table_size or "
                "lower the eval lengths"
            )
