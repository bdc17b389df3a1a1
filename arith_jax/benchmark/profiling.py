"""Where the time of a compiled program goes, by part of the model.

The profiler tells how long each operation of the program ran; the program's own text
tells which part of the model asked for it, and whether it is a matrix product.
"""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData

# Part of a program -> how its operations are called: scopes of the train step, then
# modules of the model. The first that fits counts.
PARTS = {
    "optimizer": r"/optimizer/",
    "data": r"/data/",
    "norms": r"norm/",
    "attention": r"/attention/|/adapter/",
    "gated MLP": r"/mlp/|/head_mlp/",
    "embedding": r"\.embed\b|/embed/|/token/|/abacus/|/learned/",
    "readout and loss": r"readout|decoder|loss\)*/(?!.*Transformer)",
}
REST = "rest"
PRODUCT = re.compile(r" (dot|convolution)\(|cublas|fmha|__onednn")
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = ")
COMPUTATION = re.compile(r"^%?([\w.\-]+) .*\{$")
CALLED = re.compile(r"(?:calls|to_apply|called_computations)=\{?%?([\w.\-]+)")
NAME = re.compile(r'op_name="([^"]*)"')


class Operation(NamedTuple):
    """Part of the program that an operation belongs to; whether it has a product."""

    part: str
    is_product: bool


class Share(NamedTuple):
    """Seconds a step of one part: in matrix products, and in everything else."""

    part: str
    products: float
    other: float


def part_of(name: str) -> str:
    """The part that an operation of the given name, its path in the program, is in."""
    for part, pattern in PARTS.items():
        if re.search(pattern, name):
            return part
    return REST


def operations(text: str) -> dict[str, Operation]:
    """Every operation of an optimised program, by name, from the program's text."""
    computation, bodies = "", collections.defaultdict(list)
    for line in text.splitlines():
        header = COMPUTATION.match(line)
        if header and not line.startswith(" "):
            computation = header.group(1)
        elif INSTRUCTION.match(line):
            bodies[computation].append(line)

    def has_product(line: str) -> bool:
        called = CALLED.search(line)
        inside = bodies.get(called.group(1), []) if called else []
        return bool(PRODUCT.search(line)) or any(map(has_product, inside))

    operations = {}
    for lines in bodies.values():
        for line in lines:
            match, name = INSTRUCTION.match(line), NAME.search(line)
            assert match is not None
            part = part_of(name.group(1)) if name else REST
            operations[match.group(1)] = Operation(part, has_product(line))
    return operations


def traced(call: Callable[[], Any]) -> Any:
    """What the profiler saw until what a call returns was ready on the device."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        [path] = pathlib.Path(folder).glob("**/*.xplane.pb")
        return ProfileData.from_serialized_xspace(path.read_bytes())


def durations(profile: Any) -> Iterable[tuple[str, float]]:
    """Name and seconds of every operation that ran, on devices if there are any."""
    planes = list(profile.planes)
    on_device = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in on_device or planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats and not event.name.startswith("end: "):
                    yield str(stats["hlo_op"]), event.duration_ns / 1e9


def shares(profile: Any, known: Mapping[str, Operation], steps: int) -> list[Share]:
    """Seconds a step of every part, the longest first."""
    products = collections.defaultdict[str, float](float)
    other = collections.defaultdict[str, float](float)
    for name, seconds in durations(profile):
        operation = known.get(name, Operation(REST, False))
        (products if operation.is_product else other)[operation.part] += seconds / steps
    parts = {*products, *other}
    by_part = [Share(part, products[part], other[part]) for part in parts]
    return sorted(by_part, key=lambda share: -(share.products + share.other))
