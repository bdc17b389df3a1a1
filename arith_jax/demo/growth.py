"""Two models side by side as the numbers grow: a strip of digits for each length."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from arith_jax.demo.models import Model, what_differs
from arith_jax.demo.paper import Sheet
from arith_jax.evaluation.answers import Answer

# Lengths to try, as far as the slider allows.
LENGTHS = (4, 8, 12, 16, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200)


class Attempt(NamedTuple):
    """What one model makes of the sums of one length.

    Attributes:
        answers: Its answers; empty: it cannot take such long numbers.
        refusal: Why it cannot.
    """

    answers: Sequence[Answer]
    refusal: str = ""


class Step(NamedTuple):
    """One length, and what each model makes of it."""

    length: int
    attempts: Sequence[Attempt]


def draw_growth(models: Sequence[Model], steps: Sequence[Step], longest: int) -> str:
    """The table so far: a row for a length, a column for a model.

    Args:
        models: Those compared.
        steps: What was tried.
        longest: Digits of the longest answer of all, for the strips' scale.
    """
    heads = "".join(
        f"<th><b>{html.escape(model.title)}</b><br><span>"
        f"{html.escape(model.sight)}; {html.escape(model.training)}</span></th>"
        for model in models
    )
    rows = "".join(
        f"<tr><th>{step.length}</th>"
        + "".join(
            draw_attempt(model, attempt, longest)
            for model, attempt in zip(models, step.attempts, strict=True)
        )
        + "</tr>"
        for step in steps
    )
    return (
        '<div class="growth"><table><tr><th>digits</th>'
        f"{heads}</tr>{rows}</table></div>"
    )


def draw_attempt(model: Model, attempt: Attempt, longest: int) -> str:
    """A cell: how many sums are right; a wrong one, or the first, digit by digit."""
    if not attempt.answers:
        return f'<td class="refused">{html.escape(attempt.refusal)}</td>'
    num_right = sum(answer.is_right for answer in attempt.answers)
    shown = min(attempt.answers, key=lambda answer: answer.is_right)
    kind = "good" if num_right == len(attempt.answers) else "bad"
    mark = "✓" if kind == "good" else "✗"
    return (
        f'<td><span class="{kind}">{mark} {num_right} of {len(attempt.answers)} right'
        f"</span>{draw_strip(shown, max(model.max_cell), longest)}</td>"
    )


def draw_strip(answer: Answer, trained: int, longest: int) -> str:
    """The digits of an answer from the right: low ones right, high ones wrong.

    Args:
        answer: Of a model.
        trained: Places that training has shown.
        longest: Digits that the strip has room for.
    """
    # Only places matter here: operands and sign are not looked at.
    digits = Sheet("", "", "+", answer, (trained, trained)).digits()
    right, wrong = [], []
    for place, digit in enumerate(digits):
        x = longest - 1 - place
        if digit.is_right:
            right.append(f"M{x}.1 4h.8v8h-.8z")
        else:
            wrong.append(f"M{x}.1 0h.8v16h-.8z")
    line = max(0, longest - trained)
    num_wrong = len(wrong)
    return (
        f'<svg class="strip" viewBox="0 0 {longest} 16" preserveAspectRatio="none" '
        f'role="img" aria-label="{num_wrong} of {len(digits)} digits wrong">'
        f'<rect class="shade" x="0" y="0" width="{line}" height="16"/>'
        f'<path class="right" d="{"".join(right)}"/>'
        f'<path class="wrong" d="{"".join(wrong)}"/></svg>'
    )


def draw_difference(models: Sequence[Model]) -> str:
    """What the two models see, and in what their training differs, said plainly."""
    first, second = models
    items = "".join(f"<li>{html.escape(d)}</li>" for d in what_differs(first, second))
    return (
        '<p class="what">The same random sums for both. On the left '
        f"<b>{html.escape(first.sight)}</b>; on the right "
        f"<b>{html.escape(second.sight)}</b>. Each bar is a digit of one of the "
        "sums, a wrong one if there is any, the ones on the right: short is right, "
        "tall and orange is wrong; shaded is beyond the longest numbers of training."
        "</p><details><summary>All in which "
        f"they differ, left and right</summary><ul>{items}</ul></details>"
    )
