"""Folders that the Hub serves as Spaces: the Gradio page, and a static page that runs in the browser."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..files import whole_folder
from ..hub.cards.merge import sign

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}
PACKAGE = "static_key_page"  # what a Space calls its copy of these files, which import each other alone
PAGE_FILES = (
    "demo/dense.py",
    "demo/mechanism.py",
    "demo/page.py",
    "demo/pictures.py",
    "data/decoding.py",
    "evaluation/attention_quantities.py",
    "evaluation/grad_cam.py",
    "evaluation/mask_files.py",
    "evaluation/overlay_style.py",
    "files.py",
)
HERE = Path(__file__).parent
LIBRARY = "@huggingface/transformers@4.3.1"
RUNTIME_FILES = ("ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
REQUIREMENTS = """gradio>=6.0
matplotlib>=3.9
pillow>=10
safetensors>=0.5
torch>=2.6
torchvision>=0.21
transformers>=5.1
"""
APP = '''"""The page of the networks in models/, each loaded with the code in its folder."""

from pathlib import Path

from static_key_page.demo.mechanism import load_network
from static_key_page.demo.page import build_page, launch

here = Path(__file__).parent
repos = sorted((here / "models").iterdir())  # 1-NAME, 2-NAME, ...
networks = [load_network(repo, repo.name.partition("-")[2], trust_remote_code=True) for repo in repos]
page = build_page(networks, sorted((here / "examples").glob("*")))

if __name__ == "__main__":
    launch(page)
'''
HUB_APP = '''"""The page of the networks in repos of the Hub, each loaded with the code in its repo."""

from pathlib import Path

from static_key_page.demo.mechanism import load_network
from static_key_page.demo.page import build_page, launch

REPOS = {repos}

networks = [load_network(repo, trust_remote_code=True) for repo in REPOS]
page = build_page(networks, sorted((Path(__file__).parent / "examples").glob("*")))

if __name__ == "__main__":
    launch(page)
'''
README = """---
title: {title}
emoji: 🔑
colorFrom: indigo
colorTo: gray
sdk: {sdk}
{app}
license: apache-2.0
tags:
- static-key-attention
---

