import numpy as np
import pytest

from arith_jax.tasks.radix_sorting import RadixSorting
from tests.tasks import rows

TASK = RadixSorting()


@pytest.mark.parametrize("kind", [None, "close", "ties"])
def test_rows_are_radix_sorts(kind):
    texts, cells = rows.draw(TASK, 150, (7, 5), kind, seed=4)
    rows.check_answers(TASK, texts)
    for text, (count, max_digits) in zip(texts, cells, strict=True):
        prompt, _, answer = text.rpartition("=")
        items = TASK.items(prompt + "=")
        longest = max(len(number) for _, number in items)
        assert longest <= max_digits
        scans = np.array(list(answer)).reshape(longest, 10, count + 1)
        assert (scans[:, :, 0] == np.array(list("0123456789"))).all()
        order = [key for key, _ in items]
        numbers = {key: int(number) for key, number in items}
        for place, one_pass in enumerate(scans[:, :, 1:]):
            # Scan v has the keys whose digit is v, each in its column.
            for value, scan in enumerate(one_pass):
                for key, symbol in zip(order, scan, strict=True):
                    is_written = numbers[key] // 10**place % 10 == value
                    assert symbol == (key if is_written else "-")
            order = [symbol for symbol in one_pass.ravel() if symbol != "-"]
        # Sorting by Python is stable, too.
        assert order == sorted(numbers, key=numbers.__getitem__)
        read = TASK.read_answer(prompt + "=", answer)
        assert read == ",".join(str(numbers[key]) for key in order)


def test_largest_lists_fit_their_row():
    assert TASK.row_width(30, 30) == 30 * 33 + 30 * 10 * 31 + 1
    texts, _ = rows.draw(TASK, 4, (6, 9), "full", low=9)
    assert {len(text) for text in texts} == {TASK.row_width(6, 9) - 1}


def test_lists_are_written_and_read_back():
    prompt = TASK.prompt("12,4,12,0")
    assert prompt == "A:21,B:4,C:21,D:0="
    answer = TASK.true_answer(prompt)
    first = "0---D1----2A-C-3----4-B--5----6----7----8----9----"
    assert answer == first + "0D--B1-AC-2----3----4----5----6----7----8----9----"
    assert TASK.read_answer(prompt, answer) == "0,4,12,12"
    assert TASK.read_answer(prompt, "0A?-") == "12,?"
    assert TASK.read_answer(prompt, "") == ""
    assert TASK.answer_width(*TASK.sizes(prompt)) == len(answer)
