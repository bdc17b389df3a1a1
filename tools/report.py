"""Makes the tables and pictures of README.md and docs/ from `results/`.

python tools/report.py               writes them
python tools/report.py --check       fails if they differ from what results/ gives
python tools/report.py --add RUN...  copies results of finished workdirs into results/
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import PIL.Image

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from arith_jax import runlog
from tools import figures, speed, tables

RESULTS = ROOT / "results"
IMAGES = ROOT / "docs" / "images"
LONGEST_KEPT = 1000  # digits: counts of longer answers would fill the repository


def load(folder: pathlib.Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Results by run id, the file's name."""
    paths = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def stripped(workdir: pathlib.Path) -> dict[str, Any]:
    """The result of a workdir; digit counts are kept where a diagonal cell has errors.

    Raises:
        ValueError: If the run is not finished or was made with uncommitted changes.
    """
    path = workdir / "result.json"
    if not path.exists():
        raise ValueError(f"{workdir} is not a finished run: it has no result.json")
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


def texts(results: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What stands between the marks of each document."""
    return {
        "README.md": {
            "headline": tables.headline(results),
            "results": tables.results_table(results),
            "tasks": tables.tasks_table(results),
            "speed": speed.speed_table(load(RESULTS / "speed")),
            "scaling": speed.scaling_table(load(RESULTS / "scaling")["train_16x1"]),
        },
        "docs/paper.md": {"short run": tables.paper_run(results)},
        "docs/length_generalization.md": {
            "records": tables.records_table(results),
            "ablation short": tables.ablation_table(results, "short"),
            "ablation long": tables.ablation_table(results, "long"),
        },
    }


def pictures(results: dict[str, Any]) -> dict[str, tuple[figures.Figure, Any]]:
    """Every picture and what it was drawn from."""
    found = load(RESULTS / "erosion")
    followed = {name: found[name] for name in figures.FOLLOWED if name in found}
    return {
        "grids.png": figures.grids(results),
        "lengths.png": figures.lengths(results),
        "places.png": figures.places(results),
        "erosion.png": figures.erosion(followed),
    }


def replaced(text: str, mark: str, content: str) -> str:
    """The text with the part between two marks replaced.

    Raises:
        ValueError: If the text lacks a mark.
    """
    start, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"marks {start.strip()} and {end} are missing")
    return f"{before}{start}{content}\n{end}{after}"


def main() -> None:
    """Writes or checks everything that is made from results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--add", type=pathlib.Path, metavar="RUN", nargs="+")
    options = parser.parse_args()
    if options.add:
        for workdir in options.add:
            runlog.write_json(RESULTS / f"{workdir.name}.json", stripped(workdir))
        return
    results = load()
    for name, parts in texts(results).items():
        path = ROOT / name
        text = made = path.read_text()
        for mark, content in parts.items():
            made = replaced(made, mark, content)
        if options.check and made != text:
            sys.exit(f"{name} differs from results/: run python tools/report.py")
        path.write_text(made)
    for name, (figure, content) in pictures(results).items():
        path = IMAGES / name
        if not options.check:
            figures.save(figure, path, content)
        elif PIL.Image.open(path).info.get("Source") != figures.fingerprint(content):
            sys.exit(f"{name} differs from results/: run python tools/report.py")


if __name__ == "__main__":
    main()
