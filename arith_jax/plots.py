"""Pictures of results. Imports nothing of the package; draws without a display."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure


def grid_arrays(
    cells: Sequence[Mapping[str, Any]], limit: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths (sorted) and counts, correct and total, of the cells up to a limit.

    Cells that were not evaluated have total 0.
    """
    inside = [c for c in cells if max(c["a"], c["b"]) <= limit]
    lengths = np.array(sorted({c[side] for c in inside for side in "ab"}), np.int64)
    place = {length: i for i, length in enumerate(lengths.tolist())}
    correct = np.zeros((len(lengths), len(lengths)), np.int64)
    total = np.zeros_like(correct)
    for cell in inside:
        at = place[cell["a"]], place[cell["b"]]
        correct[at], total[at] = cell["correct"], cell["total"]
    return lengths, correct, total


def draw_grid_panel(
    axes: Axes,
    cells: Sequence[Mapping[str, Any]],
    max_digits: int,
    max_numbers: int = 0,
) -> QuadMesh:
    """Exact match over both sizes of a cell, the trained rectangle drawn.

    The rectangle ends at `max_digits` on both axes, or at `max_numbers` on the first.
    Sizes that were not evaluated take the colour of the next longer one that was.
    """
    lengths, correct, total = grid_arrays(cells)
    share = np.where(total > 0, 100 * correct / np.maximum(total, 1), np.nan)
    edges = np.concatenate([[0.5], lengths + 0.5])
    # Colour-blind safe, and darker is worse: a perfect grid is bright.
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="lightgrey")
    mesh = axes.pcolormesh(edges, edges, share, cmap=colours, vmin=0, vmax=100)
    right, top = max_digits + 0.5, (max_numbers or max_digits) + 0.5
    axes.plot(
        [0.5, right, right],
        [top, top, 0.5],
        color="red",
        linewidth=2,
        label="trained",
    )
    axes.set_aspect("equal")
    return mesh


def draw_grid(
    path: pathlib.Path,
    cells: Sequence[Mapping[str, Any]],
    most: tuple[int, int],
    title: str,
    labels: tuple[str, str],
) -> None:
    """Heat map of exact match over both sizes of a cell, as a file.

    Args:
        path: The picture.
        cells: As in `result.json`.
        most: The largest trained cell.
        title: Of the picture.
        labels: What the sizes a (upwards) and b (to the right) are.
    """
    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    mesh = draw_grid_panel(axes, cells, max_digits=most[1], max_numbers=most[0])
    axes.set_xlabel(labels[1])
    axes.set_ylabel(labels[0])
    axes.set_title(title, fontsize=11)
    axes.legend(loc="upper right", framealpha=0.9)
    figure.colorbar(mesh, ax=axes, label="exact match, %")
    figure.savefig(path)


def draw_digits(
    path: pathlib.Path, cells: Sequence[Mapping[str, Any]], title: str, label: str
) -> None:
    """Share of right answer tokens at every place, one line per diagonal cell."""
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    chosen = [c for c in cells if c["a"] == c["b"] and c["total"] and c["a"] >= 10]
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(len(chosen), 1)))
    for cell, colour in zip(chosen, colours, strict=False):
        share = 100 * np.array(cell["per_digit_correct"]) / cell["total"]
        axes.plot(np.arange(1, len(share) + 1), share, color=colour, linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(0, 102)
    axes.set_xlabel(label)
    axes.set_ylabel("right, %")
    axes.set_title(title, fontsize=11)
    if chosen:
        low, high = chosen[0]["a"], chosen[-1]["a"]
        axes.annotate(
            f"one line per size, {low} (dark) to {high} (bright)",
            (0.02, 0.04),
            xycoords="axes fraction",
            fontsize=8,
        )
    figure.savefig(path)
