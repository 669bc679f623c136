"""Chromium, driven by Playwright, as fixtures."""

import os
import shutil

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needs_library = pytest.mark.skipif(
    "SK_TRANSFORMERS_JS" not in os.environ,
    reason="SK_TRANSFORMERS_JS names no folder with transformers.js: .ci/run fetches it.",
)


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None and os.environ.get("SK_REQUIRE_CHROMIUM") != "1":
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium).")
    assert path, "Chromium is not installed."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """A function that opens an address of the loopback in a window of some width; it asks no other server."""
    elsewhere, pages = [], []

    def open_page(address, width=1280, height=900):
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60_000)
        allowed = (address, "data:", f"blob:{address}")
        page.on("request", lambda request: None if request.url.startswith(allowed) else elsewhere.append(request.url))
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not elsewhere