{text}
"""


def example_images(folder: Path, required: bool = False) -> list[Path]:
    """Return the image files in a folder, by name.

    Raises:
        ValueError: if one is unreadable, or there are none and they are `required`.
    """
    images = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if required and not images:
        raise ValueError(f"{folder} has no images: expected files such as bee.png.")
    for path in images:
        try:
            with Image.open(path) as image:
                image.verify()
        except Exception as error:  # of every format's reader
            raise ValueError(f"{path} is unreadable as an image: make it again, or remove it.") from error
    return images


def save_space(models: Sequence[str], folder: str | Path, examples: Sequence[Path] = ()) -> Path:
    """Write a Gradio Space: the page, copies of the models with their code, and what the Hub needs to run it.

    Args:
        models: repo folders, in the order of the page.
        folder: where to write; it must not exist, or be empty.
        examples: image files to choose from.

    Returns:
        The folder, which appears whole or not at all.

    Raises:
        ValueError: if a model is not a folder written by `export`.
        FileExistsError: if the folder holds something already.
    """
    for model in models:
        if not (Path(model) / "model.safetensors").is_file() or not (Path(model) / "config.json").is_file():
            raise ValueError(
                f"{model} is not a repo folder: expected config.json and model.safetensors in it, to copy."
            )
    with whole_folder(folder) as partial:
        for number, model in enumerate(models, 1):
            path = Path(model).resolve()
            title = path.parent.name if path.name == "model" else path.name
            left_out = shutil.ignore_patterns("onnx", "examples", ".*", "checkpoint-*")
            shutil.copytree(path, partial / "models" / f"{number}-{title}", ignore=left_out)
        write_page(partial, APP, examples)
    return Path(folder)


def save_hub_space(models: Sequence[str], folder: str | Path, examples: Sequence[Path] = ()) -> Path:
    """Write a Gradio Space whose page loads networks from the Hub, with the code in their repos.

    Args:
        models: the ids of the repos, in the order of the page.
        folder: where to write; it must not exist, or be empty.
        examples: image files to choose from.

    Returns:
        The folder, which appears whole or not at all.

    Raises:
        FileExistsError: if the folder holds something already.
    """
    with whole_folder(folder) as partial:
        repos = "".join(f"    {json.dumps(model)},\n" for model in models)
        write_page(partial, HUB_APP.format(repos=f"(\n{repos})"), examples, models)
    return Path(folder)


def write_page(folder: Path, app: str, examples: Sequence[Path], models: Sequence[str] = ()) -> None:
    """Write what every Gradio Space of the page needs.

    Args:
        folder: where to write.
        app: the text of `app.py`.
        examples: image files to choose from.
        models: the ids of repos on the Hub, which link to the Space then.
    """
    import gradio

    for name in PAGE_FILES:
        file = folder / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE.parent / name, file)
    copy_examples(examples, folder)
    (folder / "app.py").write_text(app)
    (folder / "requirements.txt").write_text(REQUIREMENTS)
    facts = [f"sdk_version: {gradio.__version__}", "app_file: app.py"]
    facts += ["models:", *(f"- {model}" for model in models)] if models else []
    text = "What networks with static keys attend to, beside one with computed keys."
    card = README.format(title="Static keys, side by side", sdk="gradio", app="\n".join(facts), text=text)
    (folder / "README.md").write_text(sign(card))


def save_browser_space(exported: str | Path, folder: str | Path, examples: Sequence[Path] = ()) -> Path:
    """Write a static page that runs an exported network in the visitor's browser by transformers.js.

    The library and its WebAssembly are fetched by npm and put beside the page, which then asks no other server.

    Args:
        exported: a folder with `onnx/`, as `export_onnx` leaves it.
        folder: where to write; it must not exist, or be empty.
        examples: image files to choose from.

    Raises:
        ValueError: if nothing was exported there, or npm is missing or fails.
        FileExistsError: if the folder holds something already.
    """
    exported = Path(exported)
    files = ("config.json", "preprocessor_config.json", "onnx/model_quantized.onnx")
    missing = next((name for name in files if not (exported / name).is_file()), None)
    if missing:
        raise ValueError(f"{exported} has no {missing}: run sk-transformers export-onnx first.")
    with whole_folder(folder) as partial:
        for page in (HERE / "browser").iterdir():
            shutil.copyfile(page, partial / page.name)
        for name in files:
            (partial / "model" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(exported / name, partial / "model" / name)
        (partial / "examples.json").write_text(json.dumps(copy_examples(examples, partial)))
        fetch_transformers_js(partial / "transformers")
        text = "The network runs in the visitor's browser. No image leaves it."
        (partial / "README.md").write_text(
            README.format(title="Static keys in the browser", sdk="static", app="app_file: index.html", text=text)
        )
    return Path(folder)


def fetch_transformers_js(folder: Path) -> None:
    """Write transformers.js and the WebAssembly that it runs on to a new folder, by npm.

    `SK_TRANSFORMERS_JS` names a folder that this function wrote before, to copy instead.
    """
    if "SK_TRANSFORMERS_JS" in os.environ:
        shutil.copytree(os.environ["SK_TRANSFORMERS_JS"], folder)
        return
    folder.mkdir()
    with tempfile.TemporaryDirectory() as work:
        package = npm_package(LIBRARY, Path(work, "library"))
        shutil.copyfile(package / "dist" / "transformers.min.js", folder / "transformers.min.js")
        runtime = json.loads((package / "package.json").read_text())["dependencies"]["onnxruntime-web"]
        package = npm_package(f"onnxruntime-web@{runtime}", Path(work, "runtime"))
        for name in RUNTIME_FILES:
            shutil.copyfile(package / "dist" / name, folder / name)


def npm_package(name: str, folder: Path) -> Path:
    """Return a folder with a package's own files.

    Its dependencies are left out: they are 500 MB here, and a page needs two files of them.
    """
    folder.mkdir()
    try:
        subprocess.run(["npm", "pack", "--silent", name], cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ValueError("npm is not installed: it fetches transformers.js for the page.") from error
    except subprocess.CalledProcessError as error:
        raise ValueError(f"npm could not fetch {name}: {(error.stderr.strip().splitlines() or ['?'])[-1]}") from error
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder, filter="data")
    return folder / "package"


def copy_examples(examples: Sequence[Path], folder: Path) -> list[str]:
    """Copy images into `examples/`, and return their paths in the folder."""
    (folder / "examples").mkdir()
    return [str(Path(shutil.copyfile(path, folder / "examples" / path.name)).relative_to(folder)) for path in examples]
