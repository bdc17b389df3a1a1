"""Symbols and their ids."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer

PAD, UNK, BOS, EOS = 0, 1, 2, 3
FIRST_SYMBOL = 4
DIGIT_ZERO = 4
NUM_DIGITS = 10


@dataclasses.dataclass(frozen=True)
class Vocab:
    """One id per character, after the four special ids.

    A space is the blank: it is written and read as `PAD`, as in the original.

    Attributes:
        symbols: Characters in id order from `FIRST_SYMBOL`; digits come first.

    Source:
        mcleish7/arithmetic @ 86022a5, tokenizers `pad`, `index` and `sort`, whose ids
        are kept so that checkpoints can be exchanged.
    """

    symbols: str

    def __len__(self) -> int:
        return FIRST_SYMBOL + len(self.symbols)

    def id(self, symbol: str) -> int:
        """Id of one character; unknown characters raise `ValueError`."""
        if symbol == " ":
            return PAD
        index = self.symbols.find(symbol)
        if index < 0 or len(symbol) != 1:
            raise ValueError(
                f"symbol {symbol!r} is not in the vocabulary; allowed: {self.symbols!r}"
            )
        return FIRST_SYMBOL + index

    def encode(self, text: str) -> list[int]:
        """Ids of a text, one per character."""
        return [self.id(symbol) for symbol in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of a row of ids up to its first `EOS`; blanks come back as spaces."""
        text = ""
        for token in ids:
            if token == EOS:
                break
            is_symbol = token >= FIRST_SYMBOL
            text += self.symbols[int(token) - FIRST_SYMBOL] if is_symbol else " "
        return text


# The literal space (id 18) has an id but is never produced.
ARITHMETIC = Vocab("0123456789+-x= ")
# Of long division, which the original does not have.
DIVISION = Vocab("0123456789+-/= ")
# Of square roots, with symbols for lines of odd numbers and for the root itself.
SQUARE_ROOT = Vocab("0123456789+-/= :√")
# Index hints of addition, and the keys of sorting.
HINTS = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwyz"
    "!@£#$%^&*()~?.,<>{}[]:;/|βΓΔδεζηθκΛλμΞξΠπΣςτΦφχΨψΩω"
)
NUM_HINTS = len(HINTS)
INDEX = Vocab("0123456789+-x= " + HINTS)
SORT = Vocab("0123456789D,:= " + "".join(c for c in HINTS if c not in "D,:"))
# Of radix sorts: a key that is left out of a scan is written as a dash.
RADIX = Vocab(SORT.symbols + "-")


def is_digit(
    ids: Integer[Array, "*dims"], digit_ids: Sequence[int] | None = None
) -> Bool[Array, "*dims"]:
    """True where a token is one of 0-9.

        >>> is_digit(jnp.array(Vocab("0123456789+-x= ").encode("89+1="))).tolist()
        [True, True, False, True, False]

    Args:
        ids: Tokens, of any integer dtype.
        digit_ids: Ids of the ten digits in another vocabulary, contiguous or not;
            default: in the vocabularies of this package.
    """
    if digit_ids is None:
        return (ids >= DIGIT_ZERO) & (ids < DIGIT_ZERO + NUM_DIGITS)
    ids = jnp.asarray(ids)  # NumPy's 64 bits become JAX's usual ones.
    # An id that the dtype cannot hold is in no row; comparing it would overflow.
    limits = jnp.iinfo(ids.dtype)
    ids_in_rows = [i for i in digit_ids if limits.min <= i <= limits.max]
    matches = [ids == jnp.asarray(i, ids.dtype) for i in ids_in_rows]
    return functools.reduce(jnp.logical_or, matches, jnp.zeros(ids.shape, jnp.bool_))
