"""Which checkpoints a workdir has, and which of them can be read."""

import errno
import itertools
import logging
import os
import pathlib
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import jax

from arith_jax.distributed import agreed, is_first
from arith_jax.training.checksums import damage

Restored = TypeVar("Restored")


def quiet_libraries() -> None:
    """Keeps orbax and what it calls from printing errors, which are raised as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = show_error


def show_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Shows an error as Python does, but for writes that were given up.

    After the first one has failed, the others find nobody who waits for them.
    """
    if str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


def steps_in(folder: pathlib.Path) -> list[int]:
    """Steps of the checkpoints in a folder, the newest first."""
    names = [path.name for path in folder.glob("[0-9]*")]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def newest_path(workdir: pathlib.Path) -> pathlib.Path | None:
    """The newest checkpoint of a run, if there is one."""
    folder = workdir / "checkpoints"
    return next((folder / str(step) for step in steps_in(folder)), None)


def saved_text(workdir: pathlib.Path) -> str:
    """What is saved of a run, in words."""
    newest = newest_path(workdir)
    if newest is None:
        return f"there is no checkpoint in {workdir} yet"
    return f"saved at step {newest.name} in {workdir}"


def newest_readable(
    folder: pathlib.Path, read: Callable[[pathlib.Path], Restored]
) -> tuple[Restored, pathlib.Path, list[pathlib.Path]]:
    """The newest checkpoint that is whole, with a warning if it is not the newest one.

    Args:
        folder: Of all checkpoints; has one at least.
        read: What to do with each; raises if it cannot be read.

    Returns:
        What was read, where, and the newer ones that could not be read.

    Raises:
        ValueError: If none can be read; says what is wrong with the newest.
    """
    quiet_libraries()
    reasons: dict[pathlib.Path, str] = {}
    for step in steps_in(folder):
        path = folder.absolute() / str(step)
        reason = damage(path) if is_first() else ""
        # All processes read the same one.
        if agreed((float(bool(reason)),))[0]:
            reasons[path] = reason or "damaged"
            continue
        try:
            content = read(path)
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:
            reasons[path] = first_line(error)
            continue
        for damaged, why in reasons.items():
            warn(f"checkpoint {damaged} cannot be read ({why}); using {path} instead")
        return content, path, list(reasons)
    newest, reason = next(iter(reasons.items()))
    others = f", nor can {len(reasons) - 1} older" if len(reasons) > 1 else ""
    raise ValueError(
        f"checkpoint {newest} cannot be read ({reason}){others}; nothing was changed: "
        "restore the folder or choose another one"
    )


def unused(path: pathlib.Path) -> pathlib.Path:
    """The path, or one with a number if there is such a file already."""
    others = (path.with_name(f"{path.name}_{i}") for i in itertools.count(2))
    return next(p for p in itertools.chain([path], others) if not p.exists())


def warn(text: str) -> None:
    """Prints a warning, once for several processes."""
    if is_first():
        print(f"warning: {text}", file=sys.stderr, flush=True)


def first_line(error: BaseException) -> str:
    """An error in one short line."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]


def disk_error(error: BaseException) -> str:
    """Why a file cannot be written: the operating system's words if it has any."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    words = [cause.strerror for cause in causes if isinstance(cause, OSError)]
    texts = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]
    said = [text for text in texts if any(text in str(cause) for cause in causes)]
    return next((word for word in [*words, *said] if word), first_line(error))
