"""The time that training has taken, the same for every process."""

import time

import jax

from arith_jax import distributed

# Seconds between two looks at the clock of the first process, of several.
AGREED_SECONDS = 1.0


class Stopwatch:
    """Seconds of a run, without those of compilation.

    Schedules, budgets and the times of checkpoints follow from it, so processes must
    not disagree. One process reads its own clock at every step. Several ask the first
    one about once a second, and add the pace of the steps in between.
    """

    def __init__(self, train_seconds: float, compile_seconds: float):
        self.compile_seconds = compile_seconds
        self._started = time.perf_counter() - train_seconds - compile_seconds
        self._agreed = train_seconds
        self._agreed_at = self._ask_at = 0
        self._pace = 0.0
        self._step = 0

    def compiled(self, seconds: float) -> None:
        """Leaves the seconds of a compilation out."""
        self.compile_seconds += seconds

    def _read(self) -> float:
        return time.perf_counter() - self._started - self.compile_seconds

    def elapsed(self, step: int) -> float:
        """Seconds of training so far.

        Args:
            step: Steps so far, which tells all processes when to ask.
        """
        if jax.process_count() == 1:
            return self._read()
        if step >= self._ask_at:
            before, steps = self._agreed, step - self._agreed_at
            seconds, self.compile_seconds = distributed.agreed(
                (self._read(), self.compile_seconds)
            )
            self._agreed = max(seconds, before)
            self._pace = (self._agreed - before) / steps if steps else 0.0
            self._agreed_at = step
            wait = AGREED_SECONDS / self._pace if self._pace > 0 else 1
            self._ask_at = step + max(int(wait), 1)
        return self._agreed + self._pace * (step - self._agreed_at)
