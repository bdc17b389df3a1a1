"""Position schemes: how tokens are numbered, and what attention makes of the numbers.

A scheme owns the ids of a row, the id of a generated token, the levels that an id
consists of, and which keys a query can see.
"""

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from arith_jax import vocab
from arith_jax.positions import written
from arith_jax.positions.abacus import (
    abacus_positions,
    coupled_positions,
    remove_offset,
)

# The numbers of queries and of keys, one array for each level of their ids.
Levels = tuple[Int[Array, "b t"], ...]
KeyLevels = tuple[Int[Array, "b s"], ...]


class Level(NamedTuple):
    """One of the numbers that an id consists of.

    Attributes:
        name: Of the bias on its differences.
        window: Largest difference with a bias of its own, beyond which tokens are
            hidden; None: the model's Abacus window.
    """

    name: str
    window: int | None = None


class Scheme(abc.ABC):
    """A way to number the tokens of a row.

    Attributes:
        name: In a config.
        levels: What an id consists of; the first level is the place of a digit.
        symbol_id: Id of a symbol before the first digit of a number, without offset.
        has_offset: Whether ids of digits can be shifted, for an embedding table.
        is_sortable: Whether each id is given to a bounded number of tokens, so that
            attention can work in blocks of neighbouring ids.
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[Level, ...]] = (Level("abacus"),)
    symbol_id: ClassVar[int] = 0
    has_offset: ClassVar[bool] = True
    is_sortable: ClassVar[bool] = False

    @abc.abstractmethod
    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """Position ids of whole rows.

        Args:
            ids: Tokens.
            offset: Of the ids, if the scheme has one.
            has_blanks: Whether `PAD` inside a number does not end it.
        """

    @abc.abstractmethod
    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """Position id, without offset, of a generated token.

        Args:
            previous: Position id of the token before it.
            token: What was generated.
            earlier: Position ids of all tokens before it, 0 elsewhere.
        """

    def remove_offset(
        self,
        ids: Int[Array, "b t"],
        segment: Int[Array, "b t"] | None = None,
        num_segments: int = 1,
    ) -> Int[Array, "b t"]:
        """Position ids as they are without offset; see `abacus.remove_offset`."""
        return remove_offset(ids, segment, num_segments) if self.has_offset else ids

    def query_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """Levels of the ids of queries, without offset."""
        return (ids,)

    def key_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """Levels of the ids of keys, without offset."""
        return self.query_levels(ids)

    def visible(
        self, query: Levels, key: KeyLevels, window: int | None
    ) -> Bool[Array, "b t s"] | bool:
        """Which keys a query can see, causality and segments aside.

        Args:
            query: From `query_levels`.
            key: From `key_levels`.
            window: Of the first level; None: nothing is hidden by it.
        """
        return True if window is None else ~out_of_window(query[0], key[0], window)

    def max_position_id(self, max_number_length: int) -> int:
        """Largest first level of a row's ids, by the digits of its longest number."""
        return max_number_length + self.symbol_id


def out_of_window(
    query: Int[Array, "b t"], key: Int[Array, "b s"], window: int
) -> Bool[Array, "b t s"]:
    """True where the key has a number that differs by more than `window`.

    Keys without a number (0) are never out of the window of a query.
    """
    difference = query[:, :, None] - key[:, None, :]
    return (jnp.abs(difference) > window) & (key > 0)[:, None, :]


def is_symbol_or_digit(ids: Int[Array, "*dims"]) -> Bool[Array, "*dims"]:
    """True for everything that is written, so not for `PAD` and `EOS`."""
    return ids >= vocab.FIRST_SYMBOL


def blanks(ids: Int[Array, "b t"], has_blanks: bool) -> Bool[Array, "b t"] | None:
    """Where a number goes on in spite of a token that is no digit."""
    return ids == vocab.PAD if has_blanks else None


@dataclasses.dataclass(frozen=True)
class Abacus(Scheme):
    """The place of a digit in its number; 0 for every other token."""

    name: ClassVar = "abacus"
    is_sortable: ClassVar = True

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """See `abacus_positions`."""
        is_blank = blanks(ids, has_blanks)
        return abacus_positions(vocab.is_digit(ids), offset, is_blank=is_blank)

    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """One more than the token before it, if it is a digit."""
        del earlier
        return jnp.where(vocab.is_digit(token), previous + 1, 0)


@dataclasses.dataclass(frozen=True)
class Coupled(Scheme):
    """As Abacus, but a symbol has the place before the first digit.

    >>> data = DataConfig(position_ids="coupled")
    >>> model = Transformer(ModelConfig(scheme=Coupled()))
    >>> data.scheme == model.config.scheme
    True
    """

    name: ClassVar = "coupled"
    symbol_id: ClassVar = 1

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """See `coupled_positions`."""
        is_blank = blanks(ids, has_blanks)
        is_token = is_symbol_or_digit(ids)
        return coupled_positions(
            vocab.is_digit(ids), is_token, offset, is_blank=is_blank
        )

    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """One more than the token before it for a digit, 1 for a symbol."""
        del earlier
        digit = jnp.maximum(previous, self.symbol_id) + 1
        symbol = jnp.where(is_symbol_or_digit(token), self.symbol_id, 0)
        return jnp.where(vocab.is_digit(token), digit, symbol)


@dataclasses.dataclass(frozen=True)
class Lines(Scheme):
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
    symbol_id: ClassVar = written.FIRST
    has_offset: ClassVar = False

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """See `written.line_positions`; there is no offset and there are no blanks."""
        del offset, has_blanks
        return written.line_positions(
            vocab.is_digit(ids),
            is_symbol_or_digit(ids),
            ids == self.equals_id,
            jnp.any(ids == self.operator_id, axis=1),
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

    def query_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """Place and line."""
        return written.split_levels(ids, 2)

    def visible(
        self, query: Levels, key: KeyLevels, window: int | None
    ) -> Bool[Array, "b t s"] | bool:
        """What is inside the windows of place and line."""
        near_line = ~out_of_window(query[1], key[1], self.levels[1].window or 0)
        return near_line & super().visible(query, key, window)


@dataclasses.dataclass(frozen=True)
class Items(Scheme):
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
    symbol_id: ClassVar = written.FIRST
    has_offset: ClassVar = False

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

    def query_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """Place, line and column."""
        return written.split_levels(ids, 3)

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
        return ~hidden & super().visible(query, key, window)
