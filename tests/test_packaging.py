"""What a release says and holds; CI builds it."""

import pathlib
import re
import tomllib

import pytest

import arith_jax
from tools import distributions, pypi_readme

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = (ROOT / "CITATION.cff").read_text()


def test_the_version_is_the_same_everywhere():
    version = re.escape(arith_jax.__version__)
    assert re.search(rf"^version: {version}$", CITATION, re.MULTILINE)
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\S+) - (\S+)$", changes, re.MULTILINE)
    assert newest
    assert newest[1] == arith_jax.__version__
    assert f"date-released: {newest[2]}" in CITATION


def test_the_authors_are_those_of_the_citation():
    for author in PROJECT["authors"]:
        assert f'- name: "{author["name"]}"' in CITATION


def in_wheel(name):
    """Place in a wheel of a file of the repository."""
    return name.replace("checkpoints/", "arith_jax/checkpoints/", 1)


def test_a_wheel_with_more_or_less_than_the_package_is_refused():
    names = [in_wheel(name) for name in distributions.package_files()]
    names.append("arith_jax-1.dist-info/METADATA")
    distributions.check_wheel(names)
    with pytest.raises(ValueError, match=r"lacks \['arith_jax/run\.py'\]"):
        distributions.check_wheel(sorted({*names} - {"arith_jax/run.py"}))
    with pytest.raises(ValueError, match=r"result\.json"):
        distributions.check_wheel([*names, "arith_jax/checkpoints/x/result.json"])


def test_a_source_distribution_without_a_config_is_refused():
    files = distributions.package_files() | distributions.config_files()
    names = {f"arith_jax-1/{name}" for name in files | set(distributions.BESIDE)}
    distributions.check_sdist(sorted(names))
    with pytest.raises(ValueError, match=r"base\.py"):
        distributions.check_sdist(sorted(names - {"arith_jax-1/configs/base.py"}))
    with pytest.raises(ValueError, match=r"result\.json"):
        distributions.check_sdist([*names, "arith_jax-1/checkpoints/x/result.json"])


def test_links_of_the_readme_are_absolute_on_an_index():
    text = "[a](docs/a.md#b) ![c](docs/c.png) [d](https://example.org/)"
    assert pypi_readme.absolute(text, "https://host/me/it", "v1") == (
        "[a](https://host/me/it/blob/v1/docs/a.md#b) "
        "![c](https://host/me/it/raw/v1/docs/c.png) [d](https://example.org/)"
    )
    readme = pypi_readme.absolute(pypi_readme.README.read_text(), "https://host", "v1")
    links = re.findall(r"\]\(([^)\s]+)\)", readme)
    assert links
    assert all(link.startswith("https://") for link in links)
