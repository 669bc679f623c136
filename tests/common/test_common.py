"""Transformers' own common tests, over every family and every mixer."""

import tempfile
import unittest
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
import torch
from transformers import PretrainedConfig, ViTImageProcessor
from transformers.models.auto import modeling_auto

from sk_transformers import (
    SKCaiTForImageClassification,
    SKCaiTModel,
    SKCvTBackbone,
    SKCvTForImageClassification,
    SKCvTModel,
    SKFormerBackbone,
    SKFormerForImageClassification,
    SKFormerForSemanticSegmentation,
    SKFormerModel,
    SKSwinBackbone,
    SKSwinForImageClassification,
    SKSwinModel,
    SKViTBackbone,
    SKViTConfig,
    SKViTForImageClassification,
    SKViTModel,
)
from sk_transformers.models.configuration_checks import ATTENTION_MIXER_NAMES, TOKEN_MIXER_NAMES

from ..support.small_models import CAITS, CVTS, FORMERS, SWINS, VITS, small_config
from .suite import import_suite

pytestmark = pytest.mark.slow
suite = import_suite()

# Together they have all families and every mixer.
NAMES = (
    "skvit",
    "cskvit-small-data",
    "bias-vit",
    "skcait",
    "skaformer",
    "cskaformer",
    "map-norm-former",
    "window-former",
    "skswin",
    "cskswin",
    "cskcvt",
)
SKVIT = (SKViTModel, SKViTForImageClassification, SKViTBackbone)
SKCAIT = (SKCaiTModel, SKCaiTForImageClassification)  # which has no backbone
SKFORMER = (SKFormerModel, SKFormerForImageClassification, SKFormerBackbone)
SKSWIN = (SKSwinModel, SKSwinForImageClassification, SKSwinBackbone)
SKCVT = (SKCvTModel, SKCvTForImageClassification, SKCvTBackbone)
AUTO_CLASSES = (  # where the suite looks up what a class is
    modeling_auto.MODEL_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES,
)


def test_every_mixer_is_among_them():
    assert {mixer for name in NAMES for mixer in small_config(name).token_mixers} == set(TOKEN_MIXER_NAMES)


