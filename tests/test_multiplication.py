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
