"""Pictures of results, drawn without a display."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
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


def grid_shares(
    cells: Sequence[Mapping[str, Any]], max_cell: tuple[int, int], limit: int = 100
) -> Float[np.ndarray, "n n"]:
    """Share of right answers at all sizes from 1 on; NaN: not graded.

    Outside the trained cells, sizes that were not graded have the share of the next
    longer one that was.

    Args:
        cells: As in `result.json`.
        max_cell: The largest trained cell.
        limit: Largest size of a cell that counts.
    """
    is_inside = lambda cell: cell["a"] <= max_cell[0] and cell["b"] <= max_cell[1]
    size = max((n for c in cells if (n := max(c["a"], c["b"])) <= limit), default=0)
    shares = np.full((size, size), np.nan)
    for part, (rows, columns) in (
        ([cell for cell in cells if not is_inside(cell)], (size, size)),
        ([cell for cell in cells if is_inside(cell)], max_cell),
    ):
        lengths, correct, total = grid_arrays(part, limit)
        graded = np.where(total > 0, correct / np.maximum(total, 1), np.nan)
        at = np.searchsorted(lengths, np.arange(1, lengths[-1] + 1 if part else 1))
        drawn = graded[np.ix_(at[:rows], at[:columns])]
        shares[: drawn.shape[0], : drawn.shape[1]] = drawn
    return shares


def draw_grid_panel(
    axes: Axes, cells: Sequence[Mapping[str, Any]], max_cell: tuple[int, int]
) -> QuadMesh:
    """Exact match over both sizes of a cell, the trained rectangle drawn.

    Sizes that were not graded take the colour of the next longer one that was.
    """
    shares = grid_shares(cells, max_cell)
    edges = np.arange(len(shares) + 1) + 0.5
    # Colour-blind safe, and darker is worse: a perfect grid is bright.
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="lightgrey")
    mesh = axes.pcolormesh(edges, edges, 100 * shares, cmap=colours, vmin=0, vmax=100)
    top, right = max_cell[0] + 0.5, max_cell[1] + 0.5
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
    *,
    max_cell: tuple[int, int],
    title: str,
    labels: tuple[str, str],
) -> None:
    """Heat map of exact match over both sizes of a cell, as a file.

    Args:
        path: The picture.
        cells: As in `result.json`.
        max_cell: The largest trained cell.
        title: Of the picture.
        labels: What the sizes a (upwards) and b (to the right) are.
    """
    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    mesh = draw_grid_panel(axes, cells, max_cell)
    axes.set_xlabel(labels[1])
    axes.set_ylabel(labels[0])
    axes.set_title(title, fontsize=11)
    axes.legend(loc="upper right", framealpha=0.9)
    figure.colorbar(mesh, ax=axes, label="exact match, %")
    save(figure, path)


def draw_digits(
    path: pathlib.Path,
    cells: Sequence[Mapping[str, Any]],
    *,
    title: str,
    label: str,
) -> None:
    """Share of right answer tokens at every place, one line per diagonal cell."""
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    diagonal = [c for c in cells if c["a"] == c["b"] and c["total"] and c["a"] >= 10]
    for cell, colour in zip(diagonal, shades(len(diagonal)), strict=True):
        share = 100 * np.array(cell["per_digit_correct"]) / cell["total"]
        axes.plot(np.arange(1, len(share) + 1), share, color=colour, linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(0, 102)
    axes.set_xlabel(label)
    axes.set_ylabel("right, %")
    axes.set_title(title, fontsize=11)
    if diagonal:
        low, high = diagonal[0]["a"], diagonal[-1]["a"]
        axes.annotate(
            f"one line per size, {low} (dark) to {high} (bright)",
            (0.02, 0.04),
            xycoords="axes fraction",
            fontsize=8,
        )
    save(figure, path)


def draw_curves(
    path: pathlib.Path,
    samples: Sequence[int],
    *,
    loss: np.ndarray,
    exact_match: np.ndarray,
    spikes: np.ndarray,
    title: str,
) -> None:
    """Loss and exact match while training; of several seeds, their median and range.

    Loss spikes of any seed are marked.

    Args:
        path: The picture.
        samples: Seen by a model so far [n].
        loss: In nats a token [seeds n].
        exact_match: Shares of the training batches [seeds n].
        spikes: Whether a loss is a spike [seeds n].
        title: Of the picture.
    """
    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, values in zip(panels, (loss, 100 * exact_match), strict=True):
        axes.plot(samples, np.median(values, axis=0), label="median")
        if len(values) > 1:
            low, high = values.min(axis=0), values.max(axis=0)
            label = f"range of {len(values)} seeds"
            axes.fill_between(samples, low, high, alpha=0.3, linewidth=0, label=label)
            axes.legend(fontsize=8)
    seeds, places = np.nonzero(spikes)
    if len(places):
        style = {"color": "red", "marker": "v", "linestyle": "none", "markersize": 4}
        at = np.array(samples)[places]
        panels[0].plot(at, loss[seeds, places], label="loss spike", **style)
        panels[0].legend(fontsize=8)
    panels[0].set_yscale("log")
    panels[0].set_ylabel("loss, nats a token")
    panels[1].set_ylim(-2, 102)
    panels[1].set_ylabel("exact match in training, %")
    panels[1].set_xlabel("samples")
    panels[0].set_title(title, fontsize=11)
    save(figure, path)


def draw_recurrences(
    path: pathlib.Path,
    shares_of: Mapping[int, Sequence[float]],
    *,
    num_trained: int,
    title: str,
) -> None:
    """Exact match against the number of recurrences, one line per size."""
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for colour, (length, shares) in zip(
        shades(len(shares_of)), shares_of.items(), strict=True
    ):
        counts = np.arange(1, len(shares) + 1)
        axes.plot(
            counts, 100 * np.array(shares), "o-", color=colour, label=f"size {length}"
        )
    axes.axvline(num_trained, color="red", linewidth=1, label="trained depth")
    axes.set_ylim(-2, 102)
    axes.set_xlabel("recurrences")
    axes.set_ylabel("exact match, %")
    axes.set_title(title, fontsize=11)
    axes.legend(fontsize=8)
    save(figure, path)


def draw_thinking(
    path: pathlib.Path, truth: str, lines: Sequence[str], *, title: str
) -> None:
    """The answer after every recurrence, a character a cell; wrong ones are red."""
    width = max(4.0, 0.28 * len(truth) + 1.5)
    figure = Figure(figsize=(width, 0.34 * len(lines) + 1.4), dpi=150)
    axes = figure.add_subplot()
    right = np.array(
        [[x == y for x, y in zip(line, truth, strict=True)] for line in lines]
    )
    axes.imshow(right, cmap="RdYlGn", vmin=-0.4, vmax=1.6, aspect="auto")
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            axes.text(column, row, character, ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(truth)), list(truth))
    axes.set_yticks(range(len(lines)), [str(i + 1) for i in range(len(lines))])
    axes.xaxis.tick_top()
    axes.set_ylabel("after recurrence")
    axes.set_xlabel("true answer above, in the order it is written")
    axes.set_title(title, fontsize=10)
    save(figure, path, bbox_inches="tight")


def draw_attention(
    path: pathlib.Path, maps: np.ndarray, labels: Sequence[str], *, title: str
) -> None:
    """Attention of every layer (rows) and head (columns), tokens on both axes.

    Args:
        path: File to write.
        maps: Weights [layers in depth, heads, queries, keys].
        labels: A character for every token.
        title: Above the picture.
    """
    layers, heads = maps.shape[:2]
    side = max(1.8, 0.11 * len(labels))
    figure = Figure(
        figsize=(side * heads + 0.6, side * layers + 0.6), dpi=150, layout="constrained"
    )
    rows = figure.subplots(layers, heads, squeeze=False)
    for layer, row in enumerate(rows):
        for head, axes in enumerate(row):
            axes.imshow(maps[layer, head], cmap="magma", vmin=0, vmax=1)
            axes.set_xticks(range(len(labels)), labels, fontsize=5)
            axes.set_yticks(range(len(labels)), labels, fontsize=5)
            axes.tick_params(length=0, pad=1)
            axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=7)
    figure.suptitle(f"{title}: queries down, keys across", fontsize=9)
    save(figure, path)


def draw_places(
    path: pathlib.Path,
    shares_of: Mapping[int, Sequence[float]],
    *,
    title: str,
    label: str,
) -> None:
    """Share of right tokens at every place of the answer, one line per size."""
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for colour, (length, shares) in zip(
        shades(len(shares_of)), shares_of.items(), strict=True
    ):
        places = np.arange(1, len(shares) + 1)
        axes.plot(places, 100 * np.array(shares), color=colour, label=f"size {length}")
    axes.set_ylim(-2, 102)
    axes.set_xlabel(f"{label}, its end last")
    axes.set_ylabel("right, %")
    axes.set_title(title, fontsize=11)
    axes.legend(fontsize=8)
    save(figure, path)


def draw_carries(
    path: pathlib.Path, counts: Mapping[int, tuple[int, int]], *, title: str
) -> None:
    """Exact match against the longest carry chain; the area is the number of sums."""
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    chains = np.array(list(counts))
    correct, total = np.array(list(counts.values())).T
    axes.scatter(chains, 100 * correct / total, s=6 + 2 * total)
    axes.set_ylim(-2, 104)
    axes.set_xlabel("places the longest carry travels")
    axes.set_ylabel("exact match, %")
    axes.set_title(title, fontsize=11)
    save(figure, path)


def shades(count: int) -> np.ndarray:
    """Colours from dark to bright."""
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count))


def save(figure: Figure, path: pathlib.Path, **options: Any) -> None:
    """Writes a picture in one move, so that one that is there is whole."""
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, format=path.suffix[1:], **options)
    temporary.replace(path)
