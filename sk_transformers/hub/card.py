"""The model card: metadata from the model and its measured results, text from a template."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

TEMPLATE = Path(__file__).parent / "card_template.md"
MIXER_TITLES = {
    "static_key": "static key attention (SKA)",
    "conv_static_key": "convolutional static key attention (CSKA)",
    "attention": "self-attention",
    "separable_conv": "separable convolution",
    "pooling": "pooling",
    "identity": "identity",
    "random": "random mixing",
}


def create_card(
    model: PreTrainedModel,
    name: str,
    training: dict[str, Any] | None = None,
    results: list[EvalResult] | None = None,
) -> ModelCard:
    """The card of a model.

    Args:
        model: an SKViT or SKFormer model.
        name: the model's name, the card's title.
        training: how it was trained, as printed lines: what was told as `{"Command": ..., "Seed": ..., ...}`. None
            for fresh weights, which the card's first line then says.
        results: what was measured; they go into the metadata and a table.
    """
    config = model.config
    mixers = config.token_mixers
    data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-classification"
        if "ForImageClassification" in type(model).__name__
        else "image-feature-extraction",
        tags=["vision", "static-key-attention", config.model_type],
        model_name=name,
        eval_results=results,
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        parameters=f"{model.num_parameters() / 1e6:.2f} M",
        image_size=config.image_size,
        mixers=[(count, MIXER_TITLES[mixer]) for mixer, count in _runs(mixers, config)],
        unit="stage" if config.model_type == "skformer" else "layer",
        num_labels=config.num_labels,
        training=training,
        results=results,
    )


def _runs(mixers: list[str], config) -> list[tuple[str, str]]:
    """The mixers with the stages or layers that have them, equal neighbours together: `[("attention", "3 to 4")]`."""
    runs: list[list] = []
    for number, mixer in enumerate(mixers, 1):
        if runs and runs[-1][0] == mixer:
            runs[-1][2] = number
        else:
            runs.append([mixer, number, number])
    return [(mixer, f"{first}" if first == last else f"{first} to {last}") for mixer, first, last in runs]
