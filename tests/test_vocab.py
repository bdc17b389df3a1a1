import jax.numpy as jnp
import numpy as np
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


# GPT-2's digits are contiguous; these of a made-up vocabulary are not.
DIGIT_IDS = (250, 3, 255, 17, 18, 99, 0, 128, 127, 200)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize("digit_ids", [DIGIT_IDS, range(15, 25), None])
def test_digits_of_any_vocabulary_are_digits_in_every_dtype(digit_ids, dtype):
    ids = np.arange(256).reshape(16, 16)
    is_digit = vocab.is_digit(jnp.array(ids, dtype), digit_ids)
    expected = np.isin(ids, list(range(4, 14) if digit_ids is None else digit_ids))
    np.testing.assert_array_equal(is_digit, expected)


def test_ids_that_a_dtype_cannot_hold_are_in_no_row():
    ids = jnp.arange(256, dtype=jnp.uint8)
    # 256 + 7 would wrap to 7, and -1 to 255.
    digit_ids = np.array([*range(263, 271), -1, 9])
    assert np.flatnonzero(vocab.is_digit(ids, digit_ids.tolist())).tolist() == [9]
    # 2**32 - 1 would wrap to -1.
    assert not vocab.is_digit(jnp.array([-1, -2]), [2**32 - 1, 2**32 - 2]).any()
    large = jnp.array([2**32 - 1, 5], jnp.uint32)
    assert vocab.is_digit(large, [2**32 - 1]).tolist() == [True, False]
