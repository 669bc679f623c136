"""Networks of transformers' that are no ViT or DeiT, with a classifier or without, beside what they become."""

import pytest
import torch
from transformers import (
    AutoImageProcessor,
    BeitConfig,
    BeitForImageClassification,
    BeitForMaskedImageModeling,
    BeitModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    IJepaConfig,
    IJepaModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)

from sk_transformers import SKViTForImageClassification, SKViTModel
from sk_transformers.conversion import CheckpointError, convert
from sk_transformers.pretrained import load_model

from ..hub.test_export import load_elsewhere
from ..support.networks import assert_close, drawn_in_float32, interpolation_in_float64

SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MLP = {"intermediate_size": 48}
SOURCES = {  # network, whether it takes images of other sizes unasked, what its conversion leaves out
    "vit": (lambda: ViTModel(ViTConfig(**SIZES, **MLP)), False, "pooler.dense"),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=2)), True, "mask_token"),
    "dinov2-swiglu": (lambda: Dinov2Model(Dinov2Config(**SIZES, use_swiglu_ffn=True)), True, "mask_token"),
    "dinov2-classifier": (
        lambda: Dinov2ForImageClassification(Dinov2Config(**SIZES, num_labels=3)), True, "mask_token",
    ),
    "dinov2-registers": (lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES)), True, "mask_token"),
    "dinov2-registers-classifier": (
        lambda: Dinov2WithRegistersForImageClassification(
            Dinov2WithRegistersConfig(**SIZES, use_swiglu_ffn=True, num_register_tokens=2, num_labels=3)
        ),
        True,
        "mask_token",
    ),
    "dinov3": (
        lambda: DINOv3ViTModel(DINOv3ViTConfig(**SIZES, **MLP, num_register_tokens=3)), True, "mask_token",
    ),
    "dinov3-gated": (
        lambda: DINOv3ViTModel(
            DINOv3ViTConfig(**SIZES, **MLP, use_gated_mlp=True, hidden_act="silu", key_bias=True, rope_theta=50.0)
        ),
        True,
        "mask_token",
    ),
    "clip": (lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES, **MLP)), False, ""),
    "siglip": (lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES, **MLP)), False, ""),
    "ijepa": (lambda: IJepaModel(IJepaConfig(**SIZES, **MLP)), False, ""),
    "beit": (
        lambda: BeitModel(BeitConfig(**SIZES, **MLP, use_relative_position_bias=True, use_mask_token=True)),
        True,
        "mask_token",
    ),
    "beit-shared": (lambda: BeitModel(BeitConfig(**SIZES, **MLP, use_shared_relative_position_bias=True)), True, ""),
    "beit-both": (
        lambda: BeitModel(
            BeitConfig(
                **SIZES, **MLP, use_shared_relative_position_bias=True, use_relative_position_bias=True,
                use_absolute_position_embeddings=True, use_mean_pooling=False, layer_scale_init_value=0.0,
            )
        ),
        True,
        "",
    ),
    "beit-classifier": (
        lambda: BeitForImageClassification(BeitConfig(**SIZES, **MLP, use_relative_position_bias=True, num_labels=3)),
        True,
        "",
    ),
    "mae": (lambda: without_masking(ViTMAEModel(ViTMAEConfig(**SIZES, **MLP, mask_ratio=0.0))), False, ""),
}  # fmt: skip


