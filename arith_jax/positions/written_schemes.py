"""Position schemes of work that is written out: ids of several levels.

Each says what stands beside what, so that a token of a line finds all that it is made
of within a few places, at any length.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from arith_jax import vocab
from arith_jax.positions import written
from arith_jax.positions.schemes import (
    KeyLevels,
    Level,
    Levels,
    Scheme,
    is_symbol_or_digit,
    out_of_window,
)


class WrittenScheme(Scheme):
    """Ids of several levels, without offset: the place, the line, and maybe more.

    Every level hides what is beyond its window.
    """

    symbol_id: ClassVar = written.FIRST
    has_offset: ClassVar = False

    def query_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """The place, the line, and what other levels there are."""
        return written.split_levels(ids, len(self.levels))

    def visible(
        self, query: Levels, key: KeyLevels, window: int | None
    ) -> Bool[Array, "b t s"] | bool:
        """What is inside the windows of all levels."""
        seen = super().visible(query, key, window)
        for level, of_query, of_key in zip(
            self.levels[1:], query[1:], key[1:], strict=True
        ):
            seen = seen & ~out_of_window(of_query, of_key, level.window or 0)
        return seen


@dataclasses.dataclass(frozen=True)
class Lines(WrittenScheme):
    """Place and line of calculations that are written out line by line.

    A line of the answer is made from the line before it and what stands beside it.

    Attributes:
        equals_id: Token of `=`.
        operator_id: Token of the operator whose answer has a line for each digit of
            the second operand.
    """

    equals_id: int
    operator_id: int

    name: ClassVar = "lines"
    levels: ClassVar = (Level("abacus"), Level("line", window=1))
    max_place: ClassVar = written.PLACES[2]

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """See `written.line_positions`; there is no offset and there are no blanks."""
        del offset, has_blanks
        is_equals = ids == self.equals_id
        # An operator that a model writes by mistake comes after these were decided.
        is_prompt = jnp.cumsum(is_equals, axis=1) == 0
        return written.line_positions(
            vocab.is_digit(ids),
            is_symbol_or_digit(ids),
            is_equals,
            jnp.any((ids == self.operator_id) & is_prompt, axis=1),
        )

    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """See `written.next_line_position`."""
        del earlier
        is_token = is_symbol_or_digit(token)
        return written.next_line_position(previous, vocab.is_digit(token), is_token)


@dataclasses.dataclass(frozen=True)
class Items(WrittenScheme):
    """Place, line and column of a list and its insertion sort.

    A key of the answer is in the column of the line above, or in the one before it.

    Attributes:
        equals_id: Token of `=`.
    """

    equals_id: int

    name: ClassVar = "items"
    levels: ClassVar = (
        Level("abacus"),
        Level("line", window=1),
        Level("column", window=2),
    )
    max_place: ClassVar = written.PLACES[3]

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """See `written.item_positions`; there is no offset and there are no blanks."""
        del offset, has_blanks
        return written.item_positions(vocab.is_digit(ids), ids == self.equals_id)

    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """See `written.next_item_position`."""
        del token
        return written.next_item_position(previous, earlier)

    def key_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """As of queries, but without a place in the answer.

        There a place says which digits of its item a query compares; other queries do
        not look for it.
        """
        place, line, column = written.split_levels(ids, 3)
        return jnp.where(column > 0, 0, place), line, column

    def visible(
        self, query: Levels, key: KeyLevels, window: int | None
    ) -> Bool[Array, "b t s"] | bool:
        """What is inside the windows of the answer, and the list from everywhere.

        Items of the list, which have a line but no column, see themselves only, and
        are seen from every line of the answer.
        """
        _, line, column = self.levels
        hidden = out_of_window(query[1], key[1], line.window or 0)
        hidden = hidden | out_of_window(query[2], key[2], column.window or 0)
        is_other_item = query[1][:, :, None] != key[1][:, None, :]
        is_other_item = is_other_item & (query[2] == 0)[:, :, None]
        hidden = jnp.where((key[2] > 0)[:, None, :], hidden, is_other_item)
        return ~hidden & Scheme.visible(self, query, key, window)


@dataclasses.dataclass(frozen=True)
class Terms(WrittenScheme):
    """Place and line of sums of many numbers, written as running sums.

    A line of the answer is made from the line above it and the number beside it.

    Attributes:
        equals_id: Token of `=`.
    """

    equals_id: int

    name: ClassVar = "terms"
    levels: ClassVar = (Level("abacus"), Level("line", window=2))
    max_place: ClassVar = written.PLACES[2]

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """See `written.term_positions`; there is no offset and there are no blanks."""
        del offset, has_blanks
        return written.term_positions(
            vocab.is_digit(ids), is_symbol_or_digit(ids), ids == self.equals_id
        )

    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """See `written.next_line_position`; the answer has every other line."""
        del earlier
        is_token = is_symbol_or_digit(token)
        return written.next_line_position(
            previous, vocab.is_digit(token), is_token, step=2
        )


@dataclasses.dataclass(frozen=True)
class Groups(WrittenScheme):
    """Place, line and group of long division.

    A group of lines belongs to one digit of the dividend, which its first line brings
    down. A line is made from the line above it, the divisor and, if it is the first of
    its group, that digit.

    Attributes:
        equals_id: Token of `=`, which begins the first group.
        begins_id: Token that begins every other group.
    """

    equals_id: int
    begins_id: int

    # From a group of the answer to the next.
    step: ClassVar[int] = 1

    name: ClassVar = "groups"
    levels: ClassVar = (
        Level("abacus"),
        Level("line", window=1),
        Level("group", window=1),
    )
    max_place: ClassVar = written.PLACES[3]

    def is_counted(self, ids: Int[Array, "*dims"]) -> Bool[Array, "*dims"]:
        """True where a token has a place in a number."""
        return vocab.is_digit(ids)

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """See `written.group_positions`; there is no offset and there are no blanks."""
        del offset, has_blanks
        return written.group_positions(
            self.is_counted(ids),
            is_symbol_or_digit(ids),
            ids == self.equals_id,
            ids == self.begins_id,
            self.step,
        )

    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """See `written.next_group_position`."""
        del earlier
        return written.next_group_position(
            previous,
            self.is_counted(token),
            is_symbol_or_digit(token),
            token == self.begins_id,
            self.step,
        )

    def key_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """As of queries, but symbols have no place.

        The one that begins a line says what the line is; all of it has to see that.
        """
        place, line, group = written.split_levels(ids, 3)
        return jnp.where(place == self.symbol_id, 0, place), line, group


@dataclasses.dataclass(frozen=True)
class Roots(Groups):
    """Place, line and group of square roots, whose groups bring down two digits.

    A group of lines has the number of the first of them; the second is one further, and
    the first of the next group two. Where there is no next group stands the root sign,
    in front of the number: that a symbol is there is learned much faster than that a
    digit is not. A line is made from up to three lines above it, of which every other
    one is an odd number.

    Attributes:
        sign_id: Token of the root sign.
    """

    sign_id: int

    step: ClassVar = 2

    name: ClassVar = "roots"
    levels: ClassVar = (
        Level("abacus"),
        Level("line", window=3),
        Level("group", window=2),
    )

    def is_counted(self, ids: Int[Array, "*dims"]) -> Bool[Array, "*dims"]:
        """True for the root sign, too, so that it has a group."""
        return super().is_counted(ids) | (ids == self.sign_id)
