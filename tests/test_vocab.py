import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arith_jax import vocab


def test_ids_are_those_of_the_original():
    assert vocab.ARITHMETIC.encode("0123456789") == list(range(4, 14))
    assert vocab.ARITHMETIC.encode("+-x=") == [14, 15, 16, 17]
    assert len(vocab.ARITHMETIC) == 19
    assert vocab.ARITHMETIC.encode(" ") == [vocab.PAD]


@given(st.text("0123456789+-x=", max_size=40))
def test_decode_undoes_encode_and_stops_at_eos(text):
    ids = vocab.ARITHMETIC.encode(text)
    assert vocab.ARITHMETIC.decode([*ids, vocab.EOS, 5, 6]) == text


@pytest.mark.parametrize("symbol", ["a", "12", ""])
def test_unknown_symbol_is_named(symbol):
    with pytest.raises(ValueError, match=f"symbol {symbol!r} is not in the vocabulary"):
        vocab.ARITHMETIC.id(symbol)


def test_only_digits_are_digits():
    ids = jnp.arange(19)
    assert vocab.ARITHMETIC.decode(ids[vocab.is_digit(ids)].tolist()) == "0123456789"