def without_masking(network):
    """Let MAE's encoder see every patch in its place: its noise, by which patches are sorted, counts upwards."""
    network.register_forward_pre_hook(
        lambda _, args, options: (
            args,
            {**options, "noise": torch.arange(args[0][0, 0].numel() // 8**2).expand(len(args[0]), -1)},
        ),
        with_kwargs=True,
    )
    return network


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_features_at_its_own_and_other_sizes(name, tmp_path):
    make, takes_any_size, left_out = SOURCES[name]
    network = drawn_in_float32(make())
    network.save_pretrained(tmp_path / "source")
    conversion = convert(str(tmp_path / "source"), tmp_path / "out", license="mit")

    is_classifier = "ForImageClassification" in type(network).__name__
    model = conversion.model
    assert type(model) is (SKViTForImageClassification if is_classifier else SKViTModel)
    assert conversion.difference < 1e-9
    assert left_out in str(conversion)
    outputs = ["logits"] if is_classifier else ["last_hidden_state", "pooler_output"]
    outputs = [output for output in outputs if (name, output) != ("vit", "pooler_output")]  # a layer of its own
    sizes = [(32, 32), (48, 24), (16, 40)] + ([(35, 57)] if takes_any_size else [])
    for height, width in sizes:
        images = torch.randn(2, 3, height, width, dtype=torch.float64)
        options = {} if takes_any_size else {"interpolate_pos_encoding": True}
        with torch.no_grad(), interpolation_in_float64():
            found, expected = model(images, **options), network(images, **options)
        for output in outputs:
            if expected.get(output) is not None:
                assert_close(found[output], expected[output])
    if not takes_any_size:
        with pytest.raises(ValueError, match="this model was made for 32x32"):
            model(torch.zeros(1, 3, 48, 24, dtype=torch.float64))


TEXT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_text_part_is_left_behind_and_named(name, tmp_path):
    parts = {"text_config": TEXT, "vision_config": {**SIZES, **MLP}}
    network = drawn_in_float32(CLIPModel(CLIPConfig(**parts)) if name == "clip" else SiglipModel(SiglipConfig(**parts)))
    network.save_pretrained(tmp_path / "source")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, image_std=[0.3] * 3).save_pretrained(
        tmp_path / "source"
    )
    conversion = convert(str(tmp_path / "source"), tmp_path / "out", license="mit")
    assert "text_model." in str(conversion) and "the text part and what compares it" in str(conversion)
    assert "the text part" in (conversion.folder / "README.md").read_text()
    assert list(AutoImageProcessor.from_pretrained(conversion.folder).image_std) == [0.3] * 3
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        found, expected = conversion.model(images), network.vision_model(images)
    assert_close(found.pooler_output, expected.pooler_output)


def test_what_masked_pretraining_alone_uses_is_left_behind_and_named(tmp_path):
    decoder = {f"decoder_{name}": 8 for name in ("hidden_size", "intermediate_size")}
    config = ViTMAEConfig(**SIZES, **MLP, **decoder, decoder_num_attention_heads=2, decoder_num_hidden_layers=1)
    ViTMAEForPreTraining(config).save_pretrained(tmp_path / "mae")
    report = str(convert(str(tmp_path / "mae"), tmp_path / "mae-out", license="mit"))
    assert "decoder." in report and "which masked pretraining alone uses" in report

    config = BeitConfig(**SIZES, **MLP, use_shared_relative_position_bias=True, use_mask_token=True, vocab_size=8)
    network = drawn_in_float32(BeitForMaskedImageModeling(config))
    network.save_pretrained(tmp_path / "beit")
    conversion = convert(str(tmp_path / "beit"), tmp_path / "beit-out", license="mit")
    assert "lm_head." in str(conversion) and "layer norm of the pooled output is fresh" in str(conversion)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert_close(conversion.model(images).last_hidden_state, network.beit(images).last_hidden_state)


def test_a_siglip_with_pixels_that_make_no_patch(tmp_path):
    config = SiglipVisionConfig(**{**SIZES, **MLP, "image_size": 35})
    network = drawn_in_float32(SiglipVisionModel(config))
    network.save_pretrained(tmp_path / "source")
    model = convert(str(tmp_path / "source"), tmp_path / "out", license="mit").model
    images = torch.randn(2, 3, 35, 35, dtype=torch.float64)
    with torch.no_grad():
        assert_close(model(images).pooler_output, network(images).pooler_output)


def test_an_option_that_skvit_does_not_have_is_named(tmp_path):
    DINOv3ViTModel(DINOv3ViTConfig(**SIZES, **MLP, mlp_bias=False)).save_pretrained(tmp_path / "source")
    with pytest.raises(CheckpointError, match="has mlp_bias=False, and SKViT can only do mlp_bias=True"):
        convert(str(tmp_path / "source"), tmp_path / "out", license="mit")


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A folder of a converted network without a classifier, whose image processor makes images of another size."""
    work = tmp_path_factory.mktemp("features")
    network = drawn_in_float32(Dinov2Model(Dinov2Config(**SIZES))).float()
    network.save_pretrained(work / "source")
    processor = BitImageProcessor(
        size={"shortest_edge": 60}, crop_size={"height": 48, "width": 48}, image_mean=[0.1] * 3
    )
    processor.save_pretrained(work / "source")
    return network, convert(str(work / "source"), work / "out", license="mit")


@pytest.mark.slow
def test_it_loads_without_this_package(features, tmp_path):
    network, conversion = features
    report, tensors = load_elsewhere(conversion.folder, tmp_path / "work", "load_features.py")
    assert report == {"not_loaded": [], "modules": ["transformers_modules"]}
    assert tensors["pixel_values"].shape == (1, 3, 48, 48)
    with torch.no_grad():
        expected = network(tensors["pixel_values"])
    for output in ("last_hidden_state", "pooler_output"):
        torch.testing.assert_close(tensors[output], expected[output], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tensors["of_pipeline"], expected.last_hidden_state, rtol=1e-4, atol=1e-5)
    assert tensors["feature_map"].shape == (1, 32, 6, 6)


def test_what_is_written_beside_it(features):
    _, conversion = features
    processor = AutoImageProcessor.from_pretrained(conversion.folder)
    assert list(processor.image_mean) == [0.1] * 3 and dict(processor.crop_size) == {"height": 48, "width": 48}
    card = (conversion.folder / "README.md").read_text()
    assert "pipeline_tag: image-feature-extraction" in card
    assert "It makes features of images, for a classifier or a detector to be trained on." in card
    assert "- Left out: embeddings.mask_token, which masked pretraining alone uses" in card
    assert not (conversion.folder / "handler.py").exists()


def test_it_is_a_start_for_training(features):
    _, conversion = features
    model, _ = load_model(str(conversion.folder), {0: "ant", 1: "bee", 2: "cicada"})
    assert model.config.num_labels == 3
    assert torch.equal(model.skvit.layers[1].mlp.fc2.weight, conversion.model.layers[1].mlp.fc2.weight)


def test_labels_are_for_classifiers(features, tmp_path):
    _, conversion = features
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    source = str(conversion.folder.parent / "source")
    with pytest.raises(CheckpointError, match="names classes, but .*source has no classifier: leave it out"):
        convert(source, tmp_path / "out", labels=tmp_path / "labels.txt", license="mit")


def test_pruned_heads_are_refused(tmp_path):
    config = ViTConfig(**SIZES, **MLP)
    config.pruned_heads = {0: [1]}
    ViTModel(config).save_pretrained(tmp_path / "source")
    with pytest.raises(CheckpointError, match="has pruned attention heads"):
        convert(str(tmp_path / "source"), tmp_path / "out", license="mit")
