"""The scheduler, with a stand-in for `launch.py`."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import rich.console

from arith_jax.sweep import progress, schedule
from arith_jax.sweep.entries import Entry

ROOT = pathlib.Path(schedule.__file__).parent.parent.parent

# Runs an entry in no time: the seed says how it ends. Notes when it starts and ends.
STAND_IN = """
import json, os, pathlib, signal, sys, time

flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
workdir = pathlib.Path(flags["workdir"])
seed = int(flags["config.seed"])

def note(what):
    device = os.environ["CUDA_VISIBLE_DEVICES"]
    line = [what, device, seed, time.monotonic(), os.getpid()]
    with (workdir.parent / "events").open("a") as file:
        file.write(json.dumps(line) + "\\n")

def asked(*_):
    note("asked")
    sys.exit(0)

if seed >= 97:
    signal.signal(signal.SIGTERM, signal.SIG_IGN if seed == 98 else asked)
note("start")
if seed == 99:
    print("first line")
    sys.exit("error: [bold]a value[/x] is not allowed\\n")
time.sleep(60 if seed >= 97 else 0.4)
workdir.mkdir(parents=True)
result = {"config": {"overrides": {"seed": seed}}}
result["exact_match"] = {"id": {"correct": seed, "total": 9999}}
(workdir / "result.json").write_text(json.dumps(result))
note("end")
"""


@pytest.fixture
def stand_in(tmp_path):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return path


def fakes(*seeds):
    return [Entry("configs/fake.py", {}, seed, "fake") for seed in seeds]


def events(root):
    return [json.loads(line) for line in (root / "events").read_text().splitlines()]


def run_fakes(entries, root, script, *, num_devices, terminal=False):
    """Whether all finished, and what was printed."""
    file = io.StringIO()
    console = rich.console.Console(
        file=file, width=120, force_terminal=terminal, highlight=False
    )
    devices = [{"CUDA_VISIBLE_DEVICES": str(3 + i)} for i in range(num_devices)]
    done = schedule.run_all(
        entries, root, launch=script, devices=devices, console=console
    )
    return done, file.getvalue()


def test_one_run_a_device_and_no_device_idle(tmp_path, stand_in):
    done, printed = run_fakes(fakes(*range(8)), tmp_path, stand_in, num_devices=3)
    assert done
    assert "8 of 8 entries finished, 0 failed" in printed
    busy, most = {}, 0
    for what, device, seed, *_ in sorted(events(tmp_path), key=lambda line: line[3]):
        if what == "start":
            assert device not in busy
            busy[device] = seed
        else:
            assert busy.pop(device) == seed
        most = max(most, len(busy))
    assert most == 3
    assert {line[1] for line in events(tmp_path)} == {"3", "4", "5"}
    started = [line[2] for line in events(tmp_path) if line[0] == "start"]
    assert sorted(started) == list(range(8))


def test_failed_entries_are_reported_and_others_go_on(tmp_path, stand_in):
    done, printed = run_fakes(fakes(99, 1, 2), tmp_path, stand_in, num_devices=1)
    assert not done
    reason = "exit code 1: error: [bold]a value[/x] is not allowed"
    log = tmp_path / "fake_s99.log"
    assert f"failed 0 fake_s99 after 0 s, {reason} (log: {log})" in printed
    assert "2 of 3 entries finished, 1 failed" in printed
    assert "first line" in log.read_text()
    rows = {line.split()[0]: line for line in printed.splitlines() if "fake_s" in line}
    assert "failed" in rows["0"]
    assert reason in rows["0"]
    assert "id 0.01%" in rows["1"]


def test_finished_entries_are_skipped_and_others_are_not(tmp_path, stand_in):
    assert run_fakes(fakes(1), tmp_path, stand_in, num_devices=1)[0]
    # The same name with other overrides is for launch.py to judge.
    other = Entry("configs/fake.py", {"train.steps": 3}, 2, "fake")
    assert run_fakes(fakes(2), tmp_path, stand_in, num_devices=1)[0]
    assert progress.state(other, tmp_path).word == "differs"
    before = len(events(tmp_path))
    (tmp_path / "fake_s2" / "result.json").unlink()
    done, printed = run_fakes(fakes(1, 3), tmp_path, stand_in, num_devices=2)
    assert done
    assert "2 entries, 1 finished before" in printed
    assert [line[2] for line in events(tmp_path)[before:]] == [3, 3]
    words = [progress.state(entry, tmp_path).word for entry in fakes(1, 2, 4)]
    assert words == ["finished", "started", "-"]


def test_a_terminal_gets_a_table_that_changes(tmp_path, stand_in):
    done, printed = run_fakes(
        fakes(1), tmp_path, stand_in, num_devices=1, terminal=True
    )
    assert done
    assert "starting" in printed
    assert "1 of 1 entries finished" in printed


def test_training_is_read_off_the_last_complete_line(tmp_path):
    assert progress.training(tmp_path) == "starting"
    log, config = tmp_path / "metrics.jsonl", tmp_path / "config.json"
    log.write_text("")
    assert progress.training(tmp_path) == "compiling"
    line = {"step": 1500, "train_seconds": 90.0, "loss": 0.25}
    log.write_text('{"step": 1}\n' + json.dumps(line) + '\n{"step": 2')
    config.write_text(json.dumps({"train": {"steps": 0, "minutes": 6.0}}))
    assert progress.training(tmp_path) == "step 1,500  25%  loss 0.2500"
    config.write_text(json.dumps({"train": {"steps": 2000, "minutes": 0.0}}))
    assert progress.training(tmp_path) == "step 1,500  75%  loss 0.2500"


STOPPED = """
import pathlib, sys
import rich.console
from arith_jax.sweep import schedule
from arith_jax.sweep.entries import Entry

schedule.GRACE = 0.5
root = pathlib.Path(sys.argv[1])
done = schedule.run_all(
    [Entry("configs/fake.py", {}, seed, "fake") for seed in (0, 97, 98, 96)],
    root,
    launch=root / "stand_in.py",
    devices=[{"CUDA_VISIBLE_DEVICES": str(i)} for i in range(2)],
    console=rich.console.Console(width=120),
)
sys.exit(0 if done else 1)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_running_ones_and_says_what_is_left(
    number, tmp_path, stand_in
):
    command = [sys.executable, "-c", STOPPED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    # One of the two has to be killed: it does not listen.
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
        if (tmp_path / "events").exists():
            pids = {line[2]: line[4] for line in events(tmp_path)}
            if {97, 98} <= pids.keys():
                break
    assert all(alive(pids[seed]) for seed in (97, 98))
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert not any(alive(pid) for pid in pids.values())
    assert "1 of 4 entries finished, 0 failed" in printed
    assert "unfinished: fake_s97, fake_s98, fake_s96; the same command" in printed
    noted = {(line[0], line[2]) for line in events(tmp_path)}
    assert ("asked", 97) in noted
    assert ("start", 96) not in noted


def test_devices_are_those_that_are_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(schedule, "PROBE", "print('noise'); print('gpu', 2)")
    names = lambda: [device.get("CUDA_VISIBLE_DEVICES") for device in devices()]
    devices = schedule.host_devices
    assert names() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3,7")
    assert names() == ["5", "GPU-3"]
    monkeypatch.setattr(schedule, "PROBE", "print('cpu', 4)")
    assert devices() == [{}]
    monkeypatch.setattr(schedule, "PROBE", "raise SystemExit('no driver')")
    with pytest.raises(ValueError, match="JAX finds no device: no driver"):
        devices()
