"""Heads of transformers over our backbones, such as Mask2Former and DETR, as repo folders that load anywhere.

The head's code is in transformers and the backbone's is not. So a file in the folder registers the backbone, and names
the head's classes anew, for the Auto classes to find the file by.
"""

import json
from pathlib import Path

import transformers
from huggingface_hub import ModelCard, ModelCardData
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models import auto

from ..errors import first_line
from ..files import whole_folder
from ..registration import AUTO_CLASSES, is_ours, register_auto_classes
from .cards.card import LICENSE
from .export import license_text, make_readable

CODE = '''"""{model} of transformers over an {family}: importing this file registers the backbone."""

import transformers
from transformers import AutoBackbone, AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .configuration_{model_type} import {family}Config
from .modeling_{model_type} import {family}Backbone

if "{model_type}" not in CONFIG_MAPPING:  # where sk_transformers is not installed
    AutoConfig.register("{model_type}", {family}Config)
    AutoBackbone.register({family}Config, {family}Backbone)


class {config}(transformers.{config}):
    pass


class {model}(transformers.{model}):
    config_class = {config}
'''
TASKS = {  # what the Hub and pipeline() call a head's task, by the Auto class that opens it
    "AutoModelForUniversalSegmentation": "image-segmentation",
    "AutoModelForInstanceSegmentation": "image-segmentation",
    "AutoModelForSemanticSegmentation": "image-segmentation",
    "AutoModelForImageSegmentation": "image-segmentation",
    "AutoModelForObjectDetection": "object-detection",
    "AutoModelForDepthEstimation": "depth-estimation",
}
TOKEN_HEADS = {"dpt": "DPT", "depth_anything": "Depth Anything"}  # read tokens, the class token first
CARD = """
# {name}

`{model}` of transformers over an {family} ([Static Key Attention in Vision](https://arxiv.org/abs/2412.07049)), with
{parameters:.2f} M parameters.

```python
from transformers import pipeline

answer = pipeline("{task}", model="org/{name}", trust_remote_code=True)
answer("image.png")
```

`trust_remote_code=True` runs the Python files of this repo, which need torch and transformers only.
"""


def export_head(model: PreTrainedModel, image_processor: BaseImageProcessor, folder: str | Path) -> Path:
    """Write a model of transformers over a backbone of this package as a repo folder, which loads anywhere.

    It holds weights, `config.json` with an `auto_map`, the backbone's code, `preprocessor_config.json`, a short card
    and `LICENSE`. It appears whole or not at all.

    Args:
        model: such as a Mask2Former or DETR.
        image_processor: the head's, of transformers.
        folder: where to write; it must not exist, or be empty.

    Returns:
        The folder's path.

    Raises:
        TypeError: if the model has no backbone of this package, or no Auto class opens it.
        ValueError: if it is a DPT or Depth Anything that cannot read what its backbone returns.
        FileExistsError: if the folder holds something already.
    """
    folder, backbone, auto_classes = Path(folder), find_backbone(model), find_auto_classes(model)
    if backbone is None or not auto_classes:
        if isinstance(getattr(model.config, "backbone_config", None), tuple(AUTO_CLASSES)) and backbone is None:
            raise TypeError(
                f"transformers builds no backbone_config in {type(model).__name__}: take a network of this package that"
                " does the same, such as SKViTForSemanticSegmentation, or another head."
            )
        raise TypeError(
            "export_head takes a model of transformers over an SKViT, SKFormer, SKSwin or SKCvT backbone, not"
            f" {type(model).__name__}: networks of this package are for export."
        )
    check_tokens(model, backbone)
    register_auto_classes()
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        for part in (backbone, backbone.config):
            custom_object_save(part, partial)
        write_code(partial, model, backbone, auto_classes)
        image_processor.save_pretrained(partial)
        create_head_card(model, folder.name, backbone, auto_classes).save(partial / "README.md")
        (partial / "LICENSE").write_text(license_text())
        make_readable(partial)
    return folder


