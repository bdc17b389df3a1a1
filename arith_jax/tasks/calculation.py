"""Calculations with two numbers: everything but the operation itself.

A task of this kind is a subclass that says how its answer is calculated and written,
on the device and on the host; `task.Task` says what each method is for.
"""

import abc
import dataclasses
import random
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt

from arith_jax import vocab
from arith_jax.checks import check_types, shown
from arith_jax.positions.schemes import Abacus, Coupled, Kinds, Scheme
from arith_jax.positions.written_schemes import Lines
from arith_jax.tasks import digits
from arith_jax.tasks.digits import Segment, word_below
from arith_jax.tasks.operands import Sampler, mixed_kind
from arith_jax.tasks.task import ANY_SIZES, Layout, PairKinds, why_not

PLAIN = "0123456789+-x= "
# Its second operand has one line of written work for each digit.
LINE_OPERATOR = "x"
LENGTH_AXES = ("digits of the first operand", "digits of the second operand")


def length_regions(a: int, b: int, max_cell: tuple[int, int]) -> tuple[str, ...]:
    """Inside training, longer but within 100 digits, or longer than that."""
    if a <= max_cell[0] and b <= max_cell[1]:
        return ("id",)
    return ("ood",) if max(a, b) <= 100 else ("ood_100plus",)


