import subprocess
import sys

import pytest

from arith_jax import memory

# Minor page faults of filling 64 MiB for the second time.
FAULTS = """
import resource
import numpy as np
from arith_jax import memory
if {keep} and not memory.keep_freed_memory():
    raise SystemExit("no glibc")
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fill()
print(fill())
"""


def faults(keep: bool) -> int:
    code = FAULTS.format(keep=keep)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "no glibc" in run.stderr:
        pytest.skip("not glibc")
    return int(run.stdout)


def test_memory_that_was_given_back_is_used_again():
    # Otherwise the system clears it again, a page or a huge page at a time.
    assert faults(keep=True) < faults(keep=False)


@pytest.mark.parametrize("platform", ["darwin", "win32", "linux"])
def test_other_systems_and_libraries_are_left_alone(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