def export_saved_head(saved: str | Path, folder: str | Path) -> Path:
    """Write what `save_pretrained` left of a head and its image processor as a repo folder, as `export_head` does.

    Raises:
        ValueError: if it cannot be loaded, or has no backbone of this package.
        FileExistsError: if the folder holds something already.
    """
    register_auto_classes()
    try:
        config = AutoConfig.from_pretrained(saved, trust_remote_code=False)
        architecture = (config.architectures or [""])[0]
        if not hasattr(transformers, architecture):
            raise ValueError(f"it holds a {architecture}, which is none of transformers")
        model = getattr(transformers, architecture).from_pretrained(saved)
        image_processor = AutoImageProcessor.from_pretrained(saved)
        return export_head(model, image_processor, folder)
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, FileExistsError):
            raise
        raise ValueError(
            f"{saved} could not be exported ({first_line(error)}): expected a model of transformers over a backbone of"
            " this package, and its image processor, as save_pretrained writes them."
        ) from error


def find_backbone(model: nn.Module) -> PreTrainedModel | None:
    """Return the network of this package in a model of transformers, None if there is none."""
    ours = (module for module in model.modules() if isinstance(module, PreTrainedModel) and is_ours(module))
    return None if is_ours(model) else next(ours, None)


def check_tokens(model: PreTrainedModel, backbone: PreTrainedModel) -> None:
    """Raise ValueError if the model is a DPT or Depth Anything that cannot read what its backbone returns.

    transformers builds such a model, and its first forward pass fails on a shape.
    """
    head, config = TOKEN_HEADS.get(model.config.model_type), backbone.config
    if head is None:
        return
    if config.has_stages:
        raise ValueError(
            f"{head} reads tokens of one stride, and an {family_of(backbone)} has maps of stages: take an SKViT with"
            " reshape_hidden_states=False, or a head for maps, such as Mask2Former."
        )
    if config.reshape_hidden_states:
        raise ValueError(
            f"{head} reads tokens, the class token first, and its {family_of(backbone)} returns maps: set"
            " reshape_hidden_states=False in backbone_config."
        )
    if not isinstance(config.patch_size, int):
        raise ValueError(
            f"patch_size is {config.patch_size} in backbone_config, expected one number: {head} divides images by it."
        )
    if head != "DPT" and model.config.patch_size != config.patch_size:  # DPT reads the backbone's own
        raise ValueError(
            f"patch_size is {model.config.patch_size}, expected {config.patch_size}, that of its backbone_config:"
            f" {head} divides images by it."
        )


def find_auto_classes(model: PreTrainedModel) -> list[str]:
    """Return the names of the Auto classes that make a model of this class of its configuration."""
    found = []
    for name in dir(auto):
        mapping = getattr(getattr(auto, name), "_model_mapping", None)
        if name.startswith("AutoModel") and mapping is not None and type(model.config) in mapping:
            classes = mapping[type(model.config)]
            if type(model) in (classes if isinstance(classes, tuple) else (classes,)):
                found.append(name)
    return found


def write_code(folder: Path, model: PreTrainedModel, backbone: PreTrainedModel, auto_classes: list[str]) -> None:
    """Write the file that registers the backbone, and name it in `config.json`."""
    model_type = backbone.config.model_type
    module = f"modeling_{model.config.model_type.replace('-', '_')}_over_{model_type}"
    names = {"config": type(model.config).__name__, "model": type(model).__name__}
    code = CODE.format(family=family_of(backbone), model_type=model_type, **names)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": f"{module}.{names['config']}"}
    config["auto_map"] |= dict.fromkeys(auto_classes, f"{module}.{names['model']}")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def create_head_card(
    model: PreTrainedModel, name: str, backbone: PreTrainedModel, auto_classes: list[str]
) -> ModelCard:
    """Return a card that says what the model is, and how to open it."""
    task = next((TASKS[auto_class] for auto_class in auto_classes if auto_class in TASKS), "image-feature-extraction")
    data = ModelCardData(
        license=LICENSE,
        library_name="transformers",
        pipeline_tag=task,
        tags=["vision", model.config.model_type, backbone.config.model_type],
    )
    text = CARD.format(
        name=name,
        model=type(model).__name__,
        family=family_of(backbone),
        parameters=model.num_parameters() / 1e6,
        task=task,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def family_of(backbone: PreTrainedModel) -> str:
    return type(backbone.config).__name__.removesuffix("Config")
