"""What the page does when something is pressed: from fields of a browser to HTML."""

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from arith_jax.checks import one_line
from arith_jax.demo import arcs, attention, growth, heatmap, limits, paper
from arith_jax.demo.limits import OPERATORS
from arith_jax.demo.models import Model
from arith_jax.demo.paper import Sheet
from arith_jax.evaluation.answers import Answer, read_question

# Shapes of compiled programs to keep; then all are dropped, so that memory is bounded.
MAX_SHAPES = 48
EXAMPLE = ("98765432109876543210987654321", "1234567890123456789")


class Solved(NamedTuple):
    """What is on the paper, for clicks on it.

    Attributes:
        title: Of the model.
        sheet: The paper.
        num_recurrences: That it was solved with.
    """

    title: str
    sheet: Sheet
    num_recurrences: int


class Request(NamedTuple):
    """What the fields of the page hold, as a browser sends it.

    Attributes:
        title: Of the model.
        a: The first number.
        sign: The operator.
        b: The second number.
        num_recurrences: Of the slider; not looked at if the model is not looped.
    """

    title: Any
    a: Any
    sign: Any
    b: Any
    num_recurrences: Any


@dataclasses.dataclass
class Actions:
    """The models of the page and what can be done with them.

    Attributes:
        models: By title.
        pair: A model with a window and one without, as far as there are such.
        rng: Draws numbers.
        shapes: Of the programs that were compiled.
    """

    models: dict[str, Model]
    pair: Sequence[Model]
    rng: random.Random = dataclasses.field(default_factory=random.SystemRandom)
    shapes: set[Any] = dataclasses.field(default_factory=set)

    def model(self, title: Any) -> Model:
        """The model of a title.

        Raises:
            ValueError: If there is none.
        """
        return self.models[limits.read_word(title, "model", list(self.models))]

    def solve(self, request: Request) -> Solved:
        """Lets the model calculate.

        Raises:
            ValueError: In a sentence for people, if the page does not take it.
        """
        model = self.model(request.title)
        sign = limits.read_word(request.sign, "operator", model.operators)
        a = limits.read_number(request.a, "first number")
        b = limits.read_number(request.b, "second number")
        expression = f"{a}{OPERATORS[sign]}{b}"
        model.check_length(expression)
        recurrences = model.experiment.model.num_recurrences
        most = model.max_recurrences
        if most > 1:
            recurrences = limits.read_whole(
                request.num_recurrences, "number of recurrences", 1, most
            )
        answer = self.ask(model, [expression], recurrences)[0]
        sheet = Sheet(a, b, sign, answer, model.max_cell)
        return Solved(model.title, sheet, recurrences)

    def ask(
        self, model: Model, expressions: Sequence[str], num_recurrences: int
    ) -> Sequence[Answer]:
        """The model's answers; compiled programs are dropped if there are many.

        Raises:
            ValueError: If the model cannot take them.
        """
        looped = model.experiment.model.num_recurrences > 1
        try:
            widths = {read_question(model.experiment, e).width for e in expressions}
            shape = model.folder, num_recurrences, max(widths), len(expressions)
            if len(self.shapes) >= MAX_SHAPES and shape not in self.shapes:
                jax.clear_caches()
                self.shapes.clear()
            self.shapes.add(shape)
            return model.trained.solve(
                expressions, num_recurrences=num_recurrences if looped else None
            )
        except ValueError as error:
            raise ValueError(f"The model cannot do this: {error}") from error

    def show(self, request: Request) -> tuple[str, str, Solved | None]:
        """The paper, the heat map, and what is on the paper; or a note."""
        try:
            solved = self.solve(request)
        except ValueError as error:
            return paper.draw_note(one_line(str(error))), "", None
        return paper.draw_sheet(solved.sheet), self.draw_map(solved), solved

    def draw_map(self, solved: Solved) -> str:
        """The heat map of the model, marked at the current lengths."""
        model, sheet = self.models[solved.title], solved.sheet
        lengths = len(sheet.a), len(sheet.b)
        return heatmap.draw_map(model.cells, model.max_cell, lengths)

    def draw_numbers(self, length_a: Any, length_b: Any) -> tuple[str, str]:
        """Two random numbers of the lengths of the sliders.

        Raises:
            ValueError: If a length is out of range.
        """
        lengths = [
            limits.read_whole(value, f"length of the {name}", 1, limits.MAX_DRAWN)
            for value, name in (
                (length_a, "first number"),
                (length_b, "second number"),
            )
        ]
        a, b = (limits.draw_number(self.rng, length) for length in lengths)
        return a, b

    def read(self, solved: Solved | None, token: Any) -> str:
        """What is read to write one symbol of the answer, as HTML.

        Args:
            solved: What is on the paper.
            token: Of the click; None: the most telling one.
        """
        if solved is None:
            return ""
        answer = solved.sheet.answer
        try:
            if token is None:
                token = telling_token(solved.sheet)
            index = limits.read_whole(token, "symbol", 0, len(answer.tokens))
            reading = attention.read(
                self.models[solved.title].trained,
                answer.expression,
                answer.tokens,
                index,
                num_recurrences=solved.num_recurrences,
            )
        except ValueError as error:
            return paper.draw_note(one_line(str(error)))
        return arcs.draw_reading(reading)

    def compare(self, longest: Any) -> Iterator[str]:
        """The two models on longer and longer sums, a table that grows."""
        try:
            limit = limits.read_whole(longest, "length", 1, limits.MAX_COMPARED)
        except ValueError as error:
            yield paper.draw_note(one_line(str(error)))
            return
        lengths = [length for length in growth.LENGTHS if length <= limit] or [limit]
        steps: list[growth.Step] = []
        for length in lengths:
            sums = [
                "+".join(limits.draw_number(self.rng, length) for _ in range(2))
                for _ in range(limits.NUM_COMPARED)
            ]
            attempts = [self.attempt(model, sums) for model in self.pair]
            steps.append(growth.Step(length, attempts))
            yield growth.draw_growth(self.pair, steps, lengths[-1] + 1)

    def attempt(self, model: Model, sums: Sequence[str]) -> growth.Attempt:
        """What a model makes of some sums."""
        recurrences = model.experiment.model.num_recurrences
        try:
            return growth.Attempt(self.ask(model, sums, recurrences))
        except ValueError as error:
            return growth.Attempt((), one_line(str(error)))


def telling_token(sheet: Sheet) -> int:
    """The symbol to show first: a wrong one, else one that a carry goes into."""
    digits, carries = sheet.digits(), sheet.carries()
    for digit in digits:
        if not digit.is_right and digit.token is not None:
            return digit.token
    middle = len(digits) // 2
    for place in range(middle, len(digits)):
        token = digits[place].token
        if place < len(carries) and carries[place] and token is not None:
            return token
    token = digits[middle].token if digits else None
    return 0 if token is None else token
