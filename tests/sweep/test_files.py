"""The sweep files of the repository."""

import pathlib

import pytest

from arith_jax import cli
from arith_jax.sweep.entries import read_sweep
from tests.test_configs import commands
from tools import report, sweep_table
from tools.paper_figures import decided

ROOT = pathlib.Path(report.__file__).parent.parent
FILES = sorted((ROOT / "sweeps").rglob("*.toml"))


def built(entry):
    """The experiment of an entry, as its command line makes it."""
    arguments = [word for word in entry.arguments(ROOT) if "workdir" not in word]
    values = cli.new_flags(config_in=arguments)
    assert cli.parse(values, arguments, "") == []
    experiment, overrides = cli.experiment_of(values)
    assert overrides == entry.assignments
    return experiment


@pytest.fixture(scope="module")
def listed():
    """Sweeps of the repository, and the experiments of their entries, by file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        sweeps = {path.stem: read_sweep(path) for path in FILES}
        return {
            name: (sweep, [built(entry) for entry in sweep.entries])
            for name, sweep in sweeps.items()
        }


@pytest.fixture(scope="module")
def of_paper(listed):
    """The entries of the paper's files and their experiments."""
    files = [path.stem for path in FILES if path.parent.name == "paper"]
    pairs = [
        zip(listed[name][0].entries, listed[name][1], strict=True) for name in files
    ]
    return [pair for file in pairs for pair in file]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_entry_of_every_file_builds(path, listed):
    sweep, experiments = listed[path.stem]
    assert path.read_text().startswith("# ")
    assert {experiment.preset for experiment in experiments} == {"gpu"}
    if path.parent.name == "paper":
        assert sweep.root == pathlib.Path("runs/paper")
        long = {"headline": 25, "figure_06": 6, "table_1": 6, "table_2": 6}
        minutes = {experiment.train.minutes for experiment in experiments}
        assert minutes == {long.get(path.stem, 3)}


def test_rows_of_the_paper_are_packed_where_they_can_be(of_paper):
    for _, experiment in of_paper:
        data = experiment.data
        is_plain = data.task.is_packable and not data.predict_prompt
        is_packable = is_plain and experiment.loss.reduction == "mean"
        assert (data.problems_per_row > 1) == is_packable, experiment.name


def test_files_of_the_paper_share_what_they_have_in_common(of_paper):
    shared = {}
    for entry, experiment in of_paper:
        assert shared.setdefault(entry.name, experiment) == experiment
    assert 100 < len(shared) < len(of_paper)


def test_every_row_of_the_page_is_in_a_file(of_paper, monkeypatch):
    monkeypatch.chdir(ROOT)
    listed = {decided(config) for config in {entry.config for entry, _ in of_paper}}
    for name, argument in commands():
        assert decided(f"configs/paper/{name}.py:{argument}") in listed, argument


@pytest.mark.parametrize("budget", ["short", "long"])
def test_files_of_the_ablation_are_those_of_the_results(budget, listed):
    sweep, experiments = listed[f"ablation_{budget}"]
    paths = report.RESULTS.glob(f"ablation_add_*_{budget}_s*.json")
    assert {entry.name for entry in sweep.entries} == {path.stem for path in paths}
    results = sweep_table.results_of(sweep, report.RESULTS)
    assert len(results) == len(sweep.entries)
    for entry, experiment in zip(sweep.entries, experiments, strict=True):
        full = results[entry.name]["config"]["full"]
        assert (experiment.name, experiment.preset) == (full["name"], full["preset"])
        # Other keys have moved since.
        for section in ("train", "optim", "eval"):
            now = experiment.to_dict()[section]
            same = now.keys() & full[section].keys()
            assert {key: now[key] for key in same} == {
                key: full[section][key] for key in same
            }


def test_the_example_of_the_documentation_builds(write):
    page = (ROOT / "docs" / "usage.md").read_text()
    sweep = read_sweep(write(page.partition("```toml\n")[2].partition("```")[0]))
    assert len(sweep.entries) == 13
    assert f"--array=0-{len(sweep.entries) - 1} " in page
    assert any(f"`{entry.name}`" in page for entry in sweep.entries)
    for entry in sweep.entries:
        built(entry)
