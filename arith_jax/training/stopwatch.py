"""The time that training has taken, the same for every process."""

import time

import jax

from arith_jax import distributed

# Seconds between two looks at the clock of the first process, of several.
AGREED_SECONDS = 1.0


class Stopwatch:
    """Seconds of a run's training, and those of its compilation apart.

    Schedules, budgets and checkpoints follow from it, so processes must not disagree.
    A single process reads its clock whenever it is asked. Several ask the first one
    about once a second, and reckon with the pace of the steps in between.
    """

    def __init__(self, train_seconds: float, compile_seconds: float):
        self.compile_seconds = compile_seconds
        self._started = time.perf_counter() - train_seconds - compile_seconds
        self._agreed, self._pace = train_seconds, 0.0
        self._agreed_at = self._ask_at = 0

    def leave_out(self, seconds: float) -> None:
        """Counts some seconds as compilation."""
        self.compile_seconds += seconds

    def elapsed(self, step: int) -> float:
        """Seconds of training so far.

        Args:
            step: Steps so far; it tells all processes when to ask.
        """
        if jax.process_count() == 1:
            return self._read()
        if step >= self._ask_at:
            self._agree(step)
        return self._agreed + self._pace * (step - self._agreed_at)

    def _read(self) -> float:
        return time.perf_counter() - self._started - self.compile_seconds

    def _agree(self, step: int) -> None:
        """Takes the time of the first process, and the pace since the last time."""
        before, steps = self._agreed, step - self._agreed_at
        mine = (self._read(), self.compile_seconds)
        self._agreed, self.compile_seconds = distributed.agreed(mine)
        self._pace = max(self._agreed - before, 0.0) / steps if steps > 0 else 0.0
        # The first steps say little of the pace of those to come.
        ahead = min(AGREED_SECONDS / self._pace, 2 * steps) if self._pace else 1
        self._agreed_at, self._ask_at = step, step + max(int(ahead), 1)
