import pytest

from arith_jax.tasks.multiplication import Multiplication
from tests.tasks import rows

TASK = Multiplication()


@pytest.mark.parametrize("length", [1, 15, 40])
def test_products_equal_python_integers(length):
    texts, cells = rows.draw(TASK, 1000, length, low=(length + 1) // 2)
    for text, cell in zip(texts, cells, strict=True):
        prompt, answer = text.split("=")
        a, b = (number[::-1] for number in prompt.split("x"))
        assert (len(a), len(b)) == cell
        assert str(int(a) * int(b)) == answer[::-1]
    rows.check_answers(TASK, texts)


@pytest.mark.parametrize("kind", list(TASK.eval_sets)[1:])
def test_special_products_equal_python_integers(kind):
    texts, _ = rows.draw(TASK, 300, 40, kind)
    rows.check_answers(TASK, texts)
    for text in texts if kind == "equal" else []:
        a, b = text.split("=")[0].split("x")
        assert a == b


def test_products_are_written_backwards_and_read_back():
    assert TASK.prompt("12*34") == TASK.prompt("12 x 34") == "21x43="
    assert TASK.true_answer("21x43=") == "804"
    assert TASK.read_answer("21x43=", "804") == "408"
    assert TASK.true_answer(TASK.prompt("0*120")) == "0"
    assert (TASK.row_width(15, 15), TASK.row_width(40, 40)) == (63, 163)
    with pytest.raises(ValueError, match=r"joined by 'x' or '\*', as in 99x99"):
        TASK.prompt("12+34")


WRITTEN = Multiplication(scratchpad=True)


@pytest.mark.parametrize("length", [1, 2, 15])
def test_scratchpads_are_schoolbook_multiplication(length):
    texts, _ = rows.draw(WRITTEN, 300, length, low=(length + 1) // 2)
    rows.check_answers(WRITTEN, texts)
    for text in texts:
        prompt, answer = text.split("=")
        a, b = (number[::-1] for number in prompt.split("x"))
        lines = answer.split("+")
        assert len(lines) == len(b)
        for place, line in enumerate(lines):
            low = int(b[-place - 1 :])
            assert len(line) == len(a) + 1
            assert int(line[::-1]) == int(a) * low // 10**place
        assert WRITTEN.read_answer(prompt + "=", answer) == str(int(a) * int(b))


def test_products_are_read_off_scratchpads():
    assert WRITTEN.true_answer("21x43=") == "840+040"
    assert WRITTEN.read_answer("21x43=", "840+040") == "408"
    assert WRITTEN.read_answer("21x0=", WRITTEN.true_answer("21x0=")) == "0"
    # What a half-trained model may write.
    assert WRITTEN.read_answer("21x43=", "") == ""
    assert WRITTEN.read_answer("21x43=", "8++12") == "218"
    assert (WRITTEN.row_width(15, 15), WRITTEN.answer_width(3, 2)) == (287, 9)
    with pytest.raises(ValueError, match=r"task.scratchpad=True with task.zero_pad"):
        Multiplication(scratchpad=True, zero_pad=True)