@dataclasses.dataclass(frozen=True)
class Calculation(abc.ABC):
    """Two numbers, an operator and the result, least significant digit first.

    Attributes:
        zero_pad: Write both operands with as many digits as the longer one.
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
    repeats: float = 0.0
    blanks: float = 0.0
    index_hints: bool = False

    title = ""  # "addition"
    singular = ""  # "a sum"
    operators = ""  # what may be typed; the first is written
    example = ""  # a telling expression
    # Ways to draw operands and what they are, for people; "uniform" is the first.
    samplers: ClassVar[Mapping[str, tuple[Sampler, str]]] = {}
    # Kinds of operands that an option gives a share of the training examples.
    share_options: ClassVar[Mapping[str, str]] = {"repeats": "repeats"}
    max_answer_symbols = 0  # tokens of an answer that are no digits

    has_lists = False
    max_sizes = ANY_SIZES
    subtasks = ("uniform",)
    axes = LENGTH_AXES
    answer_axis = "answer digit, least significant first"
    first_answer = ""

    def __post_init__(self):
        check_types("task", type(self), vars(self))
        for name in (*self.share_options.values(), "blanks"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"task.{name}={getattr(self, name)}: must be between 0 and 1"
                )
        if sum(self.shares.values()) > 1.0:
            shares = zip(self.share_options.values(), self.shares.values(), strict=True)
            raise ValueError(
                " and ".join(f"task.{name}={share}" for name, share in shares)
                + ": together at most 1"
            )

    @abc.abstractmethod
    def answer_digits(self, len_a: int, len_b: int) -> int:
        """Digits of the longest result."""

    @abc.abstractmethod
    def answer_tokens(
        self, a: Int[Array, " n"], b: Int[Array, " n"], max_length: Int[Array, ""]
    ) -> Segment:
        """The answer from the digits of the operands; inside jit.

        Args:
            a: Digits of the first operand, least significant first, then zeros.
            b: Digits of the second operand.
            max_length: Digits of the longer operand.
        """

    @abc.abstractmethod
    def answer_text(self, a: int, b: int, max_length: int) -> str:
        """The answer by Python integers, as the model writes it."""

    @property
    def eval_sets(self) -> dict[str, str]:
        """Ways to draw operands, which are evaluation sets."""
        return {kind: label for kind, (_, label) in self.samplers.items()}

    @property
    def shares(self) -> dict[str, float]:
        """Shares of training examples by kind of operands; the rest are uniform."""
        return {kind: getattr(self, name) for kind, name in self.share_options.items()}

    @property
    def is_plain(self) -> bool:
        """Whether a row is the calculation and nothing else."""
        return not (self.blanks or self.index_hints)

    @property
    def has_blanks(self) -> bool:
        """Whether there are blanks in the prompts of training."""
        return self.blanks > 0

    @property
    def is_packable(self) -> bool:
        """Whether several problems can share a training row: plain ones can."""
        return self.is_plain

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes that rows can have; lines are for plain rows."""
        schemes: dict[str, Scheme] = {
            scheme.name: scheme for scheme in (Abacus(), Coupled(), Kinds())
        }
        if self.is_plain:
            equals, operator = self.vocab.encode("=" + LINE_OPERATOR)
            schemes["lines"] = Lines(equals_id=equals, operator_id=operator)
        return schemes

    @property
    def operator(self) -> str:
        """The operator as the model sees it."""
        return self.operators[0]

    @property
    def vocab(self) -> vocab.Vocab:
        """The symbols."""
        return vocab.INDEX if self.index_hints else vocab.ARITHMETIC

    @property
    def max_numbers_per_row(self) -> int:
        """Numbers in a row: both operands and the answer."""
        return 0 if self.index_hints else 3

    @property
    def max_symbols_per_row(self) -> int:
        """Other tokens of a row: operator, `=`, `EOS`, and symbols of the answer."""
        return 3 + self.max_answer_symbols

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        return f"{a} {self.operator} {b} digits"

    def regions(self, a: int, b: int, max_cell: tuple[int, int]) -> tuple[str, ...]:
        """Where a cell is counted, given the largest trained cell."""
        return length_regions(a, b, max_cell)

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell itself, with as many examples as asked for."""
        del kind
        return a, b, count

    def row_width(self, len_a: int, len_b: int) -> int:
        """Tokens of the longest row with operands of these lengths, with `EOS`."""
        operands = 2 * max(len_a, len_b) if self.zero_pad else len_a + len_b
        prompt = operands * (2 if self.index_hints else 1) + 2
        # Blanks may double the prompt; more are left out, which is rare for a chance
        # of at most 1/2.
        prompt *= 2 if self.blanks else 1
        return prompt + self.answer_width(len_a, len_b) + 1

    def answer_width(self, len_a: int, len_b: int) -> int:
        """Tokens of the longest answer, without `EOS`."""
        count = self.answer_digits(len_a, len_b)
        return count * (2 if self.index_hints else 1) + self.max_answer_symbols

    def max_number_length(self, len_a: int, len_b: int) -> int:
        """Digits of the longest number in a row."""
        return max(len_a, len_b, self.answer_digits(len_a, len_b))

    def draw_cell(
        self, words: UInt[Array, " 2"], max_cell: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """Lengths of a training example: uniform and independent."""
        return 1 + word_below(words, jnp.array(max_cell))

    def draw_pair_kinds(self, words: UInt[Array, "n 3"]) -> PairKinds:
        """Kinds of operands of pairs of problems; both of a pair are of one kind."""
        return self.draw_kinds(words[:, 1], words[:, 2])

    def draw_kinds(
        self, words: UInt[Array, "*dims"], coins: UInt[Array, "*dims"]
    ) -> tuple[Int[Array, "*dims"], Bool[Array, "*dims"]]:
        """Kinds of operands of training examples, and whether both have one length.

        Args:
            words: Random words that decide the kinds.
            coins: Random words that give half of the `repeats` operands of one length.
        """
        kinds = list(self.samplers)
        kind = mixed_kind(words, self.shares, kinds)
        return kind, (kind == kinds.index("repeats")) & (coins % 2 == 0)

    def sample(
        self,
        key: PRNGKeyArray,
        cell: Int[Array, " 2"],
        layout: Layout,
        *,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " t"]:
        """Draws one row: prompt, answer, `EOS`, then `PAD`; see `task.Task`."""
        del example  # the key already differs
        is_training = kind is None
        key_words, key_blank = jax.random.split(key)
        max_digits = max(layout.max_cell)
        words = digits.random_words(key_words, max_digits)
        len_a, len_b = cell[0], cell[1]
        if kind is None and any(self.shares.values()):
            kind, is_alike = self.draw_kinds(words.choices[1], words.choices[3])
            len_b = jnp.where(is_alike, len_a, len_b)
        elif kind is None:
            kind = 0
        samplers = [sampler for sampler, _ in self.samplers.values()]
        if isinstance(kind, int):
            a, b = samplers[kind](words, len_a, len_b)
        else:
            a, b = jax.lax.switch(kind, samplers, words, len_a, len_b)
        len_b = jnp.where(kind == list(self.samplers).index("equal"), len_a, len_b)
        max_length = jnp.maximum(len_a, len_b)
        answer = self.answer_tokens(a, b, max_length)
        if self.zero_pad:
            len_a = len_b = max_length
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
        row = digits.concatenate([*prompt, answer, (eos, 1)], layout.width)
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
        pattern = rf"(\d+)\s*[{re.escape(self.operators)}]\s*(\d+)\s*=?"
        match = re.fullmatch(pattern, expression.strip(), re.ASCII)
        if match is None:
            raise ValueError(
                f"expression {shown(expression)} is not {self.singular}; allowed: two "
                f"non-negative integers joined by "
                f"{' or '.join(map(repr, self.operators))}, as in {self.example}"
                f"{why_not(expression)}"
            )
        numbers = [number.lstrip("0") or "0" for number in match.groups()]
        width = max(map(len, numbers)) if self.zero_pad else 0
        a, b = (self.insert_hints(number.zfill(width)[::-1]) for number in numbers)
        return f"{a}{self.operator}{b}="

    def insert_hints(self, number: str) -> str:
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

    def read_answer(self, prompt: str, answer: str) -> str:
        """Readable form of an answer of the model: `812` becomes `218`."""
        del prompt  # every answer is written in one way
        return "".join(symbol for symbol in answer if symbol in PLAIN)[::-1]

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python integers, as the model writes it."""
        a, b = self.operands(prompt)
        value = digits.int_from_digits
        answer = self.answer_text(value(a), value(b), max(len(a), len(b)))
        return self.insert_hints(answer)

    def longest_carry(self, prompt: str) -> int | None:
        """None: a calculation has no carries unless it says so."""
        del prompt
        return None

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        draw = lambda length: rng.randrange(10 ** (length - 1), 10**length)
        number = lambda length: digits.digits_from_int(draw(length))
        texts = [f"{number(a)}{self.operator}{number(b)}" for a, b in sizes]
        return [self.example, *texts]


@dataclasses.dataclass(frozen=True)
class CarryingCalculation(Calculation):
    """A calculation in which a digit can depend on all lower places.

    Attributes:
        carry_chains: Share of training examples, 0 to 1, given one long chain of
            carries or borrows.
    """

    carry_chains: float = 0.0

    share_options: ClassVar = {"chains": "carry_chains", "repeats": "repeats"}
