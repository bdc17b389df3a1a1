"""One process at a time in a workdir."""

import contextlib
import datetime
import errno
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import IO

from arith_jax.distributed import is_first

# What file systems without locks answer.
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other processes out of a workdir, by a lock on `<workdir>/lock`.

    The operating system gives the lock up when the process ends, in any way. Of several
    processes that run together the first one takes it.

    Args:
        workdir: Made if it is missing.

    Raises:
        ValueError: If another process has the lock; names it.
        OSError: If nothing can be written there.
    """
    if not is_first():
        yield
        return
    path = workdir / "lock"
    workdir.mkdir(parents=True, exist_ok=True)
    with take(path):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def take(path: pathlib.Path) -> IO[str]:
    """The open file of a lock, which says who has it.

    Raises:
        ValueError: If another process has the lock.
    """
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise ValueError(
                f"workdir {path.parent} is in use by {holder}; wait until it has "
                "ended, or choose another --workdir"
            ) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        # The process before may have removed the file in between.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}, started {now}\n")
    file.flush()
    return file
