"""Takes the picture of the page that the documentation shows.

python -m tools.screenshot [--out=docs/images/demo.png] [--dark] [--width=1100]

Needs Playwright, and Chromium: `chromium` on the PATH, or what $CHROMIUM names.
"""

import contextlib
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from absl import flags
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from arith_jax import cli

ROOT = pathlib.Path(__file__).parent.parent
# Nothing that Chromium does by itself on the network.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HEIGHT = 900
SCALE = 2


def chromium() -> str | None:
    """Where Chromium is; None: there is none."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


def free_port() -> int:
    """A port of this machine that is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The page, served by a process of its own: its address.

    Raises:
        ValueError: If the process ends before it serves.
    """
    command = [sys.executable, "-m", "arith_jax.demo", f"--port={free_port()}"]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("page: "):
            raise ValueError(f"the page did not start: {line!r}")
        yield line.split()[1]
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window.

    Raises:
        ValueError: If there is none.
    """
    path = chromium()
    if path is None:
        raise ValueError("no chromium; install it, or name it with $CHROMIUM")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=[*OPTIONS])
        try:
            yield started
        finally:
            started.close()


def take(page: Page, path: pathlib.Path) -> None:
    """Lets the page add two numbers, picks a digit and takes the picture."""
    rng = random.Random(1)
    for name, length in (("first", 60), ("second", 52)):
        digits = "".join(rng.choice("123456789") for _ in range(length))
        page.fill(f"#{name}-number textarea", digits)
    before = page.text_content("#paper")
    page.click("#calculate")
    page.wait_for_function(
        "(before) => document.querySelector('#paper').textContent !== before",
        arg=before,
    )
    page.wait_for_selector("#paper button[data-token='60']")
    time.sleep(0.5)
    title = page.text_content("#reading h3")
    page.click("#paper button[data-token='33']")
    page.wait_for_function(
        "(title) => document.querySelector('#reading h3').textContent !== title",
        arg=title,
    )
    page.mouse.move(0, 0)
    # Buttons fade after a click.
    time.sleep(0.5)
    page.screenshot(path=path, full_page=True)


def shrink(path: pathlib.Path) -> None:
    """Writes a picture again with 256 colours, for a smaller file."""
    pixels = Image.open(path).convert("RGB")
    # The method that keeps the colours of the heat map, which are few pixels.
    pixels.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def main(arguments: Sequence[str]) -> None:
    """Writes the picture and prints where it is."""
    values = cli.new_flags()
    flags.DEFINE_string(
        "out", "docs/images/demo.png", "File to write.", flag_values=values
    )
    flags.DEFINE_bool("dark", False, "In dark colours.", flag_values=values)
    flags.DEFINE_integer("width", 1100, "Of the window.", flag_values=values)
    cli.parse(values, arguments, __doc__ or "")
    path = cli.local_path("out", values.out)
    with served() as address, browser() as started:
        page = started.new_page(
            viewport={"width": values.width, "height": HEIGHT},
            device_scale_factor=SCALE,
            color_scheme="dark" if values.dark else "light",
            # All digits at once.
            reduced_motion="reduce",
        )
        page.goto(address)
        page.wait_for_selector("#paper .columns")
        take(page, path)
    shrink(path)
    print(path)


if __name__ == "__main__":
    cli.run(main)
