"""Makes the tables and pictures of README.md and docs/ from `results/`.

python -m tools.report               writes them
python -m tools.report --check       fails if they differ from what results/ gives
python -m tools.report --add RUN...  copies results of finished workdirs into results/
python -m tools.report --sweep=FILE  prints the table of a sweep
python -m tools.report --add --sweep=FILE  copies its finished results into results/
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import PIL.Image
from absl import flags

from arith_jax import cli
from arith_jax.sweep import progress
from arith_jax.sweep.entries import read_sweep
from arith_jax.training.record import write_json
from arith_jax.training.workdir import seed_folder
from tools import (
    figures,
    generalization,
    paper,
    paper_figures,
    scaling,
    speed,
    sweep_table,
    tables,
)

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "results"
IMAGES = ROOT / "docs" / "images"
LONGEST_KEPT = 1000  # digits: counts of longer answers would fill the repository


def load(folder: pathlib.Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Results by run id, the file's name."""
    paths = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def stripped(workdir: pathlib.Path, name: str = "result.json") -> dict[str, Any]:
    """The result of a workdir; digit counts are kept where a diagonal cell has errors.

    Args:
        workdir: Of a finished run.
        name: Of the result's file.

    Raises:
        ValueError: If the run is not finished or was made with uncommitted changes.
    """
    path = workdir / name
    if not path.exists():
        raise ValueError(f"{workdir} is not a finished run: it has no {name}")
    result = json.loads(path.read_text())
    if result["dirty"]:
        raise ValueError(
            f"{workdir} was run with uncommitted changes; commit, run again"
        )
    parts = [part["cells"] for part in result.get("parts", {}).values()]
    for cells in (result["cells"], *result["sets"].values(), *parts):
        for cell in cells:
            telling = cell["a"] == cell["b"] <= LONGEST_KEPT
            if cell["correct"] == cell["total"] or not telling:
                cell.pop("per_digit_correct", None)
    return result


def result_id(workdir: pathlib.Path, result: dict[str, Any]) -> str:
    """Name of a result: its workdir's, or one with the evaluation's name in it.

    The folder of one seed of several is called by its run's name.
    """
    config = result["config"]
    name = config["full"]["eval"].get("name")
    if not name and workdir == seed_folder(workdir.parent, result["seed"]):
        return f"{workdir.resolve().parent.name}_s{result['seed']}"
    if not name:
        return workdir.name
    return f"{config['name']}_{name}_{config['preset']}_s{result['seed']}"


def texts(results: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What stands between the marks of each document."""
    speeds, measured = load(RESULTS / "speed"), load(RESULTS / "scaling")
    return {
        "README.md": {
            "headline": tables.headline(results),
            "results": tables.results_table(results),
            "paper": paper.headline_sentence(results),
        },
        "docs/tasks.md": {"tasks": tables.tasks_table(results)},
        "docs/speed.md": {
            "speed": speed.speed_table(speeds),
            "scaling": speed.scaling_table(measured["train_16x1"]),
        },
        "docs/scaling.md": {
            "plan": scaling.scaling_plan(speeds),
            "devices": scaling.devices_table(measured, speeds["grid_8x2"]),
            "seeds": scaling.seeds_table(measured),
        },
        "docs/paper.md": {
            "headline": paper.headline_table(results),
            **paper_figures.figures_tables(results),
            "rows": paper.rows_table(results),
        },
        "docs/length_generalization.md": {
            "records": generalization.records_table(results),
            "ablation short": generalization.ablation_table(results, "short"),
            "ablation long": generalization.ablation_table(results, "long"),
            "far": generalization.far_table(results),
        },
    }


def pictures(results: dict[str, Any]) -> dict[str, tuple[figures.Figure, Any]]:
    """Every picture and what it was drawn from."""
    erosion = load(RESULTS / "erosion")
    followed = {name: erosion[name] for name in figures.FOLLOWED if name in erosion}
    return {
        "grids.png": figures.grids(results),
        "lengths.png": figures.lengths(results),
        "places.png": figures.places(results),
        "erosion.png": figures.erosion(followed),
        "paper_8x2.png": paper.headline_grids(results),
        "paper_rows.png": paper.rows_bars(results),
    }


def replaced(text: str, mark: str, content: str) -> str:
    """The text with the part between two marks replaced.

    Raises:
        ValueError: If the text lacks a mark.
    """
    start, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, opened, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"marks {start.strip()} and {end} are missing")
    return f"{before}{start}{content}\n{end}{after}"


def main(arguments: Sequence[str]) -> None:
    """Writes or checks everything that is made from results."""
    values = cli.new_flags()
    flags.DEFINE_bool(
        "check",
        False,
        "Only compare, and fail if something differs.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "add", False, "Only copy results of the workdirs named.", flag_values=values
    )
    flags.DEFINE_string(
        "sweep",
        None,
        "Only print the table of this sweep, or with --add copy its results.",
        flag_values=values,
    )
    workdirs = [pathlib.Path(x) for x in cli.parse(values, arguments, __doc__ or "")]
    cli.keep_off_devices()
    if values.sweep is not None:
        sweep = read_sweep(values.sweep)
        if not values.add:
            print(
                sweep_table.sweep_table(sweep, sweep_table.results_of(sweep, RESULTS))
            )
            return
        workdirs += [
            sweep.root / entry.name
            for entry in sweep.entries
            if progress.state(entry, sweep.root).word == progress.FINISHED
        ]
    if values.add:
        for workdir in workdirs:
            for path in sorted(workdir.glob("result*.json")):
                result = stripped(workdir, path.name)
                write_json(RESULTS / f"{result_id(workdir, result)}.json", result)
        return
    results = load()
    for name, parts in texts(results).items():
        path = ROOT / name
        text = made = path.read_text()
        for mark, content in parts.items():
            made = replaced(made, mark, content)
        if values.check and made != text:
            sys.exit(f"{name} differs from results/: run python -m tools.report")
        path.write_text(made)
    for name, (figure, content) in pictures(results).items():
        path = IMAGES / name
        if not values.check:
            figures.save(figure, path, content)
        elif PIL.Image.open(path).info.get("Source") != figures.fingerprint(content):
            sys.exit(f"{name} differs from results/: run python -m tools.report")


if __name__ == "__main__":
    cli.run(main)
