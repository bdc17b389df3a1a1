import pytest

from arith_jax.multiplication import Multiplication
from tests import rows

TASK = Multiplication()


@pytest.mark.parametrize("length", [1, 15, 40])
def test_products_equal_python_integers(length):
    texts, cells = rows.draw(TASK, 1000, length, low=(length + 1) // 2)
    for text, cell in zip(texts, cells, strict=True):
        prompt, answer = text.split("=")
        a, b = (number[::-1] for number in prompt.split("x"))
        assert (len(a), len(b)) == cell
        assert str(int(a) * int(b)) == answer[::-1]
    rows.check_truth(TASK, texts)


@pytest.mark.parametrize("kind", list(TASK.kinds)[1:])
def test_special_products_equal_python_integers(kind):
    texts, _ = rows.draw(TASK, 300, 40, kind)
    rows.check_truth(TASK, texts)
    for text in texts if kind == "equal" else []:
        a, b = text.split("=")[0].split("x")
        assert a == b


def test_prompts_of_people():
    assert TASK.prompt("12*34") == TASK.prompt("12 x 34") == "21x43="
    assert TASK.truth("21x43=") == "804"
    assert TASK.read("21x43=", "804") == "408"
    assert TASK.truth(TASK.prompt("0*120")) == "0"
    assert (TASK.row_width(15, 15), TASK.row_width(40, 40)) == (63, 163)
    with pytest.raises(ValueError, match=r"joined by 'x' or '\*', as in 99x99"):
        TASK.prompt("12+34")


WRITTEN = Multiplication(scratchpad=True)


@pytest.mark.parametrize("length", [1, 2, 15])
def test_scratchpads_are_schoolbook_multiplication(length):
    texts, _ = rows.draw(WRITTEN, 300, length, low=(length + 1) // 2)
    rows.check_truth(WRITTEN, texts)
    for text in texts:
        prompt, answer = text.split("=")
        a, b = (number[::-1] for number in prompt.split("x"))
        found, place = answer.split("+"), 0
        assert len(found) == len(b)
        for place, row in enumerate(found):
            low = int(b[::-1][: place + 1][::-1])
            assert len(row) == len(a) + 1
            assert int(row[::-1]) == int(a) * low // 10**place
        assert WRITTEN.read(prompt + "=", answer) == str(int(a) * int(b))


def test_scratchpads_of_people():
    assert WRITTEN.truth("21x43=") == "840+040"
    assert WRITTEN.read("21x43=", "840+040") == "408"
    assert WRITTEN.read("21x0=", WRITTEN.truth("21x0=")) == "0"
    # What a half-trained model may write.
    assert WRITTEN.read("21x43=", "") == ""
    assert WRITTEN.read("21x43=", "8++12") == "218"
    assert (WRITTEN.row_width(15, 15), WRITTEN.answer_width(3, 2)) == (287, 9)
    with pytest.raises(ValueError, match=r"data.scratchpad=True with data.zero_pad"):
        Multiplication(scratchpad=True, zero_pad=True)
