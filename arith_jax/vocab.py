"""Symbols and their ids. Imports nothing of the package."""

import dataclasses
from collections.abc import Iterable

from jaxtyping import Array, Bool, Int

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
# Index hints of addition, and the keys of sorting.
HINTS = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwyz"
    "!@£#$%^&*()~?.,<>{}[]:;/|βΓΔδεζηθκΛλμΞξΠπΣςτΦφχΨψΩω"
)
INDEX = Vocab("0123456789+-x= " + HINTS)
SORT = Vocab("0123456789D,:= " + "".join(c for c in HINTS if c not in "D,:"))


def is_digit(ids: Int[Array, "*dims"]) -> Bool[Array, "*dims"]:
    """True where a token is one of 0-9."""
    return (ids >= DIGIT_ZERO) & (ids < DIGIT_ZERO + NUM_DIGITS)
