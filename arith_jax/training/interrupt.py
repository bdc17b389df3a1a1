"""Signals that ask a run to end: it saves first, and says how to go on.

Python handles a signal between two operations of the main thread, which may compile for
minutes. A second thread therefore watches as well, and ends the process in time.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds that a run has to end its step and save.
GRACE = 8.0
# Seconds in which a second signal is the first one once more: `timeout` and shells
# send a process and its group the same one.
REPEATED = 0.3
SHOW_CURSOR = b"\x1b[?25h"


class Interrupt:
    """The first signal that asks this process to end, once it has come.

    Outside of `held` it ends the process. Inside, the code has GRACE seconds to see it
    (`is_due`), save and return. A second signal ends the process at once.

    Attributes:
        number: Of the signal; None: none has come.
        resume: The command that goes on.
        describe: Says what is saved.
    """

    def __init__(self, resume: str = ""):
        self.number: int | None = None
        self.resume = resume
        self.describe: Callable[[], str] = lambda: "nothing was begun"
        self._is_held = False

    def is_due(self, step: int) -> bool:
        """Whether to save and end after this step; the same for all processes.

        Args:
            step: Steps so far. Every process asks after each.
        """
        if jax.process_count() == 1:
            return self.number is not None
        is_due = multihost_utils.reached_preemption_sync_point(step)
        if is_due and self.number is None:
            self.number = signal.SIGTERM
        return is_due

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What is inside ends by itself after a signal; then the process does."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self.number is not None:
            self._leave()

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal, in the main thread."""
        if self.number is not None:
            return
        self.number = number
        if number == signal.SIGHUP:
            leave_terminal()
        if not self._is_held:
            self._leave()
        if jax.distributed.is_initialized():
            # JAX tells the other processes of this one.
            os.kill(os.getpid(), signal.SIGTERM)

    def watch(self, read_end: int) -> None:
        """Ends the process at a second signal, or if the first one is not obeyed.

        Args:
            read_end: Of a pipe that has the numbers of signals, and 0 at the end.
        """
        number, since = 0, 0.0
        while True:
            wait = max(since + GRACE - time.monotonic(), 0) if number else None
            if not select.select([read_end], [], [], wait)[0]:
                self._say(number, "no time to save, ")
                os._exit(128 + number)
            for byte in os.read(read_end, 64):
                if byte == 0:
                    return
                if not number and byte in SIGNALS:
                    number, since = byte, time.monotonic()
                elif byte in SIGNALS and time.monotonic() - since > REPEATED:
                    if os.isatty(2):
                        os.write(2, SHOW_CURSOR)
                    os._exit(128 + byte)

    def _leave(self) -> None:
        assert self.number is not None
        self._say(self.number, "")
        raise SystemExit(128 + self.number)

    def _say(self, number: int, hurry: str) -> None:
        """One line, written without Python's buffers: a handler may be inside them."""
        name = signal.Signals(number).name
        line = f"{name}: {hurry}{self.describe()}; to go on: {self.resume}\n"
        with contextlib.suppress(OSError):
            os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + line.encode())


@contextlib.contextmanager
def noted_signals(resume: str) -> Iterator[Interrupt]:
    """Notes SIGINT, SIGTERM and SIGHUP; the handlers before are put back at the end.

    Signals that are ignored, as under `nohup`, still are. Of several processes SIGTERM
    is JAX's own, which agrees on a step. For the main thread only.

    Args:
        resume: The command that goes on.
    """
    interrupt = Interrupt(resume)
    numbers = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    if jax.distributed.is_initialized():
        numbers.remove(signal.SIGTERM)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    watcher = threading.Thread(target=interrupt.watch, args=(read_end,), daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    before = {number: signal.signal(number, interrupt.note) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.write(write_end, b"\0")
        watcher.join()
        os.close(read_end)
        os.close(write_end)


def leave_terminal() -> None:
    """Sends what is printed nowhere: a terminal that is gone answers with an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            os.dup2(nowhere, descriptor)
