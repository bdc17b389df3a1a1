"""The map of exact match over both lengths, with a marker at the current ones."""

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Shaped
from matplotlib import image

from arith_jax.evaluation.plots import grid_shares

# Pixels of the map, and before its axes.
SIDE, MARGIN = 300, 46
# Cells along an axis, at most; longer ones are points of the diagonal alone.
LIMIT = 100


def picture(shares: Shaped[np.ndarray, "a b"]) -> str:
    """The map as a PNG in a data URI, the shortest numbers below on the left."""
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="lightgrey")
    buffer = io.BytesIO()
    pixels = (255 * colours(shares[::-1])).round().astype(np.uint8)
    image.imsave(buffer, pixels, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@functools.lru_cache(maxsize=16)
def colour_scale() -> str:
    """The colours from 0 to 100% as a PNG in a data URI."""
    return picture(np.linspace(0, 1, 64)[:, None])


def draw_map(
    cells: Sequence[Mapping[str, Any]],
    max_cell: tuple[int, int],
    lengths: tuple[int, int],
) -> str:
    """The map of a model as SVG.

    Args:
        cells: Graded ones, as in result.json; empty: there are none.
        max_cell: Digits of the longest operands trained on.
        lengths: Of the current operands.
    """
    shares = grid_shares(cells, max_cell, LIMIT)
    if not shares.size:
        return (
            '<p class="note">No heat map: there is no result.json beside this model. '
            "A clone of the repository has those of the released models.</p>"
        )
    size = len(shares)
    scale = SIDE / size
    place = lambda length: min(length, size + 1.5) * scale - scale / 2
    right, up = MARGIN + place(lengths[1]), 8 + SIDE - place(lengths[0])
    edges = MARGIN + max_cell[1] * scale, 8 + SIDE - max_cell[0] * scale
    ticks = "".join(draw_tick(tick, scale) for tick in tick_lengths(size))
    is_outside = max(lengths) > size
    a, b = lengths
    return (
        f'<figure class="map"><svg viewBox="0 0 {MARGIN + SIDE + 62} '
        f'{SIDE + 56}" role="img" aria-label="Exact match over the lengths of both '
        f'numbers; marked: {a} and {b} digits">'
        f'<image href="{picture(shares)}" x="{MARGIN}" y="8" width="{SIDE}" '
        f'height="{SIDE}" preserveAspectRatio="none"/>'
        f'<path class="trained" d="M{MARGIN} {edges[1]:.1f}H{edges[0]:.1f}'
        f'V{8 + SIDE}"/>'
        f'<text class="trained" x="{edges[0] + 5:.1f}" y="{edges[1] - 5:.1f}">trained'
        f"</text>{ticks}"
        f'<circle class="here halo" cx="{right:.1f}" cy="{up:.1f}" r="7"/>'
        f'<circle class="here" cx="{right:.1f}" cy="{up:.1f}" r="7"/>'
        f"{draw_scale()}</svg><figcaption>Share of right answers when graded, by "
        f"length. ○ this calculation: {a} and {b} digits"
        f"{', beyond the map' if is_outside else ''}.</figcaption></figure>"
    )


def tick_lengths(size: int) -> list[int]:
    """Lengths to name on an axis."""
    step = next(step for step in (1, 2, 5, 10, 20, 50) if size / step <= 6)
    return list(range(step, size + 1, step))


def draw_tick(length: int, scale: float) -> str:
    """A length on both axes."""
    at = (length - 0.5) * scale
    return (
        f'<text class="tick" x="{MARGIN + at:.1f}" y="{SIDE + 24}" '
        f'text-anchor="middle">{length}</text><text class="tick" x="{MARGIN - 6}" '
        f'y="{8 + SIDE - at + 4:.1f}" text-anchor="end">{length}</text>'
    )


def draw_scale() -> str:
    """What the colours are, and the names of the axes."""
    x = MARGIN + SIDE + 14
    return (
        f'<image href="{colour_scale()}" x="{x}" y="8" width="12" height="{SIDE}" '
        f'preserveAspectRatio="none"/><text class="tick" x="{x + 16}" y="17">100%'
        f'</text><text class="tick" x="{x + 16}" y="{8 + SIDE}">0%</text>'
        f'<text class="tick" x="{MARGIN + SIDE / 2}" y="{SIDE + 44}" '
        'text-anchor="middle">digits of the second number</text>'
        f'<text class="tick" transform="translate(12 {8 + SIDE / 2}) rotate(-90)" '
        'text-anchor="middle">digits of the first number</text>'
    )
