"""The configuration of a network, read off its tensors' names and shapes.

The tensors carry our names here. What they cannot tell comes from the source or from hints; where a code base has a
convention it stands in for the flag, and is said to have been assumed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd, isqrt, prod
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PretrainedConfig

from ..models.configuration_checks import size_pair
from ..models.configuration_skcait import SKCaiTConfig
from ..models.configuration_skcvt import SKCvTConfig
from ..models.configuration_skformer import NUM_STAGES, SKFormerConfig
from ..models.configuration_skswin import SKSwinConfig
from ..models.configuration_skvit import SKViTConfig
from ..models.grids import KERNEL_SIZE, strided_size
from .errors import CheckpointError

METAFORMER_HEAD_DIM = 32
METAFORMER_STEM = (7, 4)  # kernel size and stride
VIT_HEAD_DIM = 64
SWIN_HEAD_DIM = 32
CVT_HEAD_DIM = 64
CVT_KEY_STRIDE = 2
CVT_SMALLEST = 3  # pixels
CVT_PATCHES = {"patch_sizes": [7, 3, 3], "patch_strides": [4, 2, 2], "patch_paddings": [2, 1, 1]}
NEIGHBORHOOD = KERNEL_SIZE**2
SHIFTED_IMAGES = 5  # that a shifted patch sees: the image and its four shifts
LAYER_SCALE_INIT_VALUE = 1e-6  # DeiT III's; trained weights do not tell, and do not need it
MIXER_OF_TENSOR = {  # the first that a layer has
    "mixer.key_bias": "conv_static_key",
    "mixer.key": "static_key",
    "mixer.k_proj.weight": "attention",
    "mixer.key_conv.weight": "conv_key",
    "mixer.attention_bias.bias": "static_map",
    "mixer.depthwise.weight": "separable_conv",
    "mixer.matrix": "random",
}


@dataclass
class Hints:
    """What the user says, because tensors do not; None where nothing was said.

    Args:
        image_size: pixels, `(height, width)`.
        patch_size: pixels of a patch's side.
        head_dim: channels of a head, in layers with computed keys.
        token_mixers: mixer of each stage of a MetaFormer, or one for all.
    """

    image_size: tuple[int, int] | None = None
    patch_size: int | None = None
    head_dim: int | None = None
    token_mixers: list[str] | None = None


def infer_config(
    tensors: dict[str, torch.Tensor], known: dict[str, Any], hints: Hints
) -> tuple[SKCvTConfig | SKFormerConfig | SKSwinConfig | SKViTConfig, list[str]]:
    """Return the configuration, and what was assumed in it.

    Args:
        tensors: the checkpoint, under our names.
        known: fields that the source tells.
        hints: what the user says; it goes before what the source tells.

    Raises:
        CheckpointError: if something can neither be read nor assumed (it names the flag), or hints contradict tensors.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    families = {name.partition(".")[0] for name in shapes}
    reader_class = next((reader for family, reader in READERS.items() if family in families), ViTReader)
    reader = reader_class(shapes, known, hints)
    try:
        return reader.config_class(**{**known, **reader.settings()}), reader.assumed
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"The tensors are of a network that cannot be built here: {error}") from error


