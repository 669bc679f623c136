"""A complete repo folder: weights, code, image processor, card and license, loadable without this package."""

import json
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from huggingface_hub import ModelCard
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..files import whole_folder
from ..registration import AUTO_CLASSES, is_ours, register_auto_classes
from .cards.card import create_card

HANDLER = Path(__file__).parent / "templates" / "handler.py"
DECODER = Path(__file__).parents[1] / "data" / "decoding.py"


def export(
    model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    folder: str | Path,
    card: ModelCard | None = None,
    pictures: Mapping[str, Path | bytes] | None = None,
) -> Path:
    """Write a repo folder that is ready to push and loads with `trust_remote_code=True` anywhere.

    It holds `config.json` with a complete `auto_map`, `model.safetensors`, `preprocessor_config.json`, the code files
    of the model, `decoding.py`, which reads image files as training does, `README.md` and `LICENSE`, and for a
    classifier `handler.py`, which Inference Endpoints run. It appears whole or not at all.

    Args:
        model: one of this package's models, unwrapped from DDP, `torch.compile` and PEFT.
        image_processor: a stock transformers image processor, which makes the model's input.
        folder: where to write; it must not exist, or be empty.
        card: the model card; without one, it says what can be told from the configuration.
        pictures: what the card shows, by the paths in the repo that it shows it by.

    Returns:
        The folder's path.

    Raises:
        TypeError: if the model is not one of this package's.
        FileExistsError: if the folder holds something already.
    """
    folder = Path(folder)
    check_exportable(model)
    register_auto_classes()
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        complete_auto_map(partial / "config.json", model)
        image_processor.save_pretrained(partial)
        shutil.copyfile(DECODER, partial / "decoding.py")
        if "ForImageClassification" in type(model).__name__:
            shutil.copyfile(HANDLER, partial / "handler.py")
        (card or create_card(model, folder.name)).save(partial / "README.md")
        (partial / "LICENSE").write_text(license_text())
        for path, picture in (pictures or {}).items():
            (partial / path).parent.mkdir(exist_ok=True)
            (partial / path).write_bytes(picture if isinstance(picture, bytes) else picture.read_bytes())
        make_readable(partial)
    return folder


def check_exportable(model: PreTrainedModel) -> None:
    """Raise TypeError unless the model's code can travel with it."""
    if not is_ours(model):
        raise TypeError(
            f"export takes an SKViT, SKCaiT, SKFormer, SKSwin or SKCvT model, not {type(model).__name__}:"
            " unwrap it from DistributedDataParallel, torch.compile or PEFT first."
        )


def complete_auto_map(config_file: Path, model: PreTrainedModel) -> None:
    """Name a class for every Auto class; saving a model names the configuration's and its own only."""
    config = json.loads(config_file.read_text())
    config_class, classes = next(row for row in AUTO_CLASSES.items() if row[0].model_type == model.config.model_type)
    named = {"AutoConfig": config_class, **{auto_class.__name__: classes[auto_class] for auto_class in classes}}
    for head in ("ForSemanticSegmentation", "ForObjectDetection"):
        if head not in type(model).__name__:
            named.pop(f"AutoModel{head}", None)  # whose code the others do not bring
    config["auto_map"] = {
        auto_class: f"{named_class.__module__.rpartition('.')[2]}.{named_class.__name__}"
        for auto_class, named_class in named.items()
    }
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_readable(folder: Path) -> None:
    """Undo the modes of temporary files, which keep others from reading the repo."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def license_text() -> str:
    """Return the license that the package was installed with, or that lies in its checkout."""
    try:
        text = metadata.distribution("sk-transformers").read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        text = None
    return text or (Path(__file__).parents[2] / "LICENSE").read_text()
