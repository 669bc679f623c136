"""Chromium, driven by Playwright, and small networks with digits to show it."""

import os
import shutil

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright
from transformers import ViTImageProcessor

from sk_transformers.hub import export

from ..support.small_models import small_model

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
LABELS = {i: str(i) for i in range(10)}
PROCESSOR = ViTImageProcessor(size={"height": 32, "width": 32})


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None and os.environ.get("SK_REQUIRE_CHROMIUM") != "1":
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium).")
    assert path, "Chromium is not installed."
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


@pytest.fixture(scope="session")
def repos(tmp_path_factory):
    """Repo folders of one network for each mechanism, on a grid of 4x4."""
    folder = tmp_path_factory.mktemp("repos")
    return [
        export(
            small_model(name, image_size=32, patch_size=8, num_labels=10, id2label=LABELS,
                        label2id={label: i for i, label in LABELS.items()}),
            PROCESSOR, folder / name,
        )
        for name in ("skvit", "cskvit", "vit")
    ]  # fmt: skip


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Two handwritten digits of 32x32 pixels, as files."""
    from sklearn.datasets import load_digits

    folder, data = tmp_path_factory.mktemp("digits"), load_digits()
    paths = []
    for index in (3, 7):
        image = Image.fromarray((data.images[index] * 255 / 16).astype("uint8")).resize((32, 32)).convert("RGB")
        image.save(folder / f"{data.target[index]}.png")
        paths.append(folder / f"{data.target[index]}.png")
    return paths
