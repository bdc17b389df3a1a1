import random

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from arith_jax import vocab
from arith_jax.tasks import digits

SIZE = 40
NUMBERS = st.one_of(
    st.integers(0, 10**SIZE - 1),
    st.integers(0, SIZE).map(lambda n: 10**n - 1),
    st.integers(0, SIZE - 1).map(lambda n: 10**n),
)
calculate = {
    name: jax.jit(getattr(digits, name))
    for name in ("add_digits", "subtract_digits", "multiply_digits", "is_less")
}


def array_of(value, size=SIZE):
    return jnp.array([int(d) for d in str(value).zfill(size)[::-1]])


def int_of(array):
    return int("".join(map(str, np.asarray(array).tolist()[::-1])))


@settings(max_examples=300, deadline=None)
@given(NUMBERS, NUMBERS)
def test_digits_calculate_like_python_integers(a, b):
    arrays = array_of(a), array_of(b)
    assert int_of(calculate["add_digits"](*arrays)) == a + b
    assert int_of(calculate["multiply_digits"](*arrays)) == a * b
    difference, is_negative = calculate["subtract_digits"](*arrays)
    assert int_of(difference) == (a - b) % 10**SIZE
    assert bool(is_negative) == (a < b)
    assert bool(calculate["is_less"](*arrays)) == (a < b)


def test_largest_products_do_not_overflow():
    nines = array_of(10**400 - 1, 400)
    product = digits.multiply_digits(nines, nines[:40])
    assert product.shape == (440,)
    assert int_of(product) == (10**400 - 1) * (10**40 - 1)


def test_leading_zeros_are_no_digits_of_a_number():
    for value, count in ((0, 1), (7, 1), (10, 2), (10**39, 40)):
        assert int(digits.num_digits(array_of(value))) == count


def test_compact_keeps_the_order_of_rows_one_after_another():
    mask = jnp.array([[False, True, True], [False, False, True]])
    tokens, length = digits.compact(jnp.arange(6).reshape(2, 3) + 10, mask)
    assert tokens.tolist() == [11, 12, 15, 0, 0, 0]
    assert int(length) == 3


# Rows of the original's generator.
HINTED = [
    "τ2+τ1=τ3",
    "O6P9Q7+O8P3Q8=O4P3Q6R1",
    "|4β4Γ3Δ1+|0β7Γ7Δ4=|4β1Γ1Δ6",
    "ψ5Ω0ω7A1B3C4D3E5F1G7H4+ψ8Ω9ω7A1B7C1D4E6F9G6H8=ψ3Ω0ω5A3B0C6D7E1F1G4H3I1",
]


def test_hints_are_written_as_by_the_original():
    insert = jax.jit(digits.insert_hints)
    for text in HINTED:
        plain = "".join(symbol for symbol in text if symbol in "0123456789+=")
        row = np.zeros(80, np.int32)
        row[: len(plain)] = vocab.INDEX.encode(plain)
        hinted = insert(jnp.array(row), vocab.HINTS.index(text[0]))
        assert vocab.INDEX.decode(np.asarray(hinted).tolist()).rstrip() == text


def test_blanks_do_not_count_as_places():
    row = jnp.array(vocab.INDEX.encode("12 3+ 4=") + [0] * 8)
    hinted = digits.insert_hints(row, 0)
    assert vocab.INDEX.decode(np.asarray(hinted).tolist()).rstrip() == "A1B2 C3+ A4="


def test_first_hint_starts_twice_as_often():
    words = jnp.arange(103 * 4, dtype=jnp.uint32)
    starts = np.bincount(np.asarray(jax.vmap(digits.hint_start)(words)), minlength=102)
    assert starts.tolist() == [8] + [4] * 101


def test_host_integers_have_no_length_limit():
    number = "".join(random.Random(0).choices("123456789", k=9001))
    value = digits.int_from_digits(number)
    assert digits.digits_from_int(value) == number
    assert digits.digits_from_int(0) == "0"
