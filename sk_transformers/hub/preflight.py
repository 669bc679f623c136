"""Whether a folder may be published: what is in it, whether it works elsewhere, and what its card says."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoModel

from ..registration import auto_class_of
from .cards.merge import parse_card
from .code_check import find_violation
from .errors import PreflightError
from .fingerprint import fingerprint, is_detector, object_scores
from .licenses import check_license

NEEDED = ("config.json", "preprocessor_config.json", "README.md")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
TEXTS = (".py", ".json", ".md", ".txt", ".yaml", ".yml", ".csv", ".svg", ".bib")
MAY_HOLD_CODE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".tar", ".h5", ".keras")
TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}")
UNPUBLISHED = "pictures/predictions.png"  # what evaluation draws on images of a data set, whose terms are not known
TOLERANCE = 1e-4  # of outputs, relative to the largest: other kernels round otherwise
LOADING_TIME = 1800  # seconds


def check_loading(
    folder: Path, images: list[Path] | None = None, fingerprint_of_run: list[float] | None = None
) -> list[list[dict[str, Any]]]:
    """Load a repo folder as a stranger does, and compare its outputs with those of the model here.

    It loads in a process of its own as remote code, where this package cannot be imported.

    Args:
        folder: the repo folder.
        images: images for the model to answer to there.
        fingerprint_of_run: what the run recorded of its model, see `fingerprint.py`.

    Returns:
        The answers to each image, best first: `{"label": ..., "score": ...}`.

    Raises:
        PreflightError: if it does not load there, or computes something else.
    """
    outputs, answers = isolated_load(folder, images or [])
    compare_with_model_here(folder, outputs, fingerprint_of_run)
    return answers


def repo_files(folder: Path) -> dict[str, Path]:
    """Return the files of a repo folder by their paths in the repo.

    Hidden ones, caches and `UNPUBLISHED` pictures, as of an evaluation in the folder, are left out.
    """
    found = {}
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        path = "/".join(parts)
        is_left_out = f"/{path}".endswith(f"/{UNPUBLISHED}")
        is_left_out |= any(part.startswith(".") or part == "__pycache__" for part in parts)
        if file.is_file() and not is_left_out:
            found[path] = file
    return found


def check_files(folder: Path, files: dict[str, Path]) -> None:
    """Check all files that are to be published, each once; the card, and that the folder holds a model, too.

    Args:
        folder: the repo folder, to speak of.
        files: by their paths in the repo.

    Raises:
        PreflightError: if one is missing, is of a kind that may run code, reaches out or holds a token.
    """
    for name in NEEDED:
        if name not in files:
            raise PreflightError(
                f"{folder} has no {name}: expected a repo folder, as sk-transformers train or convert writes it."
            )
    if not any(name.endswith(".safetensors") for name in files):
        raise PreflightError(f"{folder} has no weights: expected model.safetensors.")
    for name, file in files.items():
        if file.is_symlink():
            raise PreflightError(f"{file} is a link: put the file itself there, or remove it.")
        check_file(name, file)
        if name == "README.md":
            check_card(file.read_text(encoding="utf-8"))


def check_file(name: str, file: Path) -> None:
    """Raise PreflightError unless a file is what its name says, and of a kind that cannot run."""
    suffix = file.suffix.lower()
    if suffix in MAY_HOLD_CODE:
        raise PreflightError(f"{file} may hold a pickle, which runs code when it is loaded: save it as safetensors.")
    if suffix == ".safetensors":
        try:
            with safe_open(file, "pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise PreflightError(f"{file} is not a safetensors file, or a damaged one: save it again.") from error
    elif suffix in IMAGES:
        try:
            with Image.open(file) as image:
                image.verify()
        except Exception as error:  # of every format's reader
            raise PreflightError(f"{file} is not an image, or a damaged one: make it again, or remove it.") from error
    elif suffix in TEXTS or name in ("LICENSE", "NOTICE"):
        check_text(file)
    elif suffix != ".onnx":
        raise PreflightError(f"{file} is of a kind that a model's repo does not need: remove it, or upload it by hand.")


def check_text(file: Path) -> None:
    """Raise PreflightError unless a file is text without a token, and what its ending says."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PreflightError(f"{file} is not text in UTF-8: save it as that, or remove it.") from error
    own_token = get_token()
    if TOKEN.search(text) or (own_token and own_token in text):
        raise PreflightError(f"{file} holds a token of the Hub: remove it, and make a new one if others saw it.")
    if file.suffix == ".json":
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise PreflightError(f"{file} is not JSON (line {error.lineno}): correct it.") from error
    if file.suffix == ".py":
        check_code(file, text)


