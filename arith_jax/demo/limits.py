"""What the page takes from a browser: limits, and checks before anything is parsed.

A browser may send anything in place of anything, whatever the page offers. Lengths are
looked at first, so that the time a check takes does not grow with what was sent.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

from arith_jax.checks import shown

# Digits of a typed number, and of one that is drawn.
MAX_DIGITS = 1000
MAX_DRAWN = 200
# Tokens of the longest answer that a pair of lengths can have: products that are worked
# out on paper have many more than their digits.
MAX_ANSWER = 1200
# Largest sums of the comparison, and sums of each length.
MAX_COMPARED = 200
NUM_COMPARED = 4
# Times the trained number of recurrences that the slider goes to.
MAX_FACTOR = 2
# Events that wait, and bytes of one request: room for numbers that are far too long, so
# that the page can say so.
MAX_WAITING = 16
MAX_REQUEST = 2**19
MAX_SESSIONS = 64

# As the page writes them, and as a model reads them.
PLUS, MINUS, TIMES = "+", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
OPERATORS = {PLUS: "+", MINUS: "-", TIMES: "x"}


def read_number(value: Any, name: str) -> str:
    """The digits of a typed number, without leading zeros.

    Args:
        value: What came from the browser.
        name: Of the field, for people.

    Raises:
        ValueError: If it is not a whole number of at most `MAX_DIGITS` digits.
    """
    if not isinstance(value, str):
        raise ValueError(f"The {name} is not a text; type the digits of a number.")
    if len(value) > MAX_DIGITS:
        raise ValueError(
            f"The {name} has {len(value):,} characters; this page takes at most "
            f"{MAX_DIGITS:,} digits. For longer ones use python -m arith_jax.solve "
            "--file=FILE."
        )
    text = value.strip()
    if not text:
        raise ValueError(f"The {name} is empty; type its digits, or draw numbers.")
    if not re.fullmatch(r"[0-9]+", text, re.ASCII):
        wrong = next(symbol for symbol in text if symbol not in "0123456789")
        raise ValueError(
            f"The {name} has {shown(wrong)} in it; only the digits 0 to 9 are allowed, "
            "without signs, points or blanks."
        )
    return text.lstrip("0") or "0"


def read_whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number from a slider or a click.

    Args:
        value: What came from the browser; 20.0 counts as 20.
        name: What it is, for people.
        low: The smallest allowed.
        high: The largest allowed.

    Raises:
        ValueError: If it is none of these.
    """
    is_number = type(value) is int or type(value) is float
    # NaN is not in any range.
    if not (is_number and low <= value <= high and value == int(value)):
        raise ValueError(
            f"The {name} is {shown(value)}; it must be a whole number from {low} to "
            f"{high:,}."
        )
    return int(value)


def read_word(value: Any, name: str, allowed: Sequence[str]) -> str:
    """One of the words that a field offers.

    Args:
        value: What came from the browser.
        name: Of the field, for people.
        allowed: The words.

    Raises:
        ValueError: If it is none of them.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(
            f"The {name} is {shown(value)}; it must be one of {', '.join(allowed)}."
        )
    return value


def draw_number(rng: random.Random, length: int) -> str:
    """A random number of exactly so many digits; of one digit, 0 as well."""
    low = 10 ** (length - 1) if length > 1 else 0
    return str(rng.randrange(low, 10**length))
