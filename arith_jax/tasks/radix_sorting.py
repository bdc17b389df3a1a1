"""Sorting lists of numbers by a radix sort that is written out."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from arith_jax import vocab
from arith_jax.positions.passes import Passes
from arith_jax.positions.schemes import Abacus, Coupled, Scheme
from arith_jax.tasks import digits
from arith_jax.tasks.lists import Numbers
from arith_jax.tasks.sorting import SortingTask

LEFT_OUT = "-"


@dataclasses.dataclass(frozen=True)
class RadixSorting(SortingTask):
    """A radix sort, by the last digit first: `a:12,b:4=0--1--...4-b...2--3ba...`.

    Pass p of the answer, one for each place of the longest number, has ten scans. Scan
    v begins with the digit v; then it goes through the keys in the order of the pass
    before, that of the list at first, and writes those whose number has v at place p,
    and `-` for every other one. A number without that place has 0 there. Each pass has
    every key once; the keys of the last pass are in ascending order of their numbers.
    Equal numbers keep their order.

    No two numbers are compared: a token depends on one key and one of its digits, at
    any length.

    Source:
        Ours; the lists are those of `Sorting`.
    """

    vocab = vocab.RADIX
    title = "radix sorting"
    first_answer = ""

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes that rows can have; passes are those of our recipe."""
        equals_id, left_out_id = self.vocab.encode("=" + LEFT_OUT)
        return {
            "abacus": Abacus(),
            "coupled": Coupled(),
            "passes": Passes(equals_id, left_out_id),
        }

    def answer_width(self, count: int, max_digits: int) -> int:
        """Tokens of an answer: ten scans for each place."""
        return 10 * max_digits * (count + 1)

    def answer_tokens(
        self, numbers: Numbers, keys: Int[Array, " m"], count: Int[Array, ""]
    ) -> digits.Segment:
        """All passes."""
        return radix_sort(numbers, keys, count, self.vocab.id(LEFT_OUT))

    def read_answer(self, prompt: str, answer: str) -> str:
        """The numbers in the order of the last pass; `?` where it names no key."""
        numbers = self.numbers_of_keys(prompt)
        keys = [s for s in answer if s != LEFT_OUT and not s.isdigit()]
        return ",".join(numbers.get(key, "?") for key in keys[-len(numbers) :])

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python, as the model writes it."""
        order, answer = self.items(prompt), ""
        for place in range(max(len(number) for _, number in order)):
            digit = lambda item, n=place: item[1][::-1][n : n + 1] or "0"
            for value in "0123456789":
                written = (i[0] if digit(i) == value else LEFT_OUT for i in order)
                answer += value + "".join(written)
            order = sorted(order, key=digit)
        return answer


def radix_sort(
    numbers: Numbers,
    keys: Int[Array, " m"],
    count: Int[Array, ""],
    left_out: int,
) -> digits.Segment:
    """All passes of a radix sort of the first `count` numbers.

    Args:
        numbers: Of the list.
        keys: Of the numbers.
        count: How many there are.
        left_out: Token that stands for a key that a scan leaves out.
    """
    is_item = jnp.arange(keys.shape[0]) < count
    values = jnp.arange(10)[:, None]

    def write_pass(
        order: Int[Array, " m"], column: Int[Array, " m"]
    ) -> tuple[Int[Array, " m"], Int[Array, "10 m+1"]]:
        # What is no item stays at the end.
        digit = jnp.where(is_item, column, 10)[order]
        scans = jnp.where(digit[None] == values, keys[order][None], left_out)
        scans = jnp.concatenate([values + vocab.DIGIT_ZERO, scans], axis=1)
        return order[jnp.argsort(digit, stable=True)], scans

    order = jnp.arange(keys.shape[0])
    _, passes = jax.lax.scan(write_pass, order, numbers.digits.T)
    num_passes = jnp.max(jnp.where(is_item, numbers.lengths, 0))
    is_pass = jnp.arange(passes.shape[0]) < num_passes
    is_written = jnp.arange(keys.shape[0] + 1) <= count
    mask = is_pass[:, None, None] & is_written[None, None]
    return digits.compact(passes, jnp.broadcast_to(mask, passes.shape))
