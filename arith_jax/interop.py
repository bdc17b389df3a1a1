"""Compares this package with recordings of the original.

python -m arith_jax.interop check DIR [DIR...]

Each folder holds `case.json`, the original's parameters and what it computed.
"""

import pathlib
import sys
from collections.abc import Sequence

from arith_jax import cli
from arith_jax.mcleish import parity


def main(arguments: Sequence[str]) -> None:
    """Runs the parity check; ends with 1 if it fails.

    Raises:
        ValueError: If the command is another one or a folder cannot be read.
    """
    rest = cli.parse(cli.new_flags(), arguments, __doc__ or "")
    if len(rest) < 2 or rest[0] != "check":
        raise ValueError(
            f"arguments {' '.join(rest)!r}; allowed: check, and folders of recordings"
        )
    passed = parity.check([pathlib.Path(folder) for folder in rest[1:]])
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    cli.run(main)
