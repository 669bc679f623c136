"""An exported network runs in the browser, by transformers.js, and answers as in ONNX Runtime."""

import functools
import http.server
import threading

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from transformers import AutoModelForImageClassification

from sk_transformers.demo.space import save_browser_space
from sk_transformers.hub.onnx_export import export_onnx

from ..support.browser import needs_library
from .conftest import PROCESSOR


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def exported(repos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "cskvit"
    export_onnx(AutoModelForImageClassification.from_pretrained(repos[1]), PROCESSOR, folder)
    return folder


@pytest.fixture
def address(exported, digits, tmp_path):
    handler = functools.partial(Quiet, directory=save_browser_space(exported, tmp_path / "page", digits))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@needs_library
@pytest.mark.slow
def test_the_browser_answers_as_onnx_runtime_does(address, exported, digits, open_page):
    page = open_page(address, width=390, height=844)
    page.wait_for_function("/Ready|could not/.test(document.getElementById('status').textContent)")
    assert page.inner_text("#status") == "Ready."
    session = onnxruntime.InferenceSession(exported / "onnx" / "model_quantized.onnx")
    for path, choose in (
        (digits[0], lambda: page.set_input_files("#file", digits[0])),
        (digits[1], lambda: page.click("#examples button:nth-child(2)")),
    ):
        choose()
        page.wait_for_selector("#classes li")
        shown = page.inner_text("#classes").split("\n")
        pixel_values = PROCESSOR(Image.open(path), return_tensors="np").pixel_values
        logits = session.run(None, {"pixel_values": pixel_values})[0][0]
        expected = np.exp(logits) / np.exp(logits).sum()
        for label, percent in zip(shown[::2], shown[1::2]):
            assert float(percent.removesuffix(" %")) == pytest.approx(100 * expected[int(label)], abs=0.3)
        assert len(shown) == 10
        page.evaluate("document.getElementById('classes').replaceChildren()")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"})
    page.wait_for_function("/not an image/.test(document.getElementById('status').textContent)")


def test_a_folder_without_an_export_is_refused(repos, tmp_path):
    with pytest.raises(ValueError, match="has no onnx/model_quantized.onnx: run sk-transformers export-onnx first"):
        save_browser_space(repos[0], tmp_path / "page")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_machine_without_npm_gets_a_sentence(exported, tmp_path, monkeypatch):
    monkeypatch.delenv("SK_TRANSFORMERS_JS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="npm is not installed: it fetches transformers.js"):
        save_browser_space(exported, tmp_path / "page")
    assert not (tmp_path / "page").exists()
