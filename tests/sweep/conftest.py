"""Sweep files are written by tests, and name configs from the top level."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def in_root(monkeypatch):
    """Configs are named from the repository's top level."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def write(tmp_path, in_root):
    """Writes a sweep file."""

    def written(text):
        path = tmp_path / "made.toml"
        path.write_text(text)
        return path

    return written