class SmallModel:
    """What the suite asks of a network: a configuration, inputs, and the sizes of its outputs."""

    batch_size = 2
    is_training = True

    def __init__(self, name: str):
        self.name = name
        config = self.get_config()
        self.image_size = config.image_size
        if isinstance(config, SKViTConfig):
            layers = [(mixer, config.grid_size, config.num_attention_heads) for mixer in config.token_mixers]
            self.num_steps = config.num_hidden_layers
            self.hidden_shape = (
                config.grid_size[0] * config.grid_size[1] + config.num_prefix_tokens,
                config.hidden_size,
            )
        else:
            heads = [width // head_dim for width, head_dim in zip(config.hidden_sizes, config.head_dims)]
            windows = [(config.window_size,) * 2] * len(heads) if hasattr(config, "window_size") else config.grid_sizes
            stages = zip(config.depths, config.token_mixers, windows, heads)
            layers = [stage for depth, *stage in stages for _ in range(depth)]
            self.num_steps = len(config.depths)
            self.hidden_shape = config.grid_sizes[0]
        attending = [layer for layer in layers if layer[0] in ATTENTION_MIXER_NAMES]
        self.num_attentions = len(attending) + getattr(config, "num_class_layers", 0)
        if attending:
            _, (height, width), self.num_attention_heads = attending[0]
            self.seq_length = height * width + getattr(config, "num_prefix_tokens", 0)
            stride = config.key_strides[0] if hasattr(config, "key_strides") else 1
            self.key_length = self.seq_length // stride**2

    def get_config(self) -> PretrainedConfig:
        return small_config(self.name)

    def prepare_config_and_inputs_for_common(self) -> tuple[PretrainedConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        shape = (self.batch_size, config.num_channels, config.image_size, config.image_size)
        return config, {"pixel_values": torch.rand(shape)}


class FamilyTests(suite["test_modeling_common"].ModelTesterMixin, suite["test_pipeline_mixin"].PipelineTesterMixin):
    """The tests of one row of `small_models`, `name`."""

    test_resize_embeddings = False  # there is no vocabulary
    test_can_init_all_missing_weights_before_2023 = True  # which it takes a file without a year to be

    def setUp(self):
        self.model_tester = SmallModel(self.name)
        model_type = self.model_tester.get_config().model_type
        for names, model_class in zip(AUTO_CLASSES, self.all_model_classes):
            self.enterContext(mock.patch.dict(names, {model_type: model_class.__name__}))

    def subTest(self, *_, **__):  # thousands, one a parameter, which take pytest longer to count than to run
        return nullcontext()

    def test_config(self):
        config = self.model_tester.get_config()
        properties = ["hidden_size", "image_size", "num_channels"]
        suite["test_configuration_common"].ConfigTester(
            self, type(config), has_text_modality=False, common_properties=properties, image_size=config.image_size * 2
        ).run_common_tests()

    def test_attention_outputs(self):
        self.model_tester.num_hidden_layers = self.model_tester.num_attentions
        super().test_attention_outputs()

    def test_hidden_states_output(self):
        self.model_tester.num_hidden_layers = self.model_tester.num_steps
        self.model_tester.seq_length, self.model_tester.hidden_size = self.model_tester.hidden_shape
        super().test_hidden_states_output()

    def test_init_weights_can_init_buffers(self):
        # It expects a buffer to be the same each time: the random matrix is, where random numbers are.
        with mock.patch("torch.rand_like", torch.zeros_like):
            super().test_init_weights_can_init_buffers()

    def test_model_get_set_embeddings(self):  # those of pixels, which nothing sets
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config)
            self.assertIsInstance(model.get_input_embeddings(), torch.nn.Module)
            self.assertIsNone(model.get_output_embeddings())

    def test_enable_input_require_grads_with_gradient_checkpointing(self):
        # It reads gradients of the embeddings' own weight; those of pixels have it in their projection.
        def weight(embeddings):
            return getattr(embeddings, "patch_embeddings", embeddings).projection.weight

        config = self.model_tester.get_config()
        embeddings = type(self.all_model_classes[0](config).get_input_embeddings())
        with mock.patch.object(embeddings, "weight", property(weight), create=True):
            super().test_enable_input_require_grads_with_gradient_checkpointing()

    def run_task_tests(self, task, dtype="float32"):
        """Save the tiny model that the Hub would have, and run the pipeline over it."""
        model_class = self.pipeline_model_mapping.get(task)
        if model_class is None:
            self.skipTest(f"{task} is not for classifiers of images.")
        config = self.model_tester.get_config()
        tiny_model = {"tokenizer_classes": [], "processor_classes": ["ViTImageProcessor"]}
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.multiple(
                suite["test_pipeline_mixin"],
                TRANSFORMERS_TINY_MODEL_PATH=folder,
                tiny_model_summary={model_class.__name__: tiny_model},
            ),
        ):
            repo = Path(folder, config.model_type, model_class.__name__)
            model_class(config).save_pretrained(repo)
            ViTImageProcessor(size=config.image_size).save_pretrained(repo)
            super().run_task_tests(task, dtype)


class SmallSegmenter(SmallModel):
    def get_config(self) -> PretrainedConfig:
        return small_config(self.name, segmentation_hidden_size=8)


class SegmenterTests(FamilyTests, unittest.TestCase):
    name = "cskaformer"
    has_attentions = True
    all_model_classes = (SKFormerForSemanticSegmentation,)
    pipeline_model_mapping = {}  # what its pipeline does is in tests/hub/test_segmenters.py

    def setUp(self):
        self.model_tester = SmallSegmenter(self.name)
        names = {SKFormerForSemanticSegmentation.config_class.model_type: SKFormerForSemanticSegmentation.__name__}
        self.enterContext(mock.patch.dict(modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, names))


class BackboneTests(suite["test_backbone_common"].BackboneTesterMixin):
    def setUp(self):
        self.model_tester = SmallModel(self.name)


def add_tests(name: str) -> None:
    """Define the test classes of a row of `small_models`."""
    families = ((VITS, SKVIT), (CAITS, SKCAIT), (FORMERS, SKFORMER), (SWINS, SKSWIN), (CVTS, SKCVT))
    classes = next(found for rows, found in families if name in rows)
    model, classifier, *backbones = classes
    title = name.title().replace("-", "")
    has_attentions = SmallModel(name).num_attentions > 0
    shared = {"name": name, "has_attentions": has_attentions}
    globals()[f"{title}Tests"] = type(
        f"{title}Tests",
        (FamilyTests, unittest.TestCase),
        {
            **shared,
            "all_model_classes": classes,
            "pipeline_model_mapping": {"image-feature-extraction": model, "image-classification": classifier},
        },
    )
    for backbone in backbones:
        globals()[f"{title}BackboneTests"] = type(
            f"{title}BackboneTests",
            (BackboneTests, unittest.TestCase),
            {**shared, "all_model_classes": (backbone,), "config_class": backbone.config_class},
        )


for name in NAMES:
    add_tests(name)
