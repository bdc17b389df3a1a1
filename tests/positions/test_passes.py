import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.model.context import make_context, visible
from arith_jax.positions.passes import RANKS
from arith_jax.positions.written import FIRST
from arith_jax.tasks.radix_sorting import RadixSorting

TASK = RadixSorting()
SCHEME = TASK.schemes["passes"]
position_ids = jax.jit(SCHEME.position_ids)
next_position_id = jax.jit(SCHEME.next_position_id)
PROMPTS = ["a:21,b:4,c:22=", "A:03,B:4,::713,,:713=", ",:6=", "Z:0,Y:0="]


def encoded(texts):
    """Rows of tokens with `EOS`, padded to one width."""
    ids = [[*TASK.vocab.encode(text), vocab.EOS] for text in texts]
    width = max(map(len, ids))
    return jnp.array([row + [vocab.PAD] * (width - len(row)) for row in ids])


def items_of(prompt):
    """Start of each item of a list, its key, and its digits, the last one first."""
    starts = [i - 1 for i in range(len(prompt)) if prompt[i + 1 : i + 2].isdigit()]
    starts = [i for i in starts if not prompt[i + 1].isdigit()]
    return [(i, prompt[i], prompt[i + 2 :].split("=")[0].split(",")[0]) for i in starts]


def levels_by_hand(text):
    """Place, line and turn of each token as a query, and as a key."""
    prompt, answer = text[: text.rindex("=")], text[text.rindex("=") + 1 :]
    query, key = [(0, 0, 0)] * len(prompt), [(0, 0, 0)] * len(prompt)
    items = items_of(prompt + "=")
    for item, (start, _, number) in enumerate(items, 1):
        for i in range(start, min(start + len(number) + 3, len(prompt))):
            place = i - start - 1 if 2 <= i - start < 2 + len(number) else 0
            levels = (place + FIRST if place else 0, item)
            query[i], key[i] = (*levels, 0), (*levels, 0)
        key[start] = (0, item, RANKS + item)
    scan, index, rank = 9, len(items) + 1, 0
    query.append((FIRST, RANKS + scan, index))
    key.append((0, 0, RANKS))
    for symbol in answer:
        is_separator, is_key = symbol.isdigit(), not symbol.isdigit() and symbol != "-"
        scan, index = (scan + 1, 1) if is_separator else (scan, index + 1)
        rank = is_key + (0 if is_separator and symbol == "0" else rank)
        line, turn = RANKS + scan, RANKS * (scan // 10)
        query.append((scan // 10 + FIRST, line, turn + index))
        unseen = (0, 0, turn + RANKS + (rank if is_key else 0))
        key.append((0, line, 0) if is_separator else unseen)
    return query, key


@pytest.mark.parametrize("prompt", PROMPTS)
def test_lists_and_their_passes_have_three_levels(prompt):
    text = prompt + TASK.true_answer(prompt)
    positions = position_ids(encoded([text]))
    query, key = levels_by_hand(text)
    for levels, expected in (
        (SCHEME.query_levels(positions), query),
        (SCHEME.key_levels(positions), key),
    ):
        actual = list(zip(*(level[0].tolist() for level in levels), strict=True))
        assert actual[:-1] == expected


def test_positions_continue_answers_right_or_wrong():
    answers = [
        TASK.true_answer(PROMPTS[0]),
        "ab=0-=1a--b,:7:6-05",
        "9" * 130,
        "a" * 130,
    ]
    answers += ["-" * 130, "=", "0123456789" * 3]
    for answer in answers:
        ids = encoded([PROMPTS[0] + answer])
        positions = position_ids(ids)[0]
        start = len(PROMPTS[0])
        earlier = jnp.zeros((ids.shape[1] - start, 1), jnp.int32)
        following = next_position_id(positions[start - 1 : -1], ids[0, start:], earlier)
        np.testing.assert_array_equal(following, positions[start:])


def test_ids_of_the_longest_list_and_number_fit():
    """102 keys; 6,000 digits, in a row that ends with the first scans."""
    keys = vocab.HINTS
    prompt = ",".join(f"{key}:1" for key in keys) + "="
    text = prompt + TASK.true_answer(prompt)
    query, key = levels_by_hand(text)
    positions = position_ids(encoded([text]))
    levels = jnp.stack(SCHEME.query_levels(positions))[:, 0, :-1]
    assert list(map(tuple, levels.T.tolist())) == query
    levels = jnp.stack(SCHEME.key_levels(positions))[:, 0, :-1]
    assert list(map(tuple, levels.T.tolist())) == key
    positions = position_ids(encoded(["a:" + "9" * 6000 + "="]))
    place = SCHEME.query_levels(positions)[0][0]
    assert place.max() - FIRST == 6000 < SCHEME.max_place
    assert positions.min() >= 0


def follows_from(text, seen, query):
    """What comes after a token, by an algorithm that reads visible tokens only.

    Tokens of an item know its key, and digits how far from the query's place they are.
    """
    start = text.rindex("=")
    owners, offsets = {}, {}
    place = text[start : query + 1].count("0")
    for begin, key, number in items_of(text[: start + 1]):
        for i in range(len(number)):
            owners[begin + 2 + i], offsets[begin + 2 + i] = key, i + 1 - place
    firsts = {begin for begin, _, _ in items_of(text[: start + 1])}
    shown = np.flatnonzero(seen[query])
    written = [text[i] for i in shown if i > start]
    values = [symbol for symbol in written if symbol.isdigit()]
    keys = [text[i] for i in shown if i in firsts]
    keys += [symbol for symbol in written if not symbol.isdigit()]
    assert len(values) == (query > start)
    assert len(keys) <= 1
    assert {offsets[i] for i in shown if i in offsets} <= {-1, 0, 1}
    value = (values or ["9"])[0]
    if keys:
        digits = [
            text[i] for i in shown if offsets.get(i) == 0 and owners[i] == keys[0]
        ]
        return keys[0] if (digits or ["0"])[0] == value else "-"
    if value != "9":
        return str(int(value) + 1)
    return "0" if any(offsets.get(i) == 1 for i in shown) else ""


@pytest.mark.parametrize("prompt", PROMPTS)
def test_what_a_token_sees_says_what_comes_next(prompt):
    text = prompt + TASK.true_answer(prompt)
    positions = position_ids(encoded([text]))
    seen = np.asarray(visible(SCHEME, make_context(SCHEME, positions), 1))[0]
    for query in range(len(prompt) - 1, len(text)):
        assert follows_from(text, seen, query) == text[query + 1 : query + 2]
    # Items see themselves.
    starts = [start for start, _, _ in items_of(prompt)]
    for start, end in zip(starts, [*starts[1:], len(prompt) - 1], strict=True):
        assert not seen[start:end, :start].any()
        assert seen[start + 1 : end, start].all()