def read_object(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; PreflightError if it holds something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PreflightError(f"{file} is not JSON ({error}): restore it, or make it again.") from error
    if not isinstance(value, dict):
        raise PreflightError(f"{file} holds a {type(value).__name__}, expected an object: restore it.")
    return value


def check_code(file: Path, text: str) -> None:
    """Raise PreflightError unless Python code keeps to itself."""
    try:
        found = find_violation(text)
    except (SyntaxError, ValueError) as error:
        raise PreflightError(f"{file} is not Python ({error}): correct it.") from error
    if found:
        raise PreflightError(
            f"{file}: {found}, and code that strangers run should need torch and transformers only, and neither files"
            " nor a network: take it out, or upload the folder by hand."
        )


def check_card(text: str) -> None:
    """Raise PreflightError unless a card's metadata is what the Hub takes."""
    try:
        card = parse_card(text)
    except ValueError as error:
        raise PreflightError(f"README.md: {error}") from error
    metadata = {name[:-1]: value for name, value in card.items.items() if name.endswith(":")}
    for key in ("license", "library_name", "pipeline_tag", "tags"):
        if not metadata.get(key):
            raise PreflightError(f"README.md: its metadata has no {key}: add it.")
    try:
        check_license(metadata["license"])
        ModelCardData(**metadata)  # which reads the results
    except ValueError as error:
        raise PreflightError(f"README.md: {' '.join(str(error).split())}") from error
    for key in ("tags", "datasets", "metrics"):
        values = metadata.get(key) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise PreflightError(f"README.md: {key} is {values!r}, expected a list of words.")
    for key in ("base_model", "datasets"):
        values = metadata.get(key) or []
        for value in [values] if isinstance(values, str) else values:
            check_hub_id(key, value)
    for example in metadata.get("widget") or []:
        if not isinstance(example, dict) or "src" not in example:
            raise PreflightError(f"README.md: widget has {example!r}, expected an object with src.")


def check_hub_id(key: str, value: str) -> None:
    """Raise PreflightError unless a value of the card's metadata can be the id of a repo."""
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise PreflightError(f"README.md: {key} is {value!r}, expected the id of a repo on the Hub.") from error


def isolated_load(folder: Path, images: list[Path]) -> tuple[dict[str, torch.Tensor], list[list[dict[str, Any]]]]:
    """Return what `isolated_load.py` finds in a folder: `pixel_values` and `output`, and the answers to the images.

    Raises:
        PreflightError: if the folder does not load there.
    """
    with tempfile.TemporaryDirectory() as work:
        outputs, answers = Path(work, "outputs.safetensors"), Path(work, "answers.json")
        environment = {name: value for name, value in os.environ.items() if "TOKEN" not in name}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": work, "HF_MODULES_CACHE": f"{work}/modules"}
        script = Path(__file__).parent / "templates" / "isolated_load.py"
        command = [sys.executable, "-P", script, folder.resolve(), outputs, answers, *(i.resolve() for i in images)]
        try:
            done = subprocess.run(
                command, cwd=work, env=environment, capture_output=True, text=True, timeout=LOADING_TIME
            )
        except subprocess.TimeoutExpired as error:
            raise PreflightError(f"{folder} did not load in {LOADING_TIME // 60} minutes.") from error
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise PreflightError(f"{folder} does not load where this package is not installed: {reason}")
        return load_file(outputs), json.loads(answers.read_text(encoding="utf-8"))


def compare_with_model_here(
    folder: Path, outputs: dict[str, torch.Tensor], fingerprint_of_run: list[float] | None
) -> None:
    """Raise PreflightError if the folder computes something else than this package, or the run, or nothing finite."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    auto_class = auto_class_of((config.get("architectures") or [""])[0])
    model = auto_class.from_pretrained(folder, trust_remote_code=False).eval()
    numbers = None if fingerprint_of_run is None else torch.tensor(fingerprint(model))
    with torch.no_grad():
        here = model.float()(outputs["pixel_values"])
    expected = here.pooler_output if auto_class is AutoModel else here.logits
    expected = object_scores(expected) if is_detector(model) else expected
    if not outputs["output"].isfinite().all():
        raise PreflightError(f"{folder}: the model's outputs are not finite: train it again.")
    if not agree(outputs["output"], expected):
        raise PreflightError(
            f"{folder}: the code in the folder gives other outputs than this package's: export the model again."
        )
    if numbers is not None and not agree(numbers, torch.tensor(fingerprint_of_run)):
        raise PreflightError(
            f"{folder}: its weights give other outputs than those that the run measured (metrics.json): restore the"
            " run's model, or push a repo folder without a run."
        )


def agree(outputs: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether outputs are the expected ones but for rounding."""
    scale = max(1.0, expected.abs().max().item())
    return outputs.shape == expected.shape and (outputs - expected).abs().max().item() <= TOLERANCE * scale
