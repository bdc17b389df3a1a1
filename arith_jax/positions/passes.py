"""Position ids of a radix sort that is written out, and what its tokens can see."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from arith_jax import vocab
from arith_jax.positions.abacus import abacus_positions
from arith_jax.positions.schemes import (
    KeyLevels,
    Level,
    Levels,
    Scheme,
    is_symbol_or_digit,
    out_of_window,
)
from arith_jax.positions.written import FIRST

# Above all keys of a list (102) and all tokens of a scan.
RANKS = 2**7
# Ten for each pass; with two numbers below `RANKS` and a bit beside it, 31 bits.
SCANS = 2**16


class Fields(NamedTuple):
    """What an id is made of.

    Attributes:
        scan: In the answer ten times the pass, from 1, plus the value of the scan; at
            `=`, which ends the list, 9. In the list ten times the place of a digit.
        index: Number of a token in its scan, from 1, which is the digit that begins
            it; `=` has the one after the last key. In the list 0.
        rank: Keys of the pass up to this token; in the list items up to this one.
        is_key: Whether it is a key.
    """

    scan: Int[Array, "*dims"]
    index: Int[Array, "*dims"]
    rank: Int[Array, "*dims"]
    is_key: Bool[Array, "*dims"]


def join_fields(fields: Fields) -> Int[Array, "*dims"]:
    """Ids; a number that has no room, as in an answer gone wrong, is the largest."""
    scan = jnp.minimum(fields.scan, SCANS - 1)
    index, rank = (jnp.minimum(n, RANKS - 1) for n in (fields.index, fields.rank))
    return ((scan * RANKS + index) * RANKS + rank) * 2 + fields.is_key


def split_fields(ids: Int[Array, "*dims"]) -> Fields:
    """What ids are made of."""
    rest = ids // 2
    is_key = ids % 2 == 1
    return Fields(rest // RANKS**2, rest // RANKS % RANKS, rest % RANKS, is_key)


def list_fields(is_digit: Bool[Array, "b t"], is_token: Bool[Array, "b t"]) -> Fields:
    """Fields of a list of items: a key, a symbol, the digits of a number, a symbol.

    Args:
        is_digit: True where the token is one of 0-9.
        is_token: True where the token is a digit or another symbol.
    """
    before = lambda x: jnp.pad(x, ((0, 0), (1, 0)))[:, :-1]
    ends_item = before(is_digit) & ~is_digit
    is_key = is_token & (before(ends_item) | ~before(is_token))
    place = abacus_positions(is_digit)
    item = jnp.cumsum(is_key, axis=1)
    return Fields(10 * place, jnp.zeros_like(item), item, is_key)


def answer_fields(
    is_equals: Bool[Array, "b t"],
    is_separator: Bool[Array, "b t"],
    is_key: Bool[Array, "b t"],
    num_items: Int[Array, "b t"],
) -> Fields:
    """Fields of the passes, from `=` on.

    Args:
        is_equals: True at `=`.
        is_separator: True at the digits of the answer.
        is_key: True at its keys.
        num_items: Length of the list, at `=`.
    """
    scan = jnp.minimum(9 + jnp.cumsum(is_separator, axis=1), SCANS - 1)
    here = jnp.arange(is_equals.shape[1])[None]
    begins = jnp.where(is_equals, here - num_items, 0)
    begins = jnp.where(is_separator, here, begins)
    index = here - jax.lax.cummax(begins, axis=1) + 1
    num_keys = jnp.cumsum(is_key, axis=1)
    begins_pass = is_separator & (scan % 10 == 0)
    before = jax.lax.cummax(jnp.where(begins_pass, num_keys, 0), axis=1)
    return Fields(scan, index, num_keys - before, is_key)


@dataclasses.dataclass(frozen=True)
class Passes(Scheme):
    """Place, line and turn of a list and its radix sort.

    Token i of a scan stands before the key that has its turn next, the i-th one of the
    pass before (of the list, before the first pass); sees this one only; and stands at
    the place of the pass. A line is an item of the list, or a scan, which sees the
    digit that begins it. Items see themselves only; their digits beside the place, and
    all their symbols but keys, are seen from the whole answer. So a token of the answer
    sees one key, its scan's value, and of each item whether it has such digits.

    Attributes:
        equals_id: Token of `=`.
        left_out_id: Token that stands for a key that a scan leaves out.
    """

    equals_id: int
    left_out_id: int

    name: ClassVar = "passes"
    levels: ClassVar = (
        Level("abacus"),
        Level("line", window=0),
        Level("turn", window=0),
    )
    symbol_id: ClassVar = FIRST
    has_offset: ClassVar = False
    max_place: ClassVar = SCANS // 10

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """Ids of `Fields`; there is no offset and there are no blanks."""
        del offset, has_blanks
        is_equals, is_digit = ids == self.equals_id, vocab.is_digit(ids)
        num_equals = jnp.cumsum(is_equals, axis=1)
        is_answer = num_equals > 0
        items = list_fields(is_digit, is_symbol_or_digit(ids))
        answer = answer_fields(
            is_equals & (num_equals == 1),
            is_digit & is_answer,
            self.is_key(ids) & is_answer,
            items.rank,
        )
        return jnp.where(is_answer, join_fields(answer), join_fields(items))

    def is_key(self, ids: Int[Array, "*dims"]) -> Bool[Array, "*dims"]:
        """Whether tokens of the answer are keys."""
        is_symbol = is_symbol_or_digit(ids) & ~vocab.is_digit(ids)
        return is_symbol & (ids != self.left_out_id) & (ids != self.equals_id)

    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """A digit begins a scan, every tenth one a pass; what else comes is counted."""
        del earlier
        scan, index, rank, _ = split_fields(previous)
        is_separator, is_key = vocab.is_digit(token), self.is_key(token)
        scan = jnp.minimum(scan + is_separator, SCANS - 1)
        index = jnp.where(is_separator, 1, index + 1)
        rank = jnp.where(is_separator & (scan % 10 == 0), 0, rank) + is_key
        return join_fields(Fields(scan, index, rank, is_key))

    def query_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """Places of digits and passes; lines; turns, which only the answer has."""
        scan, index, rank, _ = split_fields(ids)
        is_answer, place = index > 0, scan // 10
        turn = jnp.where(is_answer, RANKS * place + index, 0)
        line = jnp.where(is_answer, RANKS + scan, rank)
        return jnp.where(is_answer | (place > 0), place + FIRST, 0), line, turn

    def key_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """Places of digits of the list, lines of it and of separators, turns of keys.

        What is left of the answer has a turn that never comes.
        """
        scan, index, rank, is_key = split_fields(ids)
        place, line, _ = self.query_levels(ids)
        is_answer, is_separator = index > 0, index == 1
        turn = RANKS * (scan // 10 + 1) + jnp.where(is_key, rank, 0)
        return (
            jnp.where(is_answer, 0, place),
            jnp.where(is_answer & ~is_separator, 0, line),
            jnp.where(is_key | (is_answer & ~is_separator), turn, 0),
        )

    def visible(
        self, query: Levels, key: KeyLevels, window: int | None
    ) -> Bool[Array, "b t s"] | bool:
        """The list from the answer, but of its keys one; and one item from itself."""
        is_in_line = query[1][:, :, None] == key[1][:, None, :]
        is_scan = (key[1] >= RANKS)[:, None, :]
        from_answer = ~out_of_window(query[2], key[2], 0) & (is_in_line | ~is_scan)
        is_answer = (query[2] > 0)[:, :, None]
        seen = jnp.where(is_answer, from_answer, is_in_line)
        return seen & super().visible(query, key, window)
