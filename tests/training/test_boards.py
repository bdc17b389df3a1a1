"""TensorBoard and Weights & Biases: the real packages, offline."""

import importlib.util
import json
import re
import struct

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from arith_jax import run
from arith_jax.training.boards import TensorBoard, open_boards
from tests.helpers import changed

BLOCK = 2**15


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def asking(smoke):
    """Trained for 4 steps, every other of which is logged to both boards."""
    return changed(
        smoke,
        train__steps=4,
        train__log_every=2,
        train__tensorboard=True,
        train__wandb="sums",
    )


def wandb_records(workdir):
    """What the files of Weights & Biases of a run hold, in order of time.

    They are logs of LevelDB: after a header, blocks of 32 KiB with pieces of records,
    each a checksum, a length and a kind (1: whole, 2 to 4: first to last).
    """
    for path in sorted(workdir.glob("wandb/offline-run-*/*.wandb")):
        data, at, record = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            size, kind = struct.unpack_from("<HB", data, at + 4)
            record += data[at + 7 : at + 7 + size]
            at += 7 + size
            if BLOCK - at % BLOCK < 7:
                at += BLOCK - at % BLOCK
            if kind in (1, 4):
                parsed, record = wandb_internal_pb2.Record.FromString(record), b""
                yield parsed


def values_of(items):
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for item in items
    }


def test_both_show_one_run_with_its_result_after_it_was_cut_off(
    asking, tmp_path, offline
):
    run.run(changed(asking, train__steps=2), tmp_path, mode="train")
    # A line past the last checkpoint, as after a kill.
    board = TensorBoard(tmp_path, 2)
    board.write({"step": 3, "loss": 7.0})
    board.close()
    result = run.run(asking, tmp_path)

    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4]
    assert [event.step for event in events.Images("grid")] == [4]

    records = list(wandb_records(tmp_path))
    lines = [values_of(r.history.item) for r in records if r.HasField("history")]
    assert [line["step"] for line in lines] == [2, 4]
    kept = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [line["loss"] for line in lines] == [json.loads(k)["loss"] for k in kept]
    opened = [record.run for record in records if record.HasField("run")]
    assert len({one.run_id for one in opened}) == 1
    assert {one.project for one in opened} == {"sums"}
    config = values_of(opened[0].config.update)
    assert config["train"]["steps"] == 2
    summaries = [values_of(r.summary.update) for r in records if r.HasField("summary")]
    summary = {k: v for part in summaries for k, v in part.items()}

    for part, count in result["exact_match"].items():
        score = count["correct"] / count["total"]
        assert summary[f"eval/{part}"] == score
        (event,) = events.Scalars(f"eval/{part}")
        assert (event.step, event.value) == (4, pytest.approx(score))
    assert summary["grid"]["_type"] == "image-file"


def test_without_a_login_it_says_how_to_get_one(asking, tmp_path, monkeypatch, offline):
    wandb.teardown()  # It reads its environment once.
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"train.wandb='sums': .*WANDB_MODE=offline"):
        open_boards(changed(asking, train__tensorboard=False), tmp_path, 0)


@pytest.mark.parametrize(
    ("knob", "package"),
    [("tensorboard=True", "tensorboardX"), ("wandb='sums'", "wandb")],
)
def test_a_missing_package_is_named_before_training(
    asking, tmp_path, monkeypatch, knob, package
):
    is_there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == package else is_there(name),
    )
    text = re.escape(f"train.{knob} needs the package {package}: pip install")
    with pytest.raises(ValueError, match=text):
        run.run(asking, tmp_path)
    assert not any(tmp_path.iterdir())
