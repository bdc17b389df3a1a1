"""Links of the documents, and what the API reference covers; CI builds the site."""

import json
import pathlib
import re

import pytest

import arith_jax

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
]
CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
REFERENCE = re.compile(r"^::: (\S+)$", re.MULTILINE)


def text_of(path):
    """A document without its code."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
        text = "\n\n".join(texts)
    return CODE.sub("", text)


def anchors_of(path):
    """Anchors that GitHub gives to the headings of a document."""
    headings = HEADING.findall(text_of(path))
    return {
        re.sub(r"[^\w\- ]", "", x).strip().lower().replace(" ", "-") for x in headings
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_and_anchors_hold(path):
    for link in LINK.findall(text_of(path)):
        if re.match("[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def test_the_api_reference_has_every_public_name():
    pages = [path.read_text() for path in (ROOT / "docs" / "api").glob("*.md")]
    modules = {name for text in pages for name in REFERENCE.findall(text)}
    # This page has what `__all__` lists; the others show where each name is at home.
    assert "arith_jax" in modules
    for name in arith_jax.__all__:
        home = getattr(arith_jax, name).__module__
        parts = home.split(".")
        above = {".".join(parts[:end]) for end in range(2, len(parts) + 1)}
        assert above & modules, f"{name} of {home}"


def test_every_page_is_in_the_navigation():
    config = (ROOT / "mkdocs.yml").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        assert f" {path.relative_to(ROOT / 'docs')}\n" in config, path
