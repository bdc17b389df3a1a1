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
        max_place: Places are below this.
        is_packable: Whether problems so numbered can share a training row.
        is_sortable: Whether each id is given to a bounded number of tokens, so that
            attention can work in blocks of neighbouring ids.
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[Level, ...]] = (Level("abacus"),)
    symbol_id: ClassVar[int] = 0
    has_offset: ClassVar[bool] = True
    max_place: ClassVar[int] = 2**31 - 1
    is_packable: ClassVar[bool] = False
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
    is_packable: ClassVar = True
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
class Mirrored(Abacus):
    """The place of a digit, in the prompt counted from its end.

    So digit p of an answer that is the prompt reversed stands beside its source.

    >>> scheme = Mirrored(equals_id=17)
    >>> ids = jnp.array([vocab.ARITHMETIC.encode("312=213")])
    >>> scheme.position_ids(ids).tolist()
    [[3, 2, 1, 0, 1, 2, 3]]

    Attributes:
        equals_id: Token of `=`.
    """

    equals_id: int

    name: ClassVar = "mirrored"
    has_offset: ClassVar = False
    is_packable: ClassVar = False

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """Places from `=` in both directions; no offset, and no blanks."""
        del offset, has_blanks
        is_digit = vocab.is_digit(ids)
        place = abacus_positions(is_digit)
        in_prompt = is_digit & (jnp.cumsum(ids == self.equals_id, axis=1) == 0)
        count = jnp.sum(in_prompt, axis=1, keepdims=True)
        return jnp.where(in_prompt, count + 1 - place, place)


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
class Kinds(Scheme):
    """The place of a digit, as in Abacus, and whether a token is one.

    Where nothing is hidden, a symbol would share the bias of far digits, so that a
    model that learns to leave these out could not find it any more.

    >>> scheme = DataConfig(position_ids="kinds").scheme
    >>> place, kind = scheme.query_levels(scheme.position_ids(jnp.array([[5, 14, 6]])))
    >>> place.tolist(), kind.tolist()
    ([[1, 0, 1]], [[0, 1, 0]])
    """

    name: ClassVar = "kinds"
    # Of differences of kinds there are three, with a bias each.
    levels: ClassVar = (Level("abacus"), Level("kind", window=0))
    has_offset: ClassVar = False
    max_place: ClassVar = 2**30
    is_packable: ClassVar = True

    def position_ids(
        self,
        ids: Int[Array, "b t"],
        offset: Int[Array, " #b"] | int = 0,
        *,
        has_blanks: bool = False,
    ) -> Int[Array, "b t"]:
        """Twice the place, and 1 more for what is no digit; there is no offset."""
        del offset
        is_digit = vocab.is_digit(ids)
        place = abacus_positions(is_digit, is_blank=blanks(ids, has_blanks))
        return 2 * place + ~is_digit

    def next_position_id(
        self,
        previous: Int[Array, " b"],
        token: Int[Array, " b"],
        earlier: Int[Array, "b s"],
    ) -> Int[Array, " b"]:
        """One place more than the token before it, if it is a digit."""
        del earlier
        return jnp.where(vocab.is_digit(token), 2 * (previous // 2 + 1), 1)

    def query_levels(self, ids: Int[Array, "b t"]) -> Levels:
        """Place and kind."""
        return ids // 2, ids % 2
