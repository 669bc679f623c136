"""The page in Chromium, as a Space serves it: where this package is not installed."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image
from transformers import pipeline

from sk_transformers.data import decoding
from sk_transformers.demo.mechanism import load_network, read
from sk_transformers.demo.page import attention_html, keys_html, read_image
from sk_transformers.demo.space import PACKAGE, example_images, save_space

SERVE = """
import runpy, sys
sys.modules["sk_transformers"] = None  # importing it now fails
sys.path.insert(0, "")
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def space(repos, digits, tmp_path_factory):
    return save_space([str(repo) for repo in repos], tmp_path_factory.mktemp("spaces") / "space", digits)


@pytest.fixture(scope="module")
def address(space, tmp_path_factory):
    with served(space, tmp_path_factory.mktemp("home")) as address:
        yield address


@contextmanager
def served(space, work):
    """The address of a Space that runs where this package cannot be imported."""
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(work), "HF_MODULES_CACHE": str(work / "modules"),
        "GRADIO_TEMP_DIR": str(work / "gradio"), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=space, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        for line in server.stdout:
            if found := re.search(r"http://127.0.0.1:\d+", line):
                break
        yield found[0]
        server.terminate()


def test_images_are_read_as_in_training(space, tmp_path):
    assert (space / PACKAGE / "data" / "decoding.py").read_bytes() == Path(decoding.__file__).read_bytes()
    Image.linear_gradient("L").convert("I").point(lambda value: value * 257).convert("I;16").save(tmp_path / "deep.png")
    assert read_image(str(tmp_path / "deep.png")).getextrema() == ((0, 255),) * 3  # and not clipped to white
    assert read_image(str(tmp_path / "deep.png")).getpixel((0, 128)) == (128, 128, 128)
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(gr.Error, match=r"This image is unreadable \(not an image that Pillow can read"):
        read_image(str(tmp_path / "notes.png"))


def pictures(page, section):
    return page.eval_on_selector_all(f"{section} img", "images => images.map(image => image.src)")


def set_number(page, slider, value):
    page.fill(f"{slider} input[type=number]", str(value))
    page.keyboard.press("Tab")


def wait_for_change(page, section, before):
    page.wait_for_function(
        "([section, before]) => { const image = document.querySelector(`${section} img`);"
        " return image && image.src !== before; }",
        arg=[section, before[0] if before else ""],
    )
    return pictures(page, section)


def test_networks_of_one_mechanism_are_told_apart_by_their_names(repos, digits):
    networks = [load_network(repo, name) for repo, name in zip((*repos[:2], repos[0]), ("first", "second", "third"))]
    readings = [read(network, Image.open(digits[0])) for network in networks]
    titles = ["Static keys (SKA): first", "Convolutional (CSKA)", "Static keys (SKA): third"]
    for html in (attention_html(networks, readings, 1, 0, None), keys_html(networks, readings, 1, 0)):
        assert re.findall(r'class="sk-title">(.*?)<', html) == titles


@pytest.mark.slow
def test_upload_predict_and_look_into_layers(address, open_page, repos, digits):
    page = open_page(address)
    page.wait_for_selector("#image input[type=file]", state="attached")
    page.set_input_files("#image input[type=file]", digits[0])
    first = wait_for_change(page, "#attention", [])
    keys, evidence = pictures(page, "#keys"), pictures(page, "#evidence")
    assert len(first) == len(keys) == len(evidence) == 3
    assert page.inner_text("#evidence").count("Attention rollout") == 3

    answers = [section.inner_text().split("\n") for section in page.query_selector_all("#classes section")]
    mechanisms = ("Static keys (SKA)", "Convolutional (CSKA)", "Attention")
    for repo, mechanism, (title, name, *rest) in zip(repos, mechanisms, answers):
        assert (title, name) == (mechanism, repo.name)
        expected = pipeline("image-classification", model=str(repo))(Image.open(digits[0]), top_k=5)
        assert rest[::2] == [answer["label"] for answer in expected]
        assert rest[1::2] == [f"{100 * answer['score']:.1f} %" for answer in expected]

    set_number(page, "#layer", 2)
    second = wait_for_change(page, "#attention", first)
    assert "Layer 2 of 2, mean of 2 heads" in page.inner_text("#attention")
    assert all(a != b for a, b in zip(pictures(page, "#keys"), keys))
    set_number(page, "#head", 1)
    third = wait_for_change(page, "#attention", second)
    assert "Layer 2 of 2, head 1 of 2" in page.inner_text("#attention")

    picture = page.locator("#attention img").nth(1)
    box = picture.bounding_box()
    picture.click(position={"x": 0.9 * box["width"], "y": 0.1 * box["height"]})
    fourth = wait_for_change(page, "#attention", third)
    assert (page.input_value("#row input[type=number]"), page.input_value("#column input[type=number]")) == ("1", "4")
    page.get_by_label("The class token").check()
    wait_for_change(page, "#attention", fourth)

    keys = pictures(page, "#keys")
    page.locator("button.gallery-item").nth(1).click()
    page.wait_for_function("before => document.querySelectorAll('#keys img')[2].src !== before", arg=keys[2])
    assert pictures(page, "#keys")[:2] == keys[:2]  # static


@pytest.mark.slow
def test_nothing_is_wider_than_a_phone(address, open_page, digits):
    page = open_page(address, width=390, height=844)
    page.wait_for_selector("#image input[type=file]", state="attached")
    page.set_input_files("#image input[type=file]", digits[1])
    page.wait_for_selector("#attention img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    widths = page.eval_on_selector_all("#attention img", "images => images.map(image => image.clientWidth)")
    assert all(width > 250 for width in widths)


@pytest.mark.slow
def test_a_space_is_complete(space, repos, digits):
    assert {path.name for path in space.iterdir()} == {
        "README.md", "app.py", "requirements.txt", PACKAGE, "models", "examples",
    }  # fmt: skip
    metadata = (space / "README.md").read_text().split("---")[1]
    assert "sdk: gradio\n" in metadata and "app_file: app.py\n" in metadata and "sdk_version: " in metadata
    assert sorted(path.name for path in (space / "models").iterdir()) == ["1-skvit", "2-cskvit", "3-vit"]
    assert (space / "models" / "1-skvit" / "model.safetensors").read_bytes() == (
        repos[0] / "model.safetensors"
    ).read_bytes()
    assert [path.name for path in example_images(space / "examples")] == sorted(path.name for path in digits)
    assert "sk_transformers" not in "".join(path.read_text() for path in space.glob("**/*.py"))


def test_wrong_folders_are_refused(repos, tmp_path):
    with pytest.raises(ValueError, match="is not a repo folder: expected config.json and model.safetensors"):
        save_space([str(repos[0]), "org/model"], tmp_path / "space")
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="space exists already: nothing was written"):
        save_space([str(repos[0])], tmp_path / "space")
    with pytest.raises(ValueError, match="has no images: expected files such as bee.png"):
        example_images(tmp_path / "space", required=True)
    (tmp_path / "space" / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match="broken.png is unreadable as an image"):
        example_images(tmp_path / "space")
    assert [path.name for path in tmp_path.iterdir()] == ["space"]