def repeat_shared_tables(tensors: dict[str, torch.Tensor], config: PretrainedConfig) -> dict[str, torch.Tensor]:
    """Give every head of a Swin its own copy of a table of distances that all heads of a layer share."""
    if not isinstance(config, SKSwinConfig):
        return tensors
    heads = [width // config.head_dim for width in config.hidden_sizes]
    return {
        name: tensor.repeat(heads[int(name.split(".")[2])], 1)
        if name.endswith(".attention_bias.bias") and tensor.shape[0] == 1
        else tensor
        for name, tensor in tensors.items()
    }


def add_missing_cls_position(
    tensors: dict[str, torch.Tensor], known: dict[str, Any], hints: Hints
) -> dict[str, torch.Tensor]:
    """Put a zero in the place of a class token's position that a ViT lacks, as DeiT III's do: it adds nothing."""
    name, projection = "skvit.embeddings.position_embeddings", "skvit.embeddings.patch_embeddings.projection.weight"
    if not {name, projection, "skvit.embeddings.cls_token"} <= tensors.keys() or tensors[projection].dim() != 4:
        return tensors
    count, override = tensors[name].shape[1], hints.image_size or known.get("image_size")
    if override is None:
        is_grid = isqrt(count) ** 2 == count  # a square with one more is none
    else:
        patch_height, patch_width = tensors[projection].shape[2:]
        height, width = size_pair("image_size", override)
        is_grid = (height // patch_height) * (width // patch_width) == count
    return {**tensors, name: F.pad(tensors[name], (0, 0, 1, 0))} if is_grid else tensors


class ShapeReader:
    """What reading any family needs. `assumed` collects what was not read but taken for granted."""

    layer_pattern: str

    def __init__(self, shapes: dict[str, tuple[int, ...]], known: dict[str, Any], hints: Hints):
        self.shapes = shapes
        self.known = known
        self.hints = hints
        self.assumed: list[str] = []

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise CheckpointError(f"The checkpoint lacks {name} (our name for it), without which nothing can be read.")
        return self.shapes[name]

    def count(self, pattern: str) -> int:
        """Return how many different numbers there are in the place of the pattern's group: they must count from 0."""
        matches = (re.match(pattern, name) for name in self.shapes)
        return len({match[1] for match in matches if match})

    def has(self, ending: str) -> bool:
        return any(name.endswith(ending) for name in self.shapes)

    def mixer_of(self, layer: str) -> str | None:
        """Return the mixer whose tensors a layer has; None if it has none."""
        return next((mixer for tensor, mixer in MIXER_OF_TENSOR.items() if f"{layer}.{tensor}" in self.shapes), None)

    def attention_bias(self, layers: list[str]) -> str | list[str | None] | None:
        """Return the kind of the attention bias of the layers: a list of them where they differ."""
        shapes = [self.shapes.get(f"{layer}.mixer.attention_bias.bias") for layer in layers]
        kinds = [None if shape is None else ("full" if len(shape) == 3 else "relative") for shape in shapes]
        return kinds[0] if len(set(kinds)) == 1 else kinds

    def num_labels(self) -> int:
        last_layer = "classifier.fc2.weight" if "classifier.fc2.weight" in self.shapes else "classifier.weight"
        return self.shape(last_layer)[0]

    def attention_head_dim(self, convention: int, whose: str) -> int:
        """Return the head size of attention, which no tensor tells."""
        override = self.hints.head_dim or self.known.get("head_dim")
        if override is None:
            self.assumed.append(f"head_dim {convention}, {whose}; --head_dim tells another")
        return override or convention

    def key_head_dim(self, layer: str) -> int:
        """Return the head size of a static key, or of a convolved one."""
        if f"{layer}.mixer.key_conv.weight" in self.shapes:
            return self.shape(f"{layer}.mixer.key_conv.weight")[1]
        width = self.shape(f"{layer}.mixer.key")[2]
        return width // NEIGHBORHOOD if f"{layer}.mixer.key_bias" in self.shapes else width

    def query_projection(self, layers: list[str]) -> bool:
        """Return whether the layers with static keys project their queries."""
        answers = {f"{layer}.mixer.q_proj.weight" in self.shapes for layer in layers}
        if len(answers) == 2:
            raise CheckpointError(
                "Some static keys of this network have query projections and others do not, which one configuration"
                " cannot say."
            )
        return answers != {False}


class FormerReader(ShapeReader):
    """Reads an SKFormer."""

    config_class = SKFormerConfig

    def settings(self) -> dict[str, Any]:
        depths = [self.count(rf"skformer\.stages\.{stage}\.layers\.(\d+)\.") for stage in range(NUM_STAGES)]
        mlp_width, width = self.shape("skformer.stages.0.layers.0.mlp.fc1.weight")
        mixers = self.token_mixers()
        use_mlp_head = "classifier.fc1.weight" in self.shapes
        return {
            "image_size": self.image_size(),
            "num_channels": self.shape("skformer.stem.projection.weight")[1],
            "stem_kernel_size": self.stem()[0],
            "stem_stride": self.stem()[1],
            "depths": depths,
            "hidden_sizes": self.hidden_sizes,
            "token_mixers": mixers,
            "head_dim": self.head_dims(mixers),
            "attention_bias": self.attention_bias([self.layer(stage) for stage in range(NUM_STAGES)]),
            "query_projection": self.query_projection(
                [self.layer(stage) for stage in range(NUM_STAGES) if f"{self.layer(stage)}.mixer.key" in self.shapes]
            ),
            "mlp_ratio": mlp_width // width if mlp_width % width == 0 else mlp_width / width,
            "use_mlp_head": use_mlp_head,
            "norm": self.norm(use_mlp_head),
            "num_labels": self.num_labels(),
        }

    def stem(self) -> tuple[int, int]:
        """Return the stem's kernel size and its stride, which no tensor tells; MetaFormer's are 7 and 4."""
        kernel_size = self.shape("skformer.stem.projection.weight")[2]
        stride = self.known.get("stem_stride", METAFORMER_STEM[1])
        if "stem_stride" not in self.known and kernel_size != METAFORMER_STEM[0]:
            raise CheckpointError(
                f"The stem's kernel has {kernel_size} pixels, expected MetaFormer's {METAFORMER_STEM[0]}, and no tensor"
                " tells the stride of another: convert a folder that has its config.json."
            )
        return kernel_size, stride

    @staticmethod
    def layer(stage: int) -> str:
        """Return the first layer of a stage, which stands for all of them."""
        return f"skformer.stages.{stage}.layers.0"

    @property
    def hidden_sizes(self) -> list[int]:
        return [self.shape(f"{self.layer(stage)}.mlp.fc1.weight")[1] for stage in range(NUM_STAGES)]

    def token_mixers(self) -> list[str]:
        read = [self.mixer_of(self.layer(stage)) for stage in range(NUM_STAGES)]
        override = self.hints.token_mixers or self.known.get("token_mixers")
        if override is None and None not in read:
            return [mixer for mixer in read if mixer is not None]
        if override is None and "random" in read:
            self.assumed.append("token mixer identity where there are no tensors, as in RandFormer; --token_mixers")
            return [mixer or "identity" for mixer in read]
        bare = ", ".join(str(stage) for stage, mixer in enumerate(read, 1) if mixer is None)
        if override is None:
            raise CheckpointError(
                f"The token mixers of stages {bare} have no tensors, so they may be identity or pooling: pass"
                " --token_mixers with the mixer of each stage, or with one for all."
            )
        override = override * NUM_STAGES if len(override) == 1 else override
        allowed = [("identity", "pooling") if mixer is None else (mixer,) for mixer in read]
        if len(override) != NUM_STAGES or not all(mixer in choices for mixer, choices in zip(override, allowed)):
            expected = ", ".join(" or ".join(choices) for choices in allowed)
            raise CheckpointError(f"--token_mixers is {' '.join(override)}, but the tensors say: {expected}.")
        return override

    def norm(self, use_mlp_head: bool) -> str:
        """Return the kind of norm, which no tensor tells; in every MetaFormer so far it goes with the head."""
        if "norm" in self.known:
            return self.known["norm"]
        if not use_mlp_head:
            self.assumed.append("group norms, as in every MetaFormer without an MLP head")
        return "layer" if use_mlp_head else "group"

    def head_dims(self, mixers: list[str]) -> int | list[int]:
        if "attention" in mixers:
            computed = self.attention_head_dim(METAFORMER_HEAD_DIM, "MetaFormer's")
        else:
            computed = METAFORMER_HEAD_DIM  # of no layer
        head_dims = []
        for stage, (mixer, width) in enumerate(zip(mixers, self.hidden_sizes)):
            is_static = mixer in ("static_key", "conv_static_key")
            head_dims.append(self.key_head_dim(self.layer(stage)) if is_static else computed)
            if mixer == "attention" and width % computed:
                raise CheckpointError(
                    f"Stage {stage + 1} attends with {width} channels, which heads of {computed} do not fill, and no"
                    " tensor tells the head size: pass --head_dim."
                )
        return head_dims[0] if len(set(head_dims)) == 1 else head_dims

    def image_size(self) -> int | tuple[int, int]:
        """Return the image size whose maps have as many positions as the tensors."""
        positions = {}
        for stage in range(NUM_STAGES):
            for name, axis in (("mixer.key", 1), ("mixer.matrix", 0)):
                shape = self.shapes.get(f"{self.layer(stage)}.{name}")
                if shape is not None:
                    positions[stage] = shape[axis]
        override, stem = self.hints.image_size or self.known.get("image_size"), self.stem()
        if not positions:
            if override is None:
                self.assumed.append("image_size 224, which no tensor depends on; --image_size tells another")
            return simplified(override or (224, 224))
        if override is not None:
            found = positions_at(override, positions, stem)
            if found != positions:
                height, width = size_pair("image_size", override)
                raise CheckpointError(f"At {height}x{width} pixels {_compare_positions(found, positions)}.")
            return simplified(override)
        stride, smallest = stem[1], 8 * stem[1]
        largest = min(stride * 2**stage * (isqrt(count) + 1) for stage, count in positions.items())
        sizes = [
            size for size in range(smallest, largest + 1) if positions_at((size, size), positions, stem) == positions
        ]
        if not sizes:
            counts = ", ".join(f"{count} in stage {stage + 1}" for stage, count in positions.items())
            raise CheckpointError(
                f"No square image has the positions of this network ({counts}): pass --image_size HEIGHT WIDTH."
            )
        return max(sizes, key=lambda size: gcd(size, smallest))


class ViTReader(ShapeReader):
    """Reads an SKViT."""

    config_class: type[SKViTConfig] = SKViTConfig

    @property
    def family(self) -> str:
        return self.config_class.model_type

    def settings(self) -> dict[str, Any]:
        depth = self.count(rf"{self.family}\.layers\.(\d+)\.")
        layers = [f"{self.family}.layers.{number}" for number in range(depth)]
        mixers = [self.mixer_of(layer) for layer in layers]
        if None in mixers:
            raise CheckpointError(f"Layer {mixers.index(None) + 1} has neither a key nor a key projection.")
        static_layers = [layer for layer in layers if f"{layer}.mixer.key" in self.shapes]
        patch_size, num_channels = self.patches()
        head_dim = self.head_dim(static_layers)
        learned_temperature = self.has("mixer.temperature")
        return {
            "image_size": self.image_size(patch_size),
            "patch_size": simplified(patch_size),
            "num_channels": num_channels,
            "hidden_size": self.shape(f"{layers[0]}.layernorm_before.weight")[0],
            "num_hidden_layers": depth,
            "num_attention_heads": self.num_heads(layers, head_dim),
            "head_dim": head_dim,
            "intermediate_size": self.shape(f"{layers[0]}.mlp.fc1.weight")[0],
            "gated_mlp": f"{layers[0]}.mlp.gate.weight" in self.shapes,
            "token_mixer": mixers[0] if len(set(mixers)) == 1 else mixers,
            "attention_bias": self.attention_bias(layers),
            "query_projection": self.query_projection(static_layers),
            "qkv_bias": self.has("mixer.v_proj.bias"),
            "key_bias": self.has("mixer.k_proj.bias") or not self.has("mixer.k_proj.weight"),
            # Locality self-attention is both, and the mask leaves no tensor.
            "learned_temperature": learned_temperature,
            "mask_diagonal": learned_temperature,
            "shifted_patch_tokenization": self.is_shifted,
            "layer_scale_init_value": LAYER_SCALE_INIT_VALUE if self.has("mixer_scale.scale") else None,
            "class_token": self.has("embeddings.cls_token"),
            "num_register_tokens": self.shapes.get(f"{self.family}.embeddings.register_tokens", (1, 0))[1],
            "pooling": self.pooling(),
            "patch_bias": self.has("patch_embeddings.projection.bias"),
            "embeddings_layernorm": f"{self.family}.embeddings.layernorm.weight" in self.shapes,
            "distillation_token": self.has("embeddings.distillation_token"),
            "distillation_head": self.has("distillation_classifier.weight"),
            **({"num_labels": self.num_labels()} if self.has_classifier else {}),
        }

    def pooling(self) -> str:
        if self.has("pooler.probe"):
            return "attention"
        return self.known.get("pooling", "cls" if self.has("embeddings.cls_token") else "mean")

    @property
    def has_classifier(self) -> bool:
        return any(name.startswith("classifier.") for name in self.shapes)

    @property
    def is_shifted(self) -> bool:
        return len(self.shape(f"{self.family}.embeddings.patch_embeddings.projection.weight")) == 2

    def head_dim(self, static_layers: list[str]) -> int:
        if not static_layers:
            return self.attention_head_dim(VIT_HEAD_DIM, "the usual one of a ViT")
        head_dim = self.key_head_dim(static_layers[0])
        if self.hints.head_dim not in (None, head_dim):
            raise CheckpointError(f"--head_dim is {self.hints.head_dim}, but the static keys have heads of {head_dim}.")
        return head_dim

    def num_heads(self, layers: list[str], head_dim: int) -> int:
        widths = sorted({self.shape(f"{layer}.mixer.v_proj.weight")[0] for layer in layers})
        if len(widths) > 1:
            raise CheckpointError(f"The layers' heads fill {widths} channels; SKViT has as many in every layer.")
        if widths[0] % head_dim:
            raise CheckpointError(
                f"Heads of {head_dim} do not fill the {widths[0]} channels of the layers' values: pass --head_dim."
            )
        return widths[0] // head_dim

    def patches(self) -> tuple[tuple[int, int], int]:
        """`(height, width)` of a patch, and the channels of the image."""
        shape = self.shape(f"{self.family}.embeddings.patch_embeddings.projection.weight")
        if not self.is_shifted:
            return (shape[2], shape[3]), shape[1]
        numbers = shape[1] // SHIFTED_IMAGES  # channels * height * width
        side = self.hints.patch_size or isqrt(numbers // 3)
        if numbers % side**2 or (self.hints.patch_size is None and numbers != 3 * side**2):
            raise CheckpointError(
                f"Patches of {numbers} numbers are not square patches"
                + (" of 3 channels: pass --patch_size." if self.hints.patch_size is None else f" {side} pixels wide.")
            )
        return (side, side), numbers // side**2

    def image_size(self, patch_size: tuple[int, int]) -> int | tuple[int, int]:
        known = self.known.get("image_size")
        position_embeddings = f"{self.family}.embeddings.position_embeddings"
        if known is not None and position_embeddings not in self.shapes:
            return simplified(known)
        positions = self.shape(position_embeddings)[1]
        positions -= self.has("embeddings.cls_token") + self.has("embeddings.distillation_token")
        override = self.hints.image_size or self.known.get("image_size")
        if override is not None:
            height, width = size_pair("image_size", override)
            if (height // patch_size[0]) * (width // patch_size[1]) != positions:
                raise CheckpointError(
                    f"An image of {height}x{width} pixels does not make {positions} patches of {patch_size[0]}x"
                    f"{patch_size[1]}, for which this network was trained: pass another --image_size."
                )
            return simplified((height, width))
        side = isqrt(positions)
        if side**2 != positions:
            raise CheckpointError(
                f"The network's {positions} patches do not make a square, so their grid cannot be read: pass"
                " --image_size HEIGHT WIDTH."
            )
        return simplified((side * patch_size[0], side * patch_size[1]))


class CaiTReader(ViTReader):
    """Reads an SKCaiT."""

    config_class = SKCaiTConfig

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "talking_heads": self.talking_heads("skcait.layers.0"),
            "num_class_layers": self.count(r"skcait\.pooler\.class_layers\.(\d+)\."),
            "class_talking_heads": self.talking_heads("skcait.pooler.class_layers.0"),
        }

    def pooling(self) -> str:
        return "class_layers"

    def head_dim(self, static_layers: list[str]) -> int:
        heads = self.shapes.get("skcait.layers.0.mixer.talking_heads.before.weight")
        if heads is None or static_layers:
            return super().head_dim(static_layers)
        return self.shape("skcait.layers.0.mixer.v_proj.weight")[0] // heads[0]

    def talking_heads(self, layer: str) -> str | None:
        """Return which maps over the heads a layer has."""
        before = f"{layer}.mixer.talking_heads.before"
        if f"{before}.weight" not in self.shapes:
            return None
        return "affine" if f"{before}.bias" in self.shapes else "linear"


class SwinReader(ShapeReader):
    """Reads an SKSwin."""

    config_class = SKSwinConfig

    def settings(self) -> dict[str, Any]:
        layers = [f"skswin.stages.{stage}.layers.0" for stage in range(self.count(r"skswin\.stages\.(\d)\.layers\."))]
        mixers = [self.mixer_of(layer) for layer in layers]
        if not layers or None in mixers:
            raise CheckpointError("The checkpoint lacks layers of a Swin, or keys of some: nothing can be read.")
        widths = [self.shape(f"{layer}.layernorm_before.weight")[0] for layer in layers]
        distances = isqrt(self.shape(f"{layers[0]}.mixer.attention_bias.bias")[1])
        window_size = (distances + 1) // 2
        patch_size, num_channels = self.patches()
        downsampling = [
            isqrt(self.shape(f"skswin.stages.{stage}.downsampling.projection.weight")[1] // width)
            for stage, width in enumerate(widths[:-1], 1)
        ]
        separate = [
            layer
            for layer, mixer in zip(layers, mixers)
            if mixer == "static_key" and self.shape(f"{layer}.mixer.key")[1] != window_size**2
        ]
        return {
            "image_size": self.image_size(separate, [patch_size, *downsampling]),
            "num_channels": num_channels,
            "patch_size": patch_size,
            "depths": [self.count(rf"skswin\.stages\.{stage}\.layers\.(\d+)\.") for stage in range(len(layers))],
            "hidden_sizes": widths,
            "token_mixers": mixers,
            "head_dim": self.head_dim(layers),
            "window_size": window_size,
            "window_keys": "separate" if separate else "shared",
            "downsampling": downsampling,
            "patch_norms": "skswin.stem.norm_after.weight" in self.shapes,
            "mlp_ratio": self.shape(f"{layers[0]}.mlp.fc1.weight")[0] / widths[0],
            "qkv_bias": self.has("mixer.v_proj.bias"),
            **({"num_labels": self.num_labels()} if self.has("classifier.weight") else {}),
        }

    def patches(self) -> tuple[int, int]:
        """Return the side of a patch and the channels of the image, of whose product alone a tensor tells."""
        numbers = self.shape("skswin.stem.projection.weight")[1]
        side = self.hints.patch_size or self.known.get("patch_size") or isqrt(numbers // 3)
        if numbers % side**2:
            raise CheckpointError(f"Patches of {numbers} numbers are not square patches {side} pixels wide.")
        return side, numbers // side**2

    def head_dim(self, layers: list[str]) -> int:
        """Return the head size: that of a key, or what the heads of a table of distances leave to each."""
        for layer in layers:
            if {f"{layer}.mixer.key", f"{layer}.mixer.key_conv.weight"} & self.shapes.keys():
                return self.key_head_dim(layer)
        for layer in layers:
            heads = self.shape(f"{layer}.mixer.attention_bias.bias")[0]
            if heads > 1:  # one may also serve all heads
                return self.shape(f"{layer}.mixer.v_proj.weight")[0] // heads
        return self.attention_head_dim(SWIN_HEAD_DIM, "Swin's")

    def image_size(self, separate: list[str], factors: list[int]) -> int | tuple[int, int]:
        """Return the image size, which keys of single windows tell and nothing else."""
        override = self.hints.image_size or self.known.get("image_size")
        if override is None and separate:
            stage = int(separate[0].split(".")[2])
            return isqrt(self.shape(f"{separate[0]}.mixer.key")[1]) * prod(factors[: stage + 1])
        if override is None:
            self.assumed.append("image_size 224, which no tensor depends on; --image_size tells another")
        return simplified(override or (224, 224))


class CvTReader(ShapeReader):
    """Reads an SKCvT."""

    config_class = SKCvTConfig

    def settings(self) -> dict[str, Any]:
        layers = [f"skcvt.stages.{stage}.layers.0" for stage in range(self.count(r"skcvt\.stages\.(\d+)\.layers\."))]
        mixers = [self.mixer_of(layer) for layer in layers]
        if not layers or None in mixers:
            raise CheckpointError("The checkpoint lacks layers of a CvT, or keys of some: nothing can be read.")
        mlp_width, width = self.shape(f"{layers[0]}.mlp.fc1.weight")
        patches = self.patches(len(layers))
        static = {stage: layer for stage, layer in enumerate(layers) if f"{layer}.mixer.key" in self.shapes}
        return {
            **patches,
            "image_size": self.image_size(static, patches),
            "num_channels": self.shape("skcvt.stem.projection.weight")[1],
            "depths": [self.count(rf"skcvt\.stages\.{stage}\.layers\.(\d+)\.") for stage in range(len(layers))],
            "hidden_sizes": [self.shape(f"{layer}.layernorm_before.weight")[0] for layer in layers],
            "token_mixers": mixers,
            "head_dim": self.head_dim(static),
            "conv_kernel_size": self.shape(f"{layers[0]}.mixer.convolutions.v.depthwise.weight")[2],
            "logit_scale": self.logit_scale(mixers),
            "mlp_ratio": mlp_width / width,
            "qkv_bias": self.has("mixer.v_proj.bias"),
            **({"num_labels": self.num_labels()} if self.has("classifier.weight") else {}),
        }

    def patches(self, stages: int) -> dict[str, Any]:
        """Return sizes, strides and paddings of the convolutions between stages; tensors tell the first alone."""
        names = ["skcvt.stem", *(f"skcvt.stages.{stage}.downsampling" for stage in range(1, stages))]
        sizes = [self.shape(f"{name}.projection.weight")[2] for name in names]
        known = {"patch_sizes": sizes, **{name: self.known.get(name) for name in ("patch_strides", "patch_paddings")}}
        if None not in known.values():
            return known
        if sizes != CVT_PATCHES["patch_sizes"]:
            raise CheckpointError(
                f"The stages start with convolutions of {sizes} pixels, expected CvT's {CVT_PATCHES['patch_sizes']},"
                " and no tensor tells the strides of others: convert a folder that has its config.json."
            )
        return CVT_PATCHES

    def head_dim(self, static: dict[int, str]) -> int | list[int]:
        if not static:
            return self.attention_head_dim(CVT_HEAD_DIM, "CvT's")
        return self.key_head_dim(next(iter(static.values())))

    def logit_scale(self, mixers: list[Any]) -> str:
        """Return the scale of the logits: the released code's convolutions of queries have none."""
        kinds = {mixer == "conv_static_key" for mixer in mixers}
        if len(kinds) == 2:
            raise CheckpointError(
                f"The stages have the mixers {', '.join(mixers)}: with convolutional keys in some and not in others one"
                " configuration cannot say how their logits are scaled."
            )
        return "none" if True in kinds else self.known["logit_scale"]

    def image_size(self, static: dict[int, str], patches: dict[str, Any]) -> int | tuple[int, int]:
        """Return an image size whose maps have as many keys as the tensors, rather a multiple of the strides."""
        override = self.hints.image_size or self.known.get("image_size")
        if override is None and not static:
            self.assumed.append("image_size 224, which no tensor depends on; --image_size tells another")
        if override is not None or not static:
            return simplified(override or (224, 224))
        rows = {stage: self.shape(f"{layer}.mixer.key")[1] for stage, layer in static.items()}
        rows = {stage: count - self.has(f"stages.{stage}.class_token.cls_token") for stage, count in rows.items()}
        stride = CVT_KEY_STRIDE * prod(patches["patch_strides"])
        for size in sorted(range(1, stride * (max(rows.values()) + 1)), key=lambda size: -gcd(size, stride)):
            if size >= CVT_SMALLEST and key_counts_at(size, rows, patches) == rows:
                return size
        counts = ", ".join(f"{count} in stage {stage + 1}" for stage, count in rows.items())
        raise CheckpointError(
            f"No square image has the keys of this network ({counts}): pass --image_size HEIGHT WIDTH."
        )


READERS = {  # by the beginning of our names; any other is a ViT's
    "skformer": FormerReader,
    "skswin": SwinReader,
    "skcait": CaiTReader,
    "skcvt": CvTReader,
}


def positions_at(size: int | tuple[int, int], stages: Iterable[int], stem: tuple[int, int]) -> dict[int, int]:
    """Return the number of positions at an image size, of each of some stages."""
    grids = SKFormerConfig(image_size=size, stem_kernel_size=stem[0], stem_stride=stem[1]).grid_sizes
    return {stage: grids[stage][0] * grids[stage][1] for stage in stages}


def key_counts_at(size: int, stages: Iterable[int], patches: dict[str, Any]) -> dict[int, int]:
    """Return the number of keys at positions of a CvT at an image size, of each of some stages."""
    grids = SKCvTConfig(image_size=size, **patches).grid_sizes
    return {stage: prod(strided_size(grids[stage], CVT_KEY_STRIDE)) for stage in stages}


def _compare_positions(found: dict[int, int], expected: dict[int, int]) -> str:
    parts = [f"stage {s + 1} has {found[s]} positions where the tensors have {expected[s]}" for s in expected]
    return " and ".join(part for part, s in zip(parts, expected) if found[s] != expected[s])


def simplified(size: int | tuple[int, int]) -> int | tuple[int, int]:
    """Return one number for a square."""
    return size[0] if isinstance(size, tuple | list) and size[0] == size[1] else size
