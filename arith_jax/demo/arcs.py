"""The picture of what is read while one symbol is written, as SVG and a table."""

import html

import numpy as np

from arith_jax.demo.attention import Reading, Token
from arith_jax.demo.limits import MINUS, TIMES

# Pixels between columns and rows, and of a symbol's square.
ACROSS, DOWN, SIDE = 38, 62, 28
# Columns left and right of the chosen symbol, and panels, at most.
AROUND = 4
MAX_PANELS = 4
# Arcs of less than this share are left out; tokens of a table.
LEAST = 0.04
MAX_ROWS = 10
# Okabe and Ito's colours, which most colour-blind people tell apart.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8a7a00",
    "#7a7a7a",
)
SHOWN = {"-": MINUS, "x": TIMES, ".": "end"}


def draw_reading(reading: Reading) -> str:
    """All panels, what the colours are, and the numbers."""
    depth, heads, _ = reading.weights.shape
    count = min(depth, MAX_PANELS)
    shown = sorted({round(i) for i in np.linspace(0, depth - 1, count).tolist()})
    panels = "".join(draw_panel(reading, layer) for layer in shown)
    keys = "".join(
        f'<span><i class="head" style="background:{colour(head)}"></i>head '
        f"{head + 1}</span>"
        for head in range(heads)
    )
    symbol = shown_symbol(reading.chosen)
    where = (
        f"the digit {symbol} at place {reading.chosen.place}"
        if reading.chosen.place
        else "the end of the answer"
        if symbol == "end"
        else f"the sign {symbol}"
    )
    return (
        f'<section class="reading"><h3>What it reads to write {where}</h3>'
        f'<div class="legend">{keys}<span>thicker: more attention</span></div>'
        f'<div class="panels">{panels}</div>{draw_table(reading, shown)}</section>'
    )


def colour(head: int) -> str:
    """Of a head."""
    return COLOURS[head % len(COLOURS)]


def shown_symbol(token: Token) -> str:
    """A symbol for people."""
    return html.escape(SHOWN.get(token.symbol, token.symbol))


class Layout:
    """Which tokens a panel shows, and where.

    Attributes:
        first: Column of the lowest place shown.
        lines: Lines of the paper that are shown, from above.
        width: Of the picture.
        height: Of the picture.
    """

    def __init__(self, chosen: Token):
        place = max(chosen.place, 1)
        self.first = max(1, place - AROUND)
        self.num_columns = place + AROUND - self.first + 1
        # Both operands, and the line above in work on paper.
        self.lines = [0, 1, *range(max(2, chosen.line - 1), chosen.line + 1)]
        self.width = (self.num_columns + 1) * ACROSS + 8
        self.height = len(self.lines) * DOWN + 28

    def centre(self, token: Token) -> tuple[float, float] | None:
        """Where a token is; None: it is not shown."""
        if token.line not in self.lines:
            return None
        column = token.place - self.first if token.place else self.num_columns
        if not 0 <= column <= self.num_columns:
            return None
        if token.place and column == self.num_columns:
            return None
        x = self.width - 4 - (column + 0.5) * ACROSS
        return x, 18 + SIDE / 2 + self.lines.index(token.line) * DOWN


def draw_panel(reading: Reading, layer: int) -> str:
    """One layer: the symbols near the chosen one, and an arc for each head."""
    layout, weights = Layout(reading.chosen), reading.weights[layer]
    target = layout.centre(reading.chosen) or (layout.width / 2, layout.height / 2)
    arcs, cells, seen = [], [], 0.0
    # The operator stands before the second operand, `=` before the answer.
    for index, token in enumerate(moved_signs(reading.tokens)):
        at = layout.centre(token)
        if at is None:
            continue
        share = float(weights[:, index].mean())
        seen += share
        cells.append(draw_cell(at, token, share))
        for head, weight in enumerate(weights[:, index].tolist()):
            if weight >= LEAST:
                arcs.append(draw_arc(target, at, head, weight))
    cells.append(draw_cell(target, reading.chosen, None))
    rest = max(0.0, 1 - seen)
    label = f"layer {layer + 1} of {len(reading.weights)}"
    return (
        f'<figure><svg viewBox="0 0 {layout.width} {layout.height}" role="img" '
        f'style="max-width:{1.15 * layout.width:.0f}px" '
        f'aria-label="attention of {label}">{"".join(arcs)}{"".join(cells)}</svg>'
        f"<figcaption><b>{label}</b>: {100 * rest:.0f}% of the attention goes further "
        "away</figcaption></figure>"
    )


