"""Checksums of a checkpoint: a flipped bit in raw numbers shows nowhere else."""

import json
import pathlib
import zlib

NAME = "checksums.json"
CHUNK = 2**20


def checksum(path: pathlib.Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def write_checksums(folder: pathlib.Path) -> None:
    """Writes the checksums of all files in the folders of a folder into it."""
    files = [path for path in sorted(folder.glob("*/**/*")) if path.is_file()]
    sums = {path.relative_to(folder).as_posix(): checksum(path) for path in files}
    (folder / NAME).write_text(json.dumps(sums, indent=0) + "\n")


def damage(folder: pathlib.Path) -> str:
    """What is wrong with the files of a folder, in words; empty: nothing.

    A folder without checksums, of an older version, is taken as it is.
    """
    if not (folder / NAME).exists():
        return ""
    try:
        sums = json.loads((folder / NAME).read_text())
    except ValueError:
        return f"{NAME} is damaged"
    for name, value in sums.items():
        if not (folder / name).exists():
            return f"{name} is missing"
        if checksum(folder / name) != value:
            return f"{name} is damaged"
    return ""
