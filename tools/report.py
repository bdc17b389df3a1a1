"""Makes the README's table and pictures from `results/*.json`.

python tools/report.py            writes README.md and docs/images/
python tools/report.py --check    fails if they differ from what results/ gives
python tools/report.py --add RUN  copies the result of a finished workdir into results/
"""

import argparse
import hashlib
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from arith_jax import plots, runlog

RESULTS = ROOT / "results"
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "images" / "grids.png"
PANELS = {
    "nope_add_cpu_s0": "no positions (NoPE)",
    "abacus_soft_add_cpu_s0": "relative Abacus bias",
    "abacus_add_cpu_s0": "arith_jax: Abacus window",
}
ROWS = ("abacus_add_cpu", "abacus_add_gpu", "abacus_soft_add_cpu")
ROWS += ("abacus_table_add_cpu", "nope_add_cpu")


def load() -> dict[str, dict[str, Any]]:
    """Results by run id, the file's name."""
    paths = sorted(RESULTS.glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def add(workdir: pathlib.Path) -> None:
    """Copies a result; digit counts of cells without an error are left out.

    Raises:
        ValueError: If the run was made with uncommitted changes.
    """
    result = json.loads((workdir / "result.json").read_text())
    if result["dirty"]:
        raise ValueError(
            f"{workdir} was run with uncommitted changes; commit, run again"
        )
    for cells in (result["cells"], *result["sets"].values()):
        for cell in cells:
            if cell["correct"] == cell["total"]:
                del cell["per_digit_correct"]
    runlog.write_json(RESULTS / f"{workdir.name}.json", result)


def share(counts: Mapping[str, int] | None) -> str:
    """A percentage, cut and not rounded, so that an error never reads as 100."""
    if not counts or not counts["total"]:
        return "-"
    if counts["correct"] == counts["total"]:
        return "100"
    digits = 4 if counts["correct"] > 0.99 * counts["total"] else 2
    cut = 10**digits * 100 * counts["correct"] // counts["total"]
    return f"{cut / 10**digits:.{digits}f}"


def diagonal(result: Mapping[str, Any], length: int) -> Mapping[str, int] | None:
    """The cell of two operands of this length, if it was evaluated."""
    cells = [c for c in result["cells"] if c["a"] == c["b"] == length]
    return cells[0] if cells else None


def counts(cells: Sequence[Mapping[str, int] | None], between: str = "/") -> str:
    """Right and all sums of the seeds together."""
    evaluated = [cell for cell in cells if cell]
    if not evaluated:
        return "-"
    right, total = (
        sum(cell[key] for cell in evaluated) for key in ("correct", "total")
    )
    return f"{right:,}{between}{total:,}"


def over_seeds(values: Sequence[str]) -> str:
    """The seeds' values, in order, or the one they share."""
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The results table: one row per experiment, seeds side by side."""
    lines = [
        "| experiment | device | seeds | trained on | parameters | training, s "
        "| trained lengths, % | longer, to 100, % | 100 + 100 | 1000 + 1000 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        runs = [run for name, run in results.items() if name.rpartition("_s")[0] == row]
        if not runs:
            continue
        first = runs[0]
        regions = [
            over_seeds([share(run["exact_match"].get(region)) for run in runs])
            for region in ("id", "ood")
        ]
        lengths = [counts([diagonal(run, n) for run in runs]) for n in (100, 1000)]
        seeds = ", ".join(str(run["seed"]) for run in runs)
        seconds = " / ".join(f"{run['train_seconds']:.1f}" for run in runs)
        digits = f"<= {first['config']['full']['data']['max_digits']} digits"
        cells = [f"`{row}`", device(first), seeds, digits, f"{first['num_params']:,}"]
        lines.append("| " + " | ".join([*cells, seconds, *regions, *lengths]) + " |")
    return "\n".join(lines)


def device(result: Mapping[str, Any]) -> str:
    """The device, in words."""
    name = result["device"].removeprefix("1 x ")
    return "2 CPU cores" if name == "cpu" else name


def draw(results: Mapping[str, Mapping[str, Any]], path: pathlib.Path) -> None:
    """The picture of the README: the same model and minute, three position schemes."""
    figure = plots.Figure(figsize=(10.2, 3.9), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for ax, (name, title) in zip(axes, PANELS.items(), strict=True):
        result = results[name]
        most = result["config"]["full"]["data"]["max_digits"]
        mesh = plots.draw_grid_panel(ax, result["cells"], most)
        whole = [c for c in result["cells"] if max(c["a"], c["b"]) <= 100]
        mean = np.sum([c["correct"] for c in whole]) / np.sum(
            [c["total"] for c in whole]
        )
        shown = "100%" if mean == 1 else f"{min(100 * mean, 99.9):.1f}%"
        ax.set_title(f"{title}\nmean {shown}", fontsize=10)
        ax.set_xlabel("digits of the second operand")
    axes[0].set_ylabel("digits of the first operand")
    axes[0].legend(loc="upper right", fontsize=8)
    figure.colorbar(mesh, ax=axes, label="exact match, %", shrink=0.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None, "Source": fingerprint(results)})


def fingerprint(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What the picture was drawn from, kept inside it for `--check`."""
    shown = json.dumps([[name, results[name]["cells"]] for name in PANELS])
    return hashlib.sha256(shown.encode()).hexdigest()


def headline(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's first claim, from the runs of the flagship on a laptop."""
    runs = [run for name, run in results.items() if name.startswith("abacus_add_cpu_s")]
    seconds = max(run["train_seconds"] for run in runs)
    most = runs[0]["config"]["full"]["data"]["max_digits"]
    to_100 = counts([run["exact_match"].get("ood") for run in runs], " of ")
    at_1000 = counts([diagonal(run, 1000) for run in runs], " of ")
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return (
        f"Trained for {seconds:.0f} seconds on {device(runs[0])}, on sums of at most "
        f"{most} digits, a model of {runs[0]['num_params']:,} parameters gets {to_100} "
        f"longer sums of up to 100 digits and {at_1000} sums of 1,000 digits exactly "
        f"right (seeds {seeds} together, last step, nothing selected)."
    )


def replaced(text: str, mark: str, content: str) -> str:
    """The text with the part between two marks replaced."""
    start, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}{content}\n{end}{after}"


def main() -> None:
    """Writes or checks everything that is made from results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--add", type=pathlib.Path, metavar="RUN")
    options = parser.parse_args()
    if options.add:
        add(options.add)
        return
    results = load()
    text = README.read_text()
    made = replaced(text, "headline", headline(results))
    made = replaced(made, "results", table(results))
    if options.check:
        source = PIL.Image.open(PICTURE).info.get("Source")
        if made != text or source != fingerprint(results):
            sys.exit("README differs from results/: run python tools/report.py")
        return
    README.write_text(made)
    draw(results, PICTURE)


if __name__ == "__main__":
    main()
