"""The calculation as on paper, and the model's answer under it, as HTML.

Everything that comes from outside is digits by then; all text is escaped all the same.
"""

import html
import itertools
import math
from typing import NamedTuple

from arith_jax.demo.limits import MINUS, OPERATORS, PLUS, TIMES
from arith_jax.evaluation.answers import Answer

# Least probability of each class of colours, the most certain first, and its name.
CONFIDENCE = (
    (0.999, "99.9% and more"),
    (0.99, "99%"),
    (0.9, "90%"),
    (0.5, "50%"),
    (0.0, "less"),
)
# Milliseconds between two digits, and for all of them.
STEP = 70
WHOLE = 2600
# Columns between two gaps.
GROUP = 5
# Rules of a model's work between the lines of a product.
SEPARATOR = "+"


class Digit(NamedTuple):
    """One symbol of the answer.

    Attributes:
        symbol: As it is read; empty: the model wrote none here.
        truth: The right symbol; empty: there should be none.
        token: Which of the written tokens it is; None: none.
        probability: The model's own, of that token; None: not known.
    """

    symbol: str
    truth: str
    token: int | None
    probability: float | None

    @property
    def is_right(self) -> bool:
        """Whether it is what it should be."""
        return self.symbol == self.truth


class Sheet(NamedTuple):
    """What is on the paper.

    Attributes:
        a: The first number.
        b: The second number.
        sign: Between them, as the page writes it.
        answer: The model's.
        max_cell: Digits of the longest operands trained on.
    """

    a: str
    b: str
    sign: str
    answer: Answer
    max_cell: tuple[int, int]

    @property
    def is_beyond(self) -> bool:
        """Whether an operand is longer than any in training."""
        return len(self.a) > self.max_cell[0] or len(self.b) > self.max_cell[1]

    @property
    def trained_places(self) -> int:
        """Places from the right that training has shown in operands and answers."""
        longest = max(self.max_cell)
        return longest if self.sign in (PLUS, MINUS) else sum(self.max_cell)

    @property
    def has_end(self) -> bool:
        """Whether the model ended its answer itself."""
        return len(self.answer.probabilities) > len(self.answer.tokens)

    def digits(self) -> list[Digit]:
        """The symbols of the answer and of the right one, from the right."""
        answer, tokens = self.answer, answer_tokens(self.answer.tokens)
        symbols = []
        pairs = itertools.zip_longest(
            reversed(answer.answer), reversed(answer.truth), fillvalue=""
        )
        for place, (symbol, truth) in enumerate(pairs):
            token = tokens[place] if symbol and place < len(tokens) else None
            chance = None if token is None else answer.probabilities[token]
            symbols.append(Digit(symbol, truth, token, chance))
        return symbols

    def carries(self) -> list[bool]:
        """Whether something is carried, or borrowed, into each place; else empty."""
        if self.sign not in (PLUS, MINUS):
            return []
        carry, carries = 0, []
        for x, y in itertools.zip_longest(self.a[::-1], self.b[::-1], fillvalue="0"):
            carries.append(carry > 0)
            if self.sign == PLUS:
                carry = int(int(x) + int(y) + carry > 9)
            else:
                carry = int(int(x) - int(y) - carry < 0)
        return [*carries, carry > 0 and self.sign == PLUS]


def answer_tokens(tokens: str) -> list[int]:
    """Which tokens the symbols of an answer are read off, from the right.

    Work on paper has lines of which the answer is the first digit of each and all of
    the last one; hints between digits are no part of it.
    """
    starts = [0, *(i + 1 for i, s in enumerate(tokens) if s == SEPARATOR)]
    last = range(starts[-1], len(tokens))
    return [
        index
        for index in (*starts[:-1], *last)
        if index < len(tokens) and tokens[index] in "0123456789-"
    ]


def confidence_class(probability: float | None) -> str:
    """The class of a probability, for its colour."""
    if probability is None:
        return "unknown"
    for number, (least, _) in enumerate(CONFIDENCE):
        if probability >= least:
            return f"sure{number}"
    return "unknown"


def percent(probability: float) -> str:
    """A probability for people, never rounded up to certainty."""
    if probability >= 0.9999:
        return "over 99.99%" if probability < 1 else "100%"
    return f"{math.floor(10000 * probability) / 100:.2f}%"


def draw_sheet(sheet: Sheet) -> str:
    """The whole paper: verdict, columns from the right, legend."""
    digits = sheet.digits()
    width = max(len(sheet.a), len(sheet.b), len(digits)) + 1
    step = min(STEP, WHOLE / width)
    carries = sheet.carries()
    columns = [
        draw_column(sheet, place, digits, carries) for place in range(1, width + 1)
    ]
    size = " small" if width > 130 else " middle" if width > 44 else ""
    size += " right" * sheet.answer.is_right
    written = f"{sheet.a} {sheet.sign} {sheet.b} = {sheet.answer.answer}"
    return (
        f'<section class="paper{size}" style="--step:{step:.1f}ms">'
        f"{draw_verdict(sheet, digits)}"
        f'<div class="columns" role="group" aria-label="{html.escape(written)}">'
        f"{''.join(columns)}</div>{draw_legend(sheet)}{draw_texts(sheet)}</section>"
    )


