"""The page at /, in headless Chromium: send, stream, stop, errors, hostile output, a phone's width, light and dark."""

from __future__ import annotations

import os
import re
import shutil
import threading
from importlib.resources import files
from pathlib import Path

import pytest
from serving_server import wait_until

pytest_plugins = ["serving_fixtures"]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
QUESTION = "If a rectangle has length 12 and width 7, what is its area?"
ANSWER = "The area is length x width.\n12 x 7 = 84\nThe answer is 84."


def test_the_page_is_one_file_that_fetches_nothing_from_elsewhere():
    page = (files("orthrus_mlx.serving") / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://|//cdn", page)
    assert "innerHTML" not in page and "document.write" not in page and "eval(" not in page


def test_the_page_is_served_with_a_policy_that_forbids_anything_else(scripted):
    reply = scripted("hello").client.get("/")
    policy = reply.headers["content-security-policy"]
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_window_size(1100, 800)
    yield driver
    driver.quit()


class Page:
    """The page, opened in a browser."""

    def __init__(self, browser, server):
        self.browser = browser
        browser.get(f"{server.url}/")
        wait_until(lambda: self.text("about") != "", "the page's greeting")

    def element(self, id: str):
        return self.browser.find_element("id", id)

    def text(self, id: str) -> str:
        return self.element(id).text

    def ask(self, question: str) -> None:
        self.element("question").send_keys(question)
        self.element("send").click()

    def turns(self, kind: str) -> list[str]:
        return [e.get_property("textContent") for e in self.browser.find_elements("css selector", f".turn.{kind}")]

    def idle(self) -> bool:
        return self.text("send") == "Send"

    def screenshot(self, name: str) -> None:
        """Kept where $SCREENSHOTS says, for a person to look at."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.mark.slow
def test_a_chat_streams_and_shows_what_was_drafted(browser, demo):
    page = Page(browser, demo)
    assert "demo · blocks of 32 · row-exact" in page.text("about")
    browser.execute_script("document.getElementById('mode').value = 'diffusion'")
    page.ask(QUESTION)
    wait_until(lambda: page.idle() and page.turns("assistant") == [ANSWER], "the answer")
    drafted = "".join(e.get_property("textContent") for e in browser.find_elements("css selector", ".draft"))
    assert len(drafted) > len(ANSWER) / 2 and float(page.text("per-cycle")) > 4
    assert re.fullmatch(r"\d+ of \d+", page.text("accepted")) and "tok/s" in page.text("speed")
    assert len(browser.find_elements("css selector", "#positions span")) == 31
    page.element("compare").click()
    wait_until(lambda: page.idle() and "tok/s" in page.text("ar-speed"), "the comparison")
    assert page.text("ar-speed").endswith("same text")
    page.ask("And if the width is 9?")
    wait_until(lambda: page.idle() and len(page.turns("assistant")) == 2, "the second answer")
    assert "108" in page.turns("assistant")[1]
    assert int(page.text("cached").split()[0]) > 20, "the second turn begins with the first one"
    page.screenshot("light")
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    page.screenshot("dark")
    assert contrast(browser, ".assistant") > 7 and contrast(browser, ".user") > 7 and contrast(browser, ".draft") > 5
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert contrast(browser, ".assistant") > 7 and contrast(browser, ".user") > 7 and contrast(browser, ".draft") > 5
    page.element("reset").click()
    assert page.turns("assistant") == []
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE" and "favicon" not in e["message"]] == []


def contrast(browser, selector: str) -> float:
    """WCAG's contrast of an element's text against the nearest background that is not transparent."""
    return browser.execute_script(
        """
        const parse = (c) => c.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        let node = document.querySelector(arguments[0]);
        const ink = light(parse(getComputedStyle(node).color));
        for (; node; node = node.parentElement) {
            const ground = parse(getComputedStyle(node).backgroundColor);
            if (ground.length < 4 || ground[3] > 0) {
                const [a, b] = [ink, light(ground)].sort((x, y) => y - x);
                return (a + 0.05) / (b + 0.05);
            }
        }
        """,
        selector,
    )


@pytest.mark.slow
def test_an_answer_can_be_stopped_and_what_was_said_stays_in_the_chat(browser, scripted):
    gate = threading.Event()
    server = scripted("hello world", gate=gate)
    page = Page(browser, server)
    page.ask("hi")
    wait_until(lambda: page.turns("assistant") not in ([], [""]), "the first token")
    assert page.text("send") == "Stop"
    page.element("send").click()
    wait_until(page.idle, "the stop")
    assert page.turns("assistant") == ["hello" + "stopped"]
    wait_until(lambda: server.service.engine.tickets[0].cancelled, "the cancellation")
    gate.set()
    page.ask("again")
    wait_until(lambda: page.idle() and len(page.turns("assistant")) == 2, "the next answer")
    prompt = server.service.tokenizer.decode(server.service.engine.requests[-1].prompt)
    assert "assistant\nhello<|im_end|>" in prompt and "again" in prompt


@pytest.mark.slow
def test_errors_are_shown_and_the_question_is_given_back(browser, scripted):
    page = Page(browser, scripted("hello", api_key="right"))
    assert "API key" in page.text("about")
    page.ask("hi")
    wait_until(lambda: page.turns("error") != [], "the error")
    assert "API key" in page.turns("error")[0] and page.turns("assistant") == []
    assert page.element("question").get_property("value") == "hi"
    page.element("key").send_keys("right")
    page.element("send").click()
    wait_until(lambda: page.turns("assistant") == ["hello"], "the answer")
    failing = Page(browser, scripted("!fail"))
    failing.ask("hi")
    wait_until(lambda: failing.turns("error") != [], "the error in the stream")
    assert "secret" not in failing.turns("error")[0]


@pytest.mark.slow
def test_model_output_is_text_and_never_markup(browser, scripted):
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>bold</b>"
    page = Page(browser, scripted(f"<think>{hostile}</think>{hostile}"))
    page.ask(hostile)
    wait_until(lambda: page.idle() and page.turns("assistant") != [], "the answer")
    assert page.turns("assistant") == [hostile * 2] and page.turns("user") == [hostile]
    assert browser.title == "orthrus-mlx"
    assert not browser.find_elements("css selector", "#turns img, #turns b, #turns script")
    assert len(browser.find_elements("css selector", ".thought")) > 0


@pytest.mark.slow
def test_a_phones_width_scrolls_in_one_direction_only(browser, scripted):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 720, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        page = Page(browser, scripted("hello " * 40 + "x" * 400))
        page.ask("a" * 300)
        wait_until(lambda: page.idle() and page.turns("assistant") != [], "the answer")
        page.screenshot("phone")
        widths = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1] == 360
        height = browser.execute_script("return document.getElementById('send').getBoundingClientRect().height")
        assert height >= 44, "too small for a finger"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
