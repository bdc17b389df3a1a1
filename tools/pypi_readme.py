"""Makes the links of README.md absolute, for the page of a package index.

python -m tools.pypi_readme https://HOST/OWNER/NAME v0.2.0

An index shows the README without the repository around it. A release knows where the
repository is and at which tag; nothing else here does.
"""

import pathlib
import re
from collections.abc import Sequence

from arith_jax import cli

README = pathlib.Path(__file__).parent.parent / "README.md"
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!\w+:)([^)\s]+)\)")


def absolute(text: str, repository: str, ref: str) -> str:
    """A text whose links to files of the repository are URLs.

    Args:
        text: In Markdown.
        repository: URL of the repository.
        ref: Tag, branch or commit.
    """

    def replace(match: re.Match[str]) -> str:
        """The link as a URL; images as files, not as pages about them."""
        image, words, path = match.groups()
        kind = "raw" if image else "blob"
        return f"{image}{words}({repository}/{kind}/{ref}/{path})"

    return LINK.sub(replace, text)


def main(arguments: Sequence[str]) -> None:
    """Rewrites README.md in place.

    Raises:
        ValueError: If there are not two arguments.
    """
    rest = cli.parse(cli.new_flags(), arguments, __doc__ or "")
    if len(rest) != 2:
        raise ValueError("give the repository's URL and a tag")
    README.write_text(absolute(README.read_text(), *rest))


if __name__ == "__main__":
    cli.run(main)