def draw_column(
    sheet: Sheet, place: int, digits: list[Digit], carries: list[bool]
) -> str:
    """One place: carry, both operands' digits, the answer's."""
    beyond = sheet.is_beyond and place > sheet.trained_places
    is_first = beyond and place == sheet.trained_places + 1
    classes = "column" + " beyond" * beyond + " first" * is_first
    classes += " spaced" * (place % GROUP == 1 and place > 1)
    is_carried = place <= len(carries) and carries[place - 1]
    sign_place = max(len(sheet.a), len(sheet.b), len(digits)) + 1
    second = digit_at(sheet.b, place)
    if place == sign_place:
        second = f'<span class="sign">{html.escape(sheet.sign)}</span>'
    return (
        f'<div class="{classes}"><span class="carry">{"•" if is_carried else ""}</span>'
        f'<span class="digit">{digit_at(sheet.a, place)}</span>'
        f'<span class="digit">{second}</span>'
        f"{draw_answer(sheet, place, digits)}</div>"
    )


def digit_at(number: str, place: int) -> str:
    """The digit of a number at a place from the right; empty: it has none there."""
    return html.escape(number[-place]) if place <= len(number) else ""


def draw_answer(sheet: Sheet, place: int, digits: list[Digit]) -> str:
    """The answer's symbol at a place, a button, and what it should be if it is not."""
    length = len(sheet.answer.answer)
    if place == length + 1 and sheet.has_end:
        is_right = len(sheet.answer.truth) == length
        missing = digits[place - 1].truth if place <= len(digits) else ""
        end = Digit(
            "end",
            "end" if is_right else missing,
            len(sheet.answer.tokens),
            sheet.answer.probabilities[-1],
        )
        return draw_button(end, place, "end")
    if place > len(digits):
        return '<span class="answer empty"></span><span class="truth"></span>'
    digit = digits[place - 1]
    if not digit.symbol:
        truth = html.escape(digit.truth)
        return (
            f'<span class="answer empty wrong" title="place {place}: missing, it is '
            f'{truth}"></span><span class="truth">{truth}</span>'
        )
    return draw_button(digit, place, "")


def draw_button(digit: Digit, place: int, kind: str) -> str:
    """A symbol that can be clicked for its attention."""
    symbol = html.escape(digit.symbol.replace("-", MINUS))
    right = "right" if digit.is_right else "wrong"
    text = f"place {place} from the right: {symbol}, {right}"
    if digit.probability is not None:
        text += f", {percent(digit.probability)} sure"
    surplus = "" if kind else TIMES
    truth = "" if digit.is_right else html.escape(digit.truth or surplus)
    classes = f"answer {confidence_class(digit.probability)} {right} {kind}".strip()
    token = "" if digit.token is None else f' data-token="{digit.token}"'
    return (
        f'<button type="button" class="{classes}" style="--place:{place}"{token} '
        f'title="{text}" aria-label="{text}">{symbol}</button>'
        f'<span class="truth">{truth}</span>'
    )


def draw_verdict(sheet: Sheet, digits: list[Digit]) -> str:
    """Whether the answer is right, in one sentence."""
    count = len(sheet.answer.truth)
    if sheet.answer.is_right:
        verdict = f"Right, all {count:,} digits." if count > 1 else "Right."
    else:
        num_wrong = sum(not digit.is_right for digit in digits)
        verdict = f"Wrong in {num_wrong:,} of {len(digits):,} places."
    sure = math.prod(sheet.answer.probabilities)
    where = (
        f"Longer than anything it was trained on ({max(sheet.max_cell)} digits)."
        if sheet.is_beyond
        else f"No longer than what it was trained on ({max(sheet.max_cell)} digits)."
    )
    mark, kind = ("✓", "good") if sheet.answer.is_right else ("✗", "bad")
    return (
        f'<p class="verdict {kind}" role="status"><b>{mark} {verdict}</b> '
        f"<span>The model is {percent(sure)} sure of the whole answer. {where}</span>"
        "</p>"
    )


def draw_legend(sheet: Sheet) -> str:
    """What colours and marks mean."""
    steps = "".join(
        f'<span class="key sure{number}">{html.escape(name)}</span>'
        for number, (_, name) in enumerate(CONFIDENCE)
    )
    carry = {PLUS: "carry", MINUS: "borrow"}.get(sheet.sign)
    marks = '<span><i class="key wrong">7</i> wrong, the right digit below it</span>'
    if carry:
        marks = f'<span><i class="dot">•</i> {carry} into this place</span>{marks}'
    if sheet.is_beyond:
        marks += (
            '<span><i class="key shade"></i> beyond the '
            f"{sheet.trained_places} places of training</span>"
        )
    return (
        f'<div class="legend"><span class="scale"><span>how sure</span>{steps}</span>'
        f"{marks}<span>Click a digit of the answer to see what it reads.</span></div>"
    )


def draw_texts(sheet: Sheet) -> str:
    """The same as text, to copy, and what the model wrote symbol by symbol."""
    sign = OPERATORS[sheet.sign]
    lines = {
        "calculation": f"{sheet.a} {sign} {sheet.b}",
        "the model's answer": sheet.answer.answer,
        "the right answer": sheet.answer.truth,
        "as the model wrote it, from the ones up": sheet.answer.tokens,
    }
    rows = "".join(
        f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in lines.items()
    )
    return f"<details><summary>As text</summary><dl>{rows}</dl></details>"


def draw_note(text: str) -> str:
    """A polite refusal, or a hint."""
    return f'<p class="note" role="alert">{html.escape(text)}</p>'
