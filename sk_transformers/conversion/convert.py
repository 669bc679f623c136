"""One checkpoint to one repo folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..files import check_free
from ..hub.cards.card import LICENSE, OriginFacts, TrainingFacts, create_card
from ..hub.export import export
from ..image_processing import image_processor_for
from .checking import build_model, has_classifier, largest_difference, runnable
from .configuration import Hints, add_missing_cls_position, infer_config, repeat_shared_tables
from .errors import shorten
from .labels import choose_labels, no_labels
from .license import choose_license
from .names import convert_state_dict
from .reading import read_source


@dataclass(frozen=True)
class Conversion:
    """What a conversion found. `str` of it is the report.

    Args:
        source: as the user gave it, and whose names its tensors have.
        model: the network that was written.
        tensors, parameters: how many were read, frozen ones too; all were used, or there would be no conversion.
        difference: of the outputs from the source network's in float64; None if nothing could run it.
        runs_in: the library that ran the source network, or why none did.
        left_out: tensors that the source has and the network does not, by the reason why.
        assumed: what was taken for granted about the network.
        labels: where the labels come from.
        license: of the weights.
        folder: what was written.
    """

    source: str
    model: PreTrainedModel
    tensors: int
    parameters: int
    difference: float | None
    runs_in: str
    left_out: dict[str, list[str]]
    assumed: list[str]
    labels: str
    license: str
    folder: Path

    def __str__(self) -> str:
        config = self.model.config
        mixers = [(mixer, len(list(same))) for mixer, same in groupby(config.token_mixers)]
        unit = "stages" if config.has_stages else "layers"
        is_classifier = hasattr(self.model, "classifier")
        outputs = (
            f"not compared: {self.runs_in}"
            if self.difference is None
            else f"differ by at most {self.difference:.1e} from the source network's, run by {self.runs_in} in float64"
        )
        used = sum(tensor.numel() for tensor in self.model.state_dict().values())  # what is frozen too
        rows = [
            ("source", self.source),
            ("network", f"{config.model_type}, {unit}: " + ", ".join(f"{count} x {mixer}" for mixer, count in mixers)),
            ("image size", f"{config.image_size} pixels"),
            ("tensors", f"{self.tensors} read, {self.tensors} used, none left over, none missing"),
            ("parameters", f"{self.parameters:,} read, {used:,} used"),
            ("logits" if is_classifier else "features", outputs),
            *(("left out", f"{shorten(names)}, {reason}") for reason, names in self.left_out.items()),
            *(("assumed", assumption) for assumption in self.assumed),
            ("labels", f"{config.num_labels}, {self.labels}" if is_classifier else self.labels),
            ("license", self.license),
            ("written", f"{self.folder}, {self.model.dtype}"),
        ]
        return "\n".join(f"{title:<12}{text}" for title, text in rows)


def convert(
    source: str,
    output_dir: str | Path,
    *,
    use_ema: bool = False,
    random: bool = False,
    image_size: tuple[int, int] | None = None,
    patch_size: int | None = None,
    head_dim: int | None = None,
    token_mixers: Sequence[str] | None = None,
    hidden_act: str | None = None,
    labels: str | Path | None = None,
    dtype: torch.dtype | None = None,
    license: str | None = None,
) -> Conversion:
    """Turn a checkpoint into a repo folder; nothing is written unless the whole checkpoint was understood.

    Args:
        source: a checkpoint file, `timm:NAME`, or a folder or Hub id of transformers.
        output_dir: where to write; it must not exist, or be empty.
        use_ema: take a file's averaged weights.
        random: take timm's network with fresh weights instead of pretrained ones.
        image_size, patch_size, head_dim, token_mixers: what tensors may not tell, see `configuration.Hints`.
        hidden_act: the activation of a Vision Transformer in a file, as transformers names it.
        labels: a file with the names of the classes, see `labels.read_labels`.
        dtype: of the weights to write; None keeps the source's.
        license: of the source's weights, as the Hub names it; needed unless the source says.

    Raises:
        CheckpointError: if the source cannot be read or converted; its message says why and what to do.
        FileExistsError: if the folder holds something already.
    """
    output_dir = Path(output_dir)
    check_free(output_dir)
    read = read_source(source, use_ema, random, hidden_act)
    tensors = convert_state_dict(read.state_dict, read.code_base.rules)
    hints = Hints(image_size, patch_size, head_dim, None if token_mixers is None else list(token_mixers))
    tensors = add_missing_cls_position(tensors, read.settings, hints)
    config, assumed = infer_config(tensors, read.settings, hints)
    tensors = repeat_shared_tables(tensors, config)
    assumed = [*read.assumed, *assumed]
    if has_classifier(tensors):
        id2label, labels_from = choose_labels(len(config.id2label or ()), labels, read.id2label)
    else:
        id2label, labels_from = no_labels(source, labels), "none: it makes features of images, and has no classifier"
    if id2label is not None:
        config.id2label = id2label
        config.label2id = {label: index for index, label in id2label.items()}

    model = build_model(config, tensors)
    license = LICENSE if random else choose_license(read, license)
    network, runs_in = runnable(read, config)
    difference = None if network is None else largest_difference(model, network)
    model.to(dtype or _widest_dtype(tensors))  # pyright: ignore[reportArgumentType]
    if read.image_processor is None and not read.data_config:
        assumed.append("images normalized as ImageNet's and not cropped; preprocessor_config.json says how")
    image_processor = read.image_processor or image_processor_for(config.image_size, read.data_config)
    names_of = f"in the names of {read.code_base.title}"
    facts = {"Converted from": f"{_public_name(source)}, {names_of}"}
    if read.left_out:
        facts["Left out"] = "; ".join(f"{shorten(names)}, {reason}" for reason, names in read.left_out.items())
    training = None if random else TrainingFacts(facts)
    origin = OriginFacts(license=license, base_model=None if random else read.hub_id)
    card = create_card(model, output_dir.name, training, origin=origin)
    return Conversion(
        source=f"{source}, {names_of}",
        model=model,
        tensors=len(read.state_dict),
        parameters=sum(tensor.numel() for tensor in read.state_dict.values()),
        difference=difference,
        runs_in=runs_in,
        left_out=read.left_out,
        assumed=assumed,
        labels=labels_from,
        license=license,
        folder=export(model, image_processor, output_dir, card),
    )


def _public_name(source: str) -> str:
    """Return what a model card calls a source: nobody need know in which folder it lay."""
    return Path(source).name if Path(source).exists() else source


def _widest_dtype(tensors: dict[str, torch.Tensor]) -> torch.dtype:
    """Return a dtype that holds every tensor as it is."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    widest = dtypes.pop()
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    return widest