def moved_signs(tokens: list[Token]) -> list[Token]:
    """Tokens with each sign on the line after it, where paper has it."""
    is_sign = lambda token: token.symbol in "+-x="
    return [t._replace(line=t.line + 1) if is_sign(t) else t for t in tokens]


def draw_cell(at: tuple[float, float], token: Token, share: float | None) -> str:
    """A symbol in its square, darker the more it is read; None: the chosen one."""
    x, y = at[0] - SIDE / 2, at[1] - SIDE / 2
    kind = "chosen" if share is None else "read"
    fill = "" if share is None else f' fill-opacity="{0.06 + 0.6 * share:.3f}"'
    return (
        f'<g class="{kind}"><rect x="{x:.1f}" y="{y:.1f}" width="{SIDE}" '
        f'height="{SIDE}" rx="6"{fill}/><text x="{at[0]:.1f}" y="{at[1] + 5:.1f}">'
        f"{shown_symbol(token)}</text></g>"
    )


def draw_arc(
    start: tuple[float, float], end: tuple[float, float], head: int, weight: float
) -> str:
    """An arc from the chosen symbol to one that it reads."""
    (x0, y0), (x1, y1) = start, end
    spread = 3.0 * (head - 1.5)
    if y0 == y1:
        # Below the line that both are on.
        y0 = y1 = y0 + SIDE / 2
        bend = (x0 + x1) / 2 + spread, y0 + 10 + 0.18 * abs(x1 - x0) + spread
    else:
        y0, y1 = y0 - SIDE / 2, y1 + SIDE / 2
        bend = (x0 + 3 * x1) / 4 + 2 * spread, (y0 + y1) / 2 + 8
    return (
        f'<path d="M{x0 + spread:.1f} {y0:.1f} Q{bend[0]:.1f} {bend[1]:.1f} '
        f'{x1 + spread:.1f} {y1:.1f}" stroke="{colour(head)}" '
        f'stroke-width="{0.8 + 4 * weight:.2f}"><title>head {head + 1}: '
        f"{100 * weight:.0f}%</title></path>"
    )


def draw_table(reading: Reading, layers: list[int]) -> str:
    """The largest weights as numbers: a row for a token, a column for a head."""
    tables = []
    for layer in layers:
        weights = reading.weights[layer]
        order = np.argsort(-weights.mean(axis=0))[:MAX_ROWS].tolist()
        heads = "".join(f"<th>head {head + 1}</th>" for head in range(len(weights)))
        rows = "".join(
            f"<tr><td>{describe(reading.tokens[index])}</td>"
            + "".join(f"<td>{100 * w:.0f}%</td>" for w in weights[:, index].tolist())
            + "</tr>"
            for index in order
        )
        tables.append(
            f"<table><caption>layer {layer + 1}</caption><tr><th>symbol</th>{heads}"
            f"</tr>{rows}</table>"
        )
    return (
        "<details><summary>In numbers, the symbols most read</summary>"
        f'<div class="tables">{"".join(tables)}</div></details>'
    )


def describe(token: Token) -> str:
    """A token in words."""
    symbol = shown_symbol(token)
    if not token.place:
        return f"{symbol}"
    line = ("first number", "second number", "answer")[min(token.line, 2)]
    return f"{symbol}, {line}, place {token.place}"
