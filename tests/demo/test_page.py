"""The page in a real browser: a click, an answer, and nothing from elsewhere."""

import contextlib
import json
import os
import random
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from arith_jax.demo.limits import MAX_REQUEST, MAX_WAITING

pytest.importorskip("gradio", reason="the page is made with Gradio")
pytest.importorskip("playwright", reason="Playwright drives the browser")

from playwright.sync_api import TimeoutError

from tools import screenshot

pytestmark = pytest.mark.skipif(
    screenshot.chromium() is None, reason="there is no chromium on the PATH"
)


@pytest.fixture(scope="module")
def address():
    # Compiled programs of the last time.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(screenshot.ROOT / ".jax_cache")
    os.environ["JAX_PLATFORMS"] = "cpu"
    with screenshot.served() as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with screenshot.browser() as browser:
        yield browser


class Visit:
    """A page with all that it asked for and complained about."""

    def __init__(self, browser, address):
        self.page = browser.new_page(reduced_motion="reduce")
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.page.on("console", self.listen)
        self.page.set_default_timeout(60_000)
        self.page.goto(address)
        self.page.wait_for_selector("#paper .columns")

    def listen(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def wait(self, selector, text):
        script = "([s, t]) => document.querySelector(s)?.textContent.includes(t)"
        self.page.wait_for_function(script, arg=[selector, text])

    def calculate(self, a, b, expected):
        self.page.fill("#first-number textarea", a)
        self.page.fill("#second-number textarea", b)
        self.page.click("#calculate")
        self.wait("#paper", expected)

    def number(self, name):
        return self.page.input_value(f"#{name}-number textarea")


def test_a_click_gives_a_real_answer_and_nothing_leaves_the_machine(address, browser):
    visit = Visit(browser, address)
    page, rng = visit.page, random.Random(2)
    a, b = (rng.randrange(10**39, 10**40) for _ in range(2))
    visit.calculate(str(a), str(b), str(a + b))
    assert "Right" in page.text_content("#paper .verdict")
    digits = page.locator("#paper button.answer:not(.end)").all_text_contents()
    assert "".join(reversed(digits)) == str(a + b)

    visit.page.click("#paper button[data-token='9']")
    visit.wait("#reading h3", "place 10")
    assert page.locator("#reading svg path").count() > 4

    page.click("#draw")
    page.wait_for_function(
        "(a) => document.querySelector('#first-number textarea').value !== a",
        arg=str(a),
    )
    drawn = int(visit.number("first")) + int(visit.number("second"))
    visit.wait("#paper", str(drawn))
    assert "40 and 30 digits" in page.text_content("#map")

    hosts = {urlsplit(url).hostname for url in visit.requests if url[:4] != "data"}
    assert hosts == {"127.0.0.1"}
    assert visit.errors == []
    page.close()


def test_hostile_input_is_refused_and_does_not_run(address, browser):
    visit = Visit(browser, address)
    script = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    visit.calculate(script, "1", "The first number has '<' in it")
    visit.calculate("1", "9" * 100_000, "this page takes at most 1,000 digits")
    assert visit.page.locator("#paper script, #paper img").count() == 0
    visit.calculate("2", "3", "Right.")
    assert visit.errors == []
    visit.page.close()


def post(address, body):
    request = urllib.request.Request(
        f"{address}gradio_api/queue/join",
        data=body,
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_other_names_of_this_machine_are_not_answered_to(address):
    request = urllib.request.Request(address, headers={"Host": "evil.example:7860"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=20)


def test_a_flood_is_refused_and_the_page_lives_on(address, browser):
    with urllib.request.urlopen(f"{address}config", timeout=20) as answer:
        functions = json.load(answer)["dependencies"]
    # The comparison of models is not there without a pair: calculations then.
    inputs = max(functions, key=lambda function: len(function["inputs"]))
    data = ["Sums: relative bias, window", "9" * 900, "+", "1", 1]
    bodies = [
        json.dumps(
            {"data": data, "fn_index": inputs["id"], "session_hash": f"flood{i}"}
        ).encode()
        for i in range(4 * MAX_WAITING)
    ]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda body: post(address, body), bodies))
    codes = {code for code, _ in answers}
    assert codes == {200, 503}
    assert any("ueue is full" in text or "busy" in text for _, text in answers)
    assert post(address, b"9" * (MAX_REQUEST + 1))[0] == 413
    visit = Visit(browser, address)
    visit.page.set_default_timeout(3_000)
    # While the queue is full, a click is refused as well: a person clicks again.
    for _ in range(20):
        with contextlib.suppress(TimeoutError):
            visit.calculate("41", "1", "Right, all 2 digits.")
            break
    visit.wait("#paper", "Right, all 2 digits.")
    visit.page.close()
