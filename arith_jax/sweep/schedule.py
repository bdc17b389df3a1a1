"""Runs the entries of a sweep, one process each, as many at once as there are devices.

A process of its own gives a device's memory back when it ends, and takes nobody along
when it fails. This process leaves the devices alone.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

import rich.console
import rich.live

from arith_jax.sweep import progress
from arith_jax.sweep.entries import Entry

# Seconds between looks at the processes, and that they have to end by themselves.
POLL, GRACE = 0.2, 10.0
PROBE = "import jax; print(jax.default_backend(), jax.local_device_count())"
# What the environment of a run says about its device.
VISIBLE = "CUDA_VISIBLE_DEVICES"
Device = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Run:
    """An entry that runs.

    Attributes:
        index: In the sweep.
        workdir: Of the entry.
        device: What its environment says about its device.
        process: The run's.
        log: What it prints.
        since: When it was started.
    """

    index: int
    workdir: pathlib.Path
    device: Device
    process: subprocess.Popen[bytes]
    log: pathlib.Path
    since: float

    @property
    def where(self) -> str:
        """The device, in words."""
        return self.device.get(VISIBLE, "default")


def host_devices() -> list[Device]:
    """For each GPU of this host, what a run on it has in its environment.

    Anything else than GPUs is one device. A process of its own asks, since JAX takes
    the memory of every GPU that it sees.

    Raises:
        ValueError: If JAX does not start.
    """
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    asked = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        raise ValueError(f"JAX finds no device: {last_line(asked.stderr)}")
    backend, count = asked.stdout.split()[-2:]
    if backend != "gpu":
        return [{}]
    visible = os.environ.get(VISIBLE)
    names = visible.split(",") if visible else map(str, range(int(count)))
    return [{VISIBLE: name} for name in names][: int(count)]


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def run_all(
    entries: Sequence[Entry],
    root: pathlib.Path,
    *,
    launch: pathlib.Path,
    devices: Sequence[Device],
    console: rich.console.Console,
) -> bool:
    """Runs what is not finished, and prints what happens and a table in the end.

    A run's output is in `root/<name>.log`. A failed run does not keep others from
    running. After Ctrl-C or SIGTERM the running ones are ended, to be resumed by the
    same command.

    Args:
        entries: Of a sweep.
        root: Folder of the workdirs.
        launch: The script that runs one entry.
        devices: Of this host; one run each at a time.
        console: Where to print.

    Returns:
        Whether all entries are finished.
    """

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    words = [progress.state(entry, root).word for entry in entries]
    waiting = [i for i, word in enumerate(words) if word != progress.FINISHED]
    say(
        f"{len(entries)} entries, {len(entries) - len(waiting)} finished before; "
        f"{len(devices)} at a time; output in {root}/<name>.log"
    )
    root.mkdir(parents=True, exist_ok=True)
    free, running = list(devices), list[Run]()
    failed: dict[int, str] = {}
    with noted_signals() as signals, live_table(console) as live:
        try:
            while (waiting or running) and not signals:
                while waiting and free:
                    index = waiting.pop(0)
                    run = start(index, entries[index], root, launch, free.pop(0))
                    running.append(run)
                    say(f"started {index} {run.workdir.name} on device {run.where}")
                time.sleep(POLL)
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    free.append(run.device)
                    code, seconds = run.process.returncode, time.monotonic() - run.since
                    ended = f"{run.index} {run.workdir.name} after {seconds:.0f} s"
                    if code:
                        reason = last_line(run.log.read_text(errors="replace"))
                        failed[run.index] = f"exit code {code}: {reason}"
                        say(f"failed {ended}, {failed[run.index]} (log: {run.log})")
                    else:
                        say(f"finished {ended}")
                if live:
                    rows = [(str(r.index), r.where, r.workdir) for r in running]
                    live.update(progress.progress_table(rows))
        finally:
            stop([run.process for run in running])
    unfinished = sorted(waiting + [run.index for run in running])
    console.print(progress.result_table(entries, root, failed))
    done = len(entries) - len(failed) - len(unfinished)
    say(f"{done} of {len(entries)} entries finished, {len(failed)} failed")
    if unfinished:
        names = ", ".join(entries[index].name for index in unfinished)
        say(f"stopped; unfinished: {names}; the same command goes on")
    return done == len(entries)


def start(
    index: int, entry: Entry, root: pathlib.Path, launch: pathlib.Path, device: Device
) -> Run:
    """Starts the process of an entry, with its output in a file beside its workdir."""
    log = root / f"{entry.name}.log"
    command = [sys.executable, str(launch), *entry.arguments(root)]
    since = time.monotonic()
    with log.open("wb") as file:
        process = spawn(command, os.environ | device, file)
    return Run(index, root / entry.name, device, process, log, since)


def spawn(
    command: Sequence[str], environment: Mapping[str, str], file: IO[bytes]
) -> subprocess.Popen[bytes]:
    """A process that Ctrl-C does not reach: it is ended by this one."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        process_group=0,
    )


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends processes: asks first, and kills those that have not ended in time."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(until - time.monotonic(), 0))
        process.kill()
        process.wait()


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Signals that ask this process to end are noted in a list instead.

    An exception could come between the start of a process and the note of it.
    """
    noted: list[int] = []
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {
        number: signal.signal(number, lambda number, _: noted.append(number))
        for number in asked
    }
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def live_table(console: rich.console.Console) -> Iterator[rich.live.Live | None]:
    """A place for a table that changes; None where there is no terminal."""
    if not console.is_terminal:
        yield None
        return
    with rich.live.Live(console=console, transient=True) as live:
        yield live
