"""MkDocs hook: makes one site of documents that read well on GitHub, too.

The README is the first page, and changelog and notebooks become pages. Links are
written as GitHub wants them, relative to the file they stand in; here they are turned
to the page that a file has become, to the API reference of a module, or to a copy.

It runs where MkDocs is installed and this package's dependencies are not.
"""

import json
import pathlib
import posixpath
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parent.parent
# Pages that are made of files outside docs/, by their place in the site.
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}
# Other files outside docs/ that pages link to.
COPIES = ("CITATION.cff", "LICENSE")
LINK = re.compile(r"(?<!!)\[([^\]\[]*(?:\[[^\]]*\])?[^\]\[]*)\]\(([^)\s]+)\)")
IMAGE = re.compile(r"(!\[[^\]]*\])\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def sources() -> dict[str, str]:
    """File in the repository of every page that is not in docs/."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    made = {f"notebooks/{path.stem}.md": f"notebooks/{path.name}" for path in notebooks}
    return PAGES | made


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made, and copies of other files that pages link to."""
    for uri, source in sources().items():
        path = ROOT / source
        is_notebook = path.suffix == ".ipynb"
        text = notebook_text(path) if is_notebook else path.read_text()
        files.append(File.generated(config, uri, content=text))
    for source in COPIES:
        path = str(ROOT / source)
        files.append(File.generated(config, f"files/{source}", abs_src_path=path))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Turns links between files of the repository into links of the site."""
    uri = page.file.src_uri
    source = sources().get(uri, f"docs/{uri}")
    pages = {made: place for place, made in sources().items()}
    pages["arith_jax/__init__.py"] = "api/index.md"

    def place_of(target: str) -> tuple[str, str]:
        """File of the repository that a link names, and the anchor in it."""
        path, _, anchor = target.partition("#")
        joined = posixpath.join(posixpath.dirname(source), path)
        return (posixpath.normpath(joined) if path else source), anchor

    def linked(name: str, anchor: str) -> str | None:
        """Relative link to what a file has become; None: it is not in the site."""
        place = pages.get(name)
        if place is None and name.startswith("docs/"):
            place = name.removeprefix("docs/")
        if name in COPIES:
            place = f"files/{name}"
        if place is None:
            return None
        relative = posixpath.relpath(place, posixpath.dirname(uri) or ".")
        return f"{relative}#{anchor}" if anchor else relative

    def turn_link(match: re.Match[str]) -> str:
        """A link of the site."""
        text, target = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        name, anchor = place_of(target)
        link = linked(name, anchor)
        if link is not None:
            return f"[{text}]({link})"
        if name.startswith("arith_jax/") and name.endswith(".py"):
            module = name.removesuffix(".py").replace("/", ".")
            return f"[{text}][{module}]"
        if (ROOT / name).is_dir():
            return text
        raise ValueError(f"{source} links to {target}, which is not in the site")

    def turn_image(match: re.Match[str]) -> str:
        """An image of the site."""
        text, target = match.groups()
        return f"{text}({linked(*place_of(target))})"

    # Code stays as it is: its brackets are no links.
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = FENCE.sub(keep, markdown)
    text = IMAGE.sub(turn_image, LINK.sub(turn_link, text))
    return re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], text)


def notebook_text(path: pathlib.Path) -> str:
    """A notebook as a page: its texts and its code, without outputs."""
    name = path.relative_to(ROOT).as_posix()
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    parts = [
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    ]
    title, *rest = parts
    note = f"*This page is `{name}` of the repository: run it with Jupyter.*"
    return "\n\n".join([title, note, *rest])
