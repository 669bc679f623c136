"""The zoo's trained networks as repo folders: what a checkout keeps of each, with the code beside it.

`model_cards/NAME` holds what cannot be made anew: weights in float16, configuration, image processor, card, the records
of training and evaluation, and pictures. Code is not among it, since there is one copy, in `models/`.
"""

import shutil
from pathlib import Path

from huggingface_hub import ModelCard, snapshot_download

from ..errors import first_line
from ..files import whole_folder
from ..pretrained import load_classifier
from ..zoo import trained_source
from .export import export

MADE_BY_EXPORT = ("config.json", "preprocessor_config.json", "README.md")
GRAPHS = "onnx/*"  # made of the weights where they are wanted


def export_trained(name: str, folder: str | Path) -> Path:
    """Write the repo folder of a trained network, as `export` does, with its card, records and pictures.

    The weights are stored in float16, and load in float32, which its configuration says.

    Args:
        name: one of `list_models(pretrained=True)`.
        folder: where to write; it must not exist, or be empty. It appears whole or not at all.

    Returns:
        The folder's path.

    Raises:
        ValueError: if there are no trained weights of that name, or they cannot be loaded.
        FileExistsError: if the folder holds something already.
    """
    folder, source = Path(folder), Path(trained_source(name))
    if not source.is_dir():
        return download(trained_source(name), folder)
    model, image_processor = load_classifier(str(source))
    stored = {file.relative_to(source).as_posix(): file for file in sorted(source.rglob("*")) if file.is_file()}
    kept = {path: file for path, file in stored.items() if path not in MADE_BY_EXPORT}
    return export(model, image_processor, folder, ModelCard.load(source / "README.md"), kept)


def download(repo_id: str, folder: Path) -> Path:
    """Write a copy of a repo of the Hub, without its graphs, to a folder."""
    with whole_folder(folder) as partial:
        try:
            snapshot = snapshot_download(repo_id, ignore_patterns=[GRAPHS, ".gitattributes"])
        except Exception as error:  # the Hub's client raises many kinds
            raise ValueError(f"{repo_id} could not be loaded from the Hub: {first_line(error)}") from error
        shutil.copytree(snapshot, partial, dirs_exist_ok=True)
    return folder
