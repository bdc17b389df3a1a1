"""Calculations with two numbers: everything but the operation itself.

A task of this kind is a subclass that says how its answer is calculated and written,
on the device and on the host; `tasks.Task` says what each method is for. Imports
`digits` and `operands`.
"""

import abc
import dataclasses
import random
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt

from arith_jax import digits, vocab
from arith_jax.digits import Part, Words, word_below
from arith_jax.operands import Sampler

PLAIN = "0123456789+-x= "
LENGTH_AXES = ("digits of the first operand", "digits of the second operand")


def length_regions(a: int, b: int, most: tuple[int, int]) -> tuple[str, ...]:
    """Inside training, longer but within 100 digits, or longer than that."""
    if a <= most[0] and b <= most[1]:
        return ("id",)
    return ("ood",) if max(a, b) <= 100 else ("ood_100plus",)


@dataclasses.dataclass(frozen=True)
class Arithmetic(abc.ABC):
    """Two numbers, an operator and the result, least significant digit first.

    Attributes:
        zero_pad: Write both operands with as many digits as the longer one.
        carry_chains: Share of training examples, 0 to 1, given one long chain of
            carries or borrows.
        repeats: Share of training examples with two different digits at most, half of
            them with operands of one length. Most of what a window can show next to
            the ends of two numbers is rare among uniform digits (999 + 999).
        blanks: Chance, 0 to 1, of a blank (`PAD`) before each token of the prompt; in
            training only, as in the paper.
        index_hints: Write a hint symbol before every digit, the same one for digits of
            equal place value. Evaluation starts at the first symbol.

    Source:
        McLeish et al. 2024, section 3 and appendix; original generator `--reverse_all`.
        Zero padding after Cho et al. 2024 (both operands; the answer stays natural).
    """

    zero_pad: bool = False
    carry_chains: float = 0.0
    repeats: float = 0.0
    blanks: float = 0.0
    index_hints: bool = False

    title = ""  # "addition"
    singular = ""  # "a sum"
    operators = ""  # what may be typed; the first is written
    example = ""  # a telling expression
    # Ways to draw operands and what they are, for people; "uniform" is the first.
    drawn: ClassVar[Mapping[str, tuple[Sampler, str]]] = {}
    answer_symbols = 0  # most tokens of an answer that are not digits

    parts = ("uniform",)
    axes = LENGTH_AXES
    answer_axis = "answer digit, least significant first"
    first_answer = ""

    def __post_init__(self):
        for name in ("carry_chains", "repeats", "blanks"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"data.{name}={getattr(self, name)}: must be between 0 and 1"
                )
        if self.carry_chains + self.repeats > 1.0:
            raise ValueError(
                f"data.carry_chains={self.carry_chains} and data.repeats="
                f"{self.repeats}: together at most 1"
            )

    @abc.abstractmethod
    def answer_digits(self, len_a: int, len_b: int) -> int:
        """Most digits of a result."""

    @abc.abstractmethod
    def answer(
        self, a: Int[Array, " n"], b: Int[Array, " n"], longest: Int[Array, ""]
    ) -> Part:
        """The answer's tokens from the operands' digits; `longest` as written."""

    @abc.abstractmethod
    def result(self, a: int, b: int, longest: int) -> str:
        """The answer by Python integers, as the model writes it."""

    @property
    def kinds(self) -> dict[str, str]:
        """Ways to draw operands, which are evaluation sets."""
        return {kind: label for kind, (_, label) in self.drawn.items()}

    @property
    def operator(self) -> str:
        """The operator as the model sees it."""
        return self.operators[0]

    @property
    def vocab(self) -> vocab.Vocab:
        """The symbols."""
        return vocab.INDEX if self.index_hints else vocab.ARITHMETIC

    @property
    def num_numbers(self) -> int:
        """Numbers in a row: both operands and the answer."""
        return 0 if self.index_hints else 3

    @property
    def num_symbols(self) -> int:
        """Other tokens of a row: operator, equals, EOS, and the answer's symbols."""
        return 3 + self.answer_symbols

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        return f"{a} {self.operator} {b} digits"

    def regions(self, a: int, b: int, most: tuple[int, int]) -> tuple[str, ...]:
        """Where a cell is counted, given the largest trained size."""
        return length_regions(a, b, most)

    def cell(self, kind: str, a: int, b: int, wanted: int) -> tuple[int, int, int]:
        """The cell of a set and its number of examples; 999...9 + 1 has only one."""
        return (a, 1, 1) if kind == "nines" else (a, b, wanted)

    def row_width(self, len_a: int, len_b: int) -> int:
        """Tokens of the longest row with operands of these lengths, `EOS` included."""
        operands = 2 * max(len_a, len_b) if self.zero_pad else len_a + len_b
        prompt = operands * (2 if self.index_hints else 1) + 2
        # Blanks are cut at twice the prompt, which p <= 1/2 reaches once in a lifetime.
        prompt *= 2 if self.blanks else 1
        return prompt + self.answer_width(len_a, len_b) + 1

    def answer_width(self, len_a: int, len_b: int) -> int:
        """Most tokens of an answer, without `EOS`."""
        count = self.answer_digits(len_a, len_b)
        return count * (2 if self.index_hints else 1) + self.answer_symbols

    def longest_number(self, len_a: int, len_b: int) -> int:
        """Most digits of any number in a row."""
        return max(len_a, len_b, self.answer_digits(len_a, len_b))

    def draw_cell(
        self, words: UInt[Array, " 2"], most: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """Lengths of a training example: uniform and independent."""
        return 1 + word_below(words, jnp.array(most))

    def draw_kind(self, words: Words) -> tuple[Int[Array, ""] | int, Int[Array, ""]]:
        """Kind of a training example, and 1 if its operands have one length."""
        kinds = list(self.drawn)
        shares = {"chains": self.carry_chains, "repeats": self.repeats}
        shares = {name: share for name, share in shares.items() if share > 0}
        if not shares:
            return 0, jnp.int32(0)
        drawn = mixed_kind(words.choices[1], shares, kinds)
        is_repeats = drawn == kinds.index("repeats")
        return drawn, (is_repeats & (words.choices[3] % 2 == 0)).astype(jnp.int32)

    def sample(
        self,
        key: PRNGKeyArray,
        len_a: Int[Array, ""],
        len_b: Int[Array, ""],
        sizes: tuple[int, int],
        width: int,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " {width}"]:
        """Draws one row: prompt, answer, `EOS`, then `PAD`; see `tasks.Task`."""
        del example  # the key already differs
        is_training = kind is None
        key_words, key_blank = jax.random.split(key)
        max_digits = max(sizes)
        words = digits.random_words(key_words, max_digits)
        if kind is None:
            kind, alike = self.draw_kind(words)
            len_b = jnp.where(alike == 1, len_a, len_b)
        samplers = [sampler for sampler, _ in self.drawn.values()]
        if isinstance(kind, int):
            a, b = samplers[kind](words, len_a, len_b)
        else:
            a, b = jax.lax.switch(kind, samplers, words, len_a, len_b)
        len_b = jnp.where(kind == list(self.drawn).index("equal"), len_a, len_b)
        longest = jnp.maximum(len_a, len_b)
        answer = self.answer(a, b, longest)
        if self.zero_pad:
            len_a = len_b = longest
        digit = vocab.DIGIT_ZERO
        operator, equals, eos = (
            jnp.array([token])
            for token in (*self.vocab.encode(self.operator + "="), vocab.EOS)
        )
        prompt = [(a + digit, len_a), (operator, 1), (b + digit, len_b), (equals, 1)]
        if self.blanks > 0 and is_training:
            row = digits.concatenate(prompt, 2 * (2 * max_digits + 2))
            length = len_a + len_b + 2
            prompt = [digits.insert_blanks(key_blank, row, length, self.blanks)]
        row = digits.concatenate([*prompt, answer, (eos, 1)], width)
        if self.index_hints:
            # Other decimals of this word place the chains.
            start = digits.hint_start(words.choices[0] // 1000)
            row = digits.insert_hints(row, start if is_training else 0)
        return row

    def prompt(self, expression: str) -> str:
        """Model input for a readable calculation: `98+120` becomes `89+021=`.

        Raises:
            ValueError: If it is not this operation on two non-negative integers.
        """
        pattern = rf"\s*(\d+)\s*[{re.escape(self.operators)}]\s*(\d+)\s*=?\s*"
        match = re.fullmatch(pattern, expression, re.ASCII)
        if match is None:
            raise ValueError(
                f"expression {expression!r} is not {self.singular}; allowed: two "
                f"non-negative integers joined by "
                f"{' or '.join(map(repr, self.operators))}, as in {self.example}"
            )
        numbers = [str(digits.int_from_digits(number)) for number in match.groups()]
        longest = max(map(len, numbers)) if self.zero_pad else 0
        a, b = (self.hinted(number.zfill(longest)[::-1]) for number in numbers)
        return f"{a}{self.operator}{b}="

    def hinted(self, number: str) -> str:
        """A written number with its index hints, if there are any."""
        if not self.index_hints:
            return number
        hint = lambda place: vocab.HINTS[place % len(vocab.HINTS)]
        pairs = enumerate(number)
        return "".join(hint(i) + d if d.isdigit() else d for i, d in pairs)

    def operands(self, prompt: str) -> tuple[str, str]:
        """The operands of a prompt, most significant digit first."""
        plain = "".join(symbol for symbol in prompt if symbol in PLAIN.strip())
        a, b = plain.removesuffix("=").split(self.operator)
        return a[::-1], b[::-1]

    def sizes(self, prompt: str) -> tuple[int, int]:
        """Digits of the operands of a prompt."""
        a, b = self.operands(prompt)
        return len(a), len(b)

    def read(self, prompt: str, answer: str) -> str:
        """Readable form of an answer of the model: `812` becomes `218`."""
        del prompt  # one way of writing for all
        return "".join(symbol for symbol in answer if symbol in PLAIN)[::-1]

    def truth(self, prompt: str) -> str:
        """The right answer to a prompt, by Python integers, as the model writes it."""
        a, b = self.operands(prompt)
        value = digits.int_from_digits
        return self.hinted(self.result(value(a), value(b), max(len(a), len(b))))

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        number = lambda length: rng.randrange(10 ** (length - 1), 10**length)
        drawn = [f"{number(a)}{self.operator}{number(b)}" for a, b in sizes]
        return [self.example, *drawn]


def mixed_kind(
    word: UInt[Array, ""], shares: Mapping[str, float], kinds: Sequence[str]
) -> Int[Array, ""]:
    """Index into the kinds: each named kind with its share, else the first."""
    place, limit, kind = word_below(word, 10**6), 0.0, jnp.int32(0)
    for name, share in shares.items():
        inside = (place >= limit * 10**6) & (place < (limit + share) * 10**6)
        kind = jnp.where(inside, kinds.index(name), kind)
        limit += share
    return kind
