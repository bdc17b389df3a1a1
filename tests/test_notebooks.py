"""Notebooks run from the first cell to the last; their training is shortened here."""

import nbclient
import nbformat
import pytest

from tests.helpers import ENVIRONMENT, ROOT, slow_but

FOLDER = ROOT / "notebooks"
# What stands for the values of the cell that is tagged `parameters`.
SHORT = {
    "abacus_in_your_model": {"STEPS": 2, "NNX_STEPS": 2, "LENGTHS": (2,)},
    "look_inside": {"STEPS": 4, "CARRY_DIGITS": 8, "SIZES": (3,)},
    "reproduce_a_row": {"STEPS": 4, "SAMPLES": 1},
    "train_and_generalize": {
        "STEPS": 4,
        "EVERY": 4,
        "LENGTHS": (4, 16),
        "SAMPLES": 2,
    },
}


def read(name):
    """A notebook, valid by its format."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def with_parameters(notebook, values):
    """The notebook with other values of its parameters, all of which must exist."""
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    given = {}
    exec(cell.source, given)
    assert values.keys() <= given.keys()
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    cell.source = "\n".join([cell.source, *lines])
    return notebook


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_outputs_are_not_kept(name):
    for cell in read(name).cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.parametrize(
    "name", slow_but(SHORT, ("train_and_generalize", "abacus_in_your_model"))
)
def test_a_notebook_runs(name):
    notebook = with_parameters(read(name), SHORT[name])
    resources = {"metadata": {"path": str(FOLDER)}}
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources=resources, kernel_name="python3"
    )
    client.execute(env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)})
