"""What a calibration found: the figures, their picture, and the model card."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from huggingface_hub import ModelCard
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from transformers import PreTrainedModel

from ..files import save_figure
from ..hub.cards.card import OriginFacts, RepoFacts, TrainingFacts, create_card, millions, multiply_adds

matplotlib.use("agg")
PLOT = "calibration.png"
TITLES = {
    "static_map": "static map",
    "static_key": "static key",
    "static_key+bias": "static key and bias",
    "conv_static_key": "convolutional static key",
    "conv_static_key+bias": "convolutional static key and bias",
}


@dataclass
class Calibration:
    """What a calibration found and made. `str` of it is the report; errors are those of `measure_damage`.

    Args:
        source: name of the network that was calibrated.
        license: of its weights.
        images: name and number of the images that calibrated, and how many others measured.
        image_size: `[height, width]`, pixels.
        candidates: figures of each layer and kind, replaced alone; none where layers were named by hand.
        replaced: figures of each layer that was replaced, with those of the network up to it.
        distilled: figures of each evaluation while the network was trained end to end.
        before, after: figures of the whole network: multiply-adds, parameters, images a second, accuracy, error.
        folder: the repo folder.
        model: the calibrated network.
    """

    source: str
    license: str
    images: dict[str, Any]
    image_size: list[int]
    candidates: list[dict[str, Any]]
    replaced: list[dict[str, Any]]
    distilled: list[dict[str, Any]]
    before: dict[str, Any]
    after: dict[str, Any]
    provenance: dict[str, Any]
    folder: Path | None = None
    model: PreTrainedModel | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it, but the network and its folder."""
        everything = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("folder", "model")
        }
        return dict(everything)

    def __str__(self) -> str:
        rows = [
            ("source", f"{self.source}, {self.license}"),
            ("images", describe_images(self.images)),
            *(("candidate", describe(one)) for one in self.candidates),
            *(("replaced", describe(one)) for one in self.replaced),
            *((name.replace("_", " "), f"{before} -> {after}") for name, (before, after) in comparison(self).items()),
        ]
        rows += [] if self.folder is None else [("written", str(self.folder))]
        return "\n".join(f"{title:<18}{text}" for title, text in rows)


def describe(figures: dict[str, Any]) -> str:
    """Return one line of a replaced layer."""
    top1 = f"  top-1 {figures['top1']:.2%}" if "top1" in figures else ""
    return (
        f"layer {figures['layer']:>2}  {figures['kind']:<20}  error {figures['error']:.4f}  cosine"
        f" {figures['cosine']:.4f}{top1}  multiply-adds {multiply_adds(figures['macs'])}, saved"
        f" {figures['saved_macs'] / 1e6:.1f} M  {figures['milliseconds']:.2f} of"
        f" {figures['attention_milliseconds']:.2f} ms"
    )


def describe_images(images: dict[str, Any]) -> str:
    labels = "their labels measure accuracy" if images["labels"] else "without labels"
    return f"{images['calibration']} of {images['name']}, and {images['held_out']} others held out; {labels}"


def comparison(calibration: Calibration) -> dict[str, tuple[str, str]]:
    """Return the figures before and after as text."""
    formats = {
        "multiply_adds": multiply_adds,
        "parameters": millions,
        "images_per_second": lambda value: f"{value:.1f}",
        "top1": lambda value: f"{value:.2%}",
        "error": lambda value: f"{value:.4f}",
        "cosine": lambda value: f"{value:.4f}",
        "agreement": lambda value: f"{value:.2%}",
    }
    before, after = calibration.before, calibration.after
    return {
        name: (text(before[name]), text(after[name]))
        for name, text in formats.items()
        if name in before and name in after
    }


def plot_damage(calibration: Calibration, file: Path) -> None:
    """Draw the error of each layer and kind replaced alone, and of the network as its layers are replaced."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, title in TITLES.items():
        rows = [one for one in calibration.candidates if one["kind"] == kind]
        if rows:
            axes.plot([r["layer"] for r in rows], [r["error"] for r in rows], marker="o", label=f"{title}, alone")
    rows = calibration.replaced
    label = "all replaced up to here"
    axes.plot([r["layer"] for r in rows], [r["error"] for r in rows], color="black", marker="s", ls="--", label=label)
    if calibration.distilled:
        axes.axhline(calibration.after["error"], color="gray", ls=":", label="after distillation")
    axes.set(xlabel="layer, from 0", ylabel="unexplained variance of the last hidden states", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, file)


def calibration_card(calibration: Calibration, name: str, base_model: str | None) -> ModelCard:
    """Return the card: what the network was made from and of, what was replaced, and what that costs and saves."""
    model = calibration.model
    assert model is not None
    layers: dict[str, list[str]] = {}
    for one in calibration.replaced:
        layers.setdefault(TITLES[one["kind"]], []).append(str(one["layer"]))
    last = calibration.distilled[-1]["step"] if calibration.distilled else 0
    table = comparison(calibration)
    machine = calibration.provenance["hardware"]
    summary = {
        "Source": f"{calibration.source}, license `{calibration.license}`",
        "Images": describe_images(calibration.images),
        "Attention replaced": "; ".join(f"{title} in layers {', '.join(of)}" for title, of in layers.items())
        + " (counted from 0)",
        "Trained end to end": f"{last} steps, with the source as the teacher" if last else "no, each layer alone",
        "Error on images held out": f"{calibration.after['error']:.4f} of the variance of the last hidden states is"
        f" not explained; the mean cosine of the pooled output is {calibration.after['cosine']:.4f}",
        **{
            f"{title}, before and after": " and ".join(table[key])
            for key, title in (
                ("top1", "Top-1 accuracy on images held out"),
                ("multiply_adds", "Multiply-adds"),
                ("parameters", "Parameters"),
                ("images_per_second", f"Images a second in batches of 8 ({machine})"),
            )
            if key in table
        },
        "Command": f"`{calibration.provenance['command']}`",
    }
    return create_card(
        model,
        name,
        TrainingFacts(summary, plots={PLOT: "Damage by layer and kind of mixer"}),
        origin=OriginFacts(license=calibration.license, base_model=base_model),
        repo=RepoFacts(has_handler="ForImageClassification" in type(model).__name__),
    )
