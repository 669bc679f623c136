"""SKSwin beside the authors' networks and transformers' Swin, in float64, and the contract of a transformers model."""

import copy
import re

import pytest
import torch
from transformers import SwinConfig, SwinForImageClassification

from sk_transformers.models.configuration_skswin import SKSwinConfig
from sk_transformers.models.modeling_skswin import SKSwinBackbone, SKSwinForImageClassification

from ..support.networks import assert_close, drawn, fill, logits

AUTHORS = {  # what their code does, and Swin does not
    "image_size": 32, "patch_size": 2, "window_size": 4, "downsampling": [2, 2, 1], "patch_norms": False,
    "final_norm": "pooled", "shift_lone_window": True, "qkv_bias": False, "num_labels": 10,
}  # fmt: skip
CASES = {"swin_t": ("attention", "shared"), "swin_t_stu": ("static_key", "separate")}
SMALL = {
    "image_size": 64, "depths": [2, 2, 2], "hidden_sizes": [16, 32, 64], "head_dim": 8, "window_size": 4,
    "num_labels": 3,
}  # fmt: skip
MIXERS = [
    ("attention", "shared"),
    ("static_key", "shared"),
    ("static_key", "separate"),
    ("conv_static_key", "shared"),
    ("static_map", "shared"),
]
AUTHORS_NAMES = (
    (r"^mlp_head\.0\.", "skswin.layernorm."),
    (r"^mlp_head\.1\.", "classifier."),
    (r"^stage(\d)\.", lambda match: f"skswin.stages.{int(match[1]) - 1}."),
    (r"patch_partition\.linear", "patches.projection"),
    (r"layers\.(\d+)\.(\d)\.", lambda match: f"layers.{2 * int(match[1]) + int(match[2])}."),
    (r"attention_block\.fn\.norm", "layernorm_before"),
    (r"mlp_block\.fn\.norm", "layernorm_after"),
    (r"mlp_block\.fn\.fn\.net\.0", "mlp.fc1"),
    (r"mlp_block\.fn\.fn\.net\.2", "mlp.fc2"),
    (r"attention_block\.fn\.fn\.to_out", "mixer.o_proj"),
    (r"attention_block\.fn\.fn\.pos_embedding", "mixer.attention_bias.bias"),
    (r"attention_block\.fn\.fn\.", "mixer."),
)
TRANSFORMERS_NAMES = (
    (r"^swin\.embeddings\.patch_embeddings\.", "skswin.stages.0.patches."),
    (r"^swin\.embeddings\.norm\.", "skswin.stages.0.patches.norm_after."),
    (r"^swin\.layernorm\.", "skswin.layernorm."),
    (r"^swin\.encoder\.layers\.(\d+)\.blocks\.", r"skswin.stages.\1.layers."),
    (r"^swin\.encoder\.layers\.(\d+)\.downsample\.", lambda match: f"skswin.stages.{int(match[1]) + 1}.patches."),
    (r"patches\.reduction\.", "patches.projection."),
    (r"patches\.norm\.", "patches.norm_before."),
    (r"\.attention\.relative_position_bias\.relative_position_bias_table$", ".mixer.attention_bias.bias"),
    (r"\.attention\.", ".mixer."),
)


def renamed(name, table):
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def authors_tensors(state_dict, heads):
    """The authors' tensors as ours: a table of distances, key less query, for all heads; a key a window as one map."""
    tensors = {}
    for name, tensor in state_dict.items():
        name = renamed(name, AUTHORS_NAMES)
        fused = re.search(r"\.to_(qk?v)\.", name)
        if fused:
            for part, chunk in zip(fused[1], tensor.chunk(len(fused[1]))):
                tensors[name.replace(fused[0], f".{part}_proj.")] = chunk
        elif name.endswith(".attention_bias.bias"):
            tensors[name] = tensor.flip(0, 1).reshape(1, -1).expand(heads[int(name.split(".")[2])], -1)
        elif name.endswith(".mixer.k"):
            windows, side = (int(count**0.5) for count in tensor.shape[1:3])
            maps = tensor.unflatten(2, (side, side)).unflatten(1, (windows, windows)).transpose(2, 3)
            tensors[f"{name}ey"] = maps.flatten(1, 4)
        else:
            tensors[name] = tensor
    return tensors


def transformers_tensors(state_dict):
    """Swin's tensors as ours, whose patches have their channels first; its are merged by columns, rows, channels."""
    tensors = {}
    for name, tensor in state_dict.items():
        ours = renamed(name, TRANSFORMERS_NAMES)
        if ".downsample." in name:
            tensor = tensor.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)
        elif name.endswith("patch_embeddings.projection.weight"):
            tensor = tensor.flatten(1)
        tensors[ours] = tensor.T if ours.endswith(".attention_bias.bias") else tensor
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_logits_equal_the_authors(name):
    case, expected = fill.load_case(name)
    mixer, window_keys = CASES[name]
    config = SKSwinConfig(**AUTHORS, token_mixers=mixer, window_keys=window_keys)
    model = SKSwinForImageClassification(config).double().eval()
    heads = [width // config.head_dim for width in config.hidden_sizes]
    model.load_state_dict(authors_tensors(fill.state_dict(case), heads))
    # Their table of distances serves all heads of a layer, where each head of ours has its own. The case's
    # count is 3,072 more than its tensors hold: as much as two masks for each of the six shifted layers.
    shared = sum(depth * (count - 1) * 7 * 7 for depth, count in zip(config.depths, heads))
    masks = sum(config.depths) // 2 * 2 * 16 * 16
    assert model.num_parameters() == case["parameters"] + shared - masks
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert_close(logits(model, fill.pixel_values(case)), next(iter(expected.values())))


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (70, 90), (128, 128)])
def test_logits_equal_transformers_swin_at_any_size(size):
    # A network of theirs each time: one that met a small map keeps the window that it took for it.
    theirs = drawn(
        SwinForImageClassification(
            SwinConfig(image_size=64, embed_dim=16, depths=[2, 2, 2], num_heads=[2, 4, 8], window_size=4, num_labels=3)
        )
    )
    model = SKSwinForImageClassification(SKSwinConfig(**SMALL, token_mixers="attention")).double().eval()
    model.load_state_dict(transformers_tensors(theirs.state_dict()))
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    assert_close(logits(model, images), logits(theirs, images, interpolate_pos_encoding=True))


@pytest.mark.parametrize(("mixer", "window_keys"), MIXERS)
def test_kernels_agree_and_gradients_reach_every_parameter(mixer, window_keys):
    config = SKSwinConfig(**SMALL, token_mixers=mixer, window_keys=window_keys)
    model = drawn(SKSwinForImageClassification(config))
    for size in ((64, 64), (32, 32), (70, 90)):
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        model.set_attn_implementation("sdpa")
        found = logits(model, images)
        model.set_attn_implementation("eager")
        assert_close(found, logits(model, images))
    model.train()(torch.randn(2, 3, 64, 64, dtype=torch.float64), labels=torch.tensor([0, 2])).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize(("mixer", "window_keys"), MIXERS)
def test_saves_loads_checkpoints_and_is_a_backbone(mixer, window_keys, tmp_path):
    model = SKSwinForImageClassification(SKSwinConfig(**SMALL, token_mixers=mixer, window_keys=window_keys)).eval()
    images = torch.randn(2, 3, 64, 64)
    model.save_pretrained(tmp_path)
    loaded = SKSwinForImageClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded, images), logits(model, images))

    grads = []
    for checkpoints in (False, True):
        trained = copy.deepcopy(model).train()
        if checkpoints:
            trained.gradient_checkpointing_enable()
        trained(images, labels=torch.tensor([0, 2])).loss.backward()
        grads.append([parameter.grad for parameter in trained.parameters()])
    torch.testing.assert_close(grads[0], grads[1])

    outputs = model(images, output_attentions=True)
    assert len(outputs.attentions) == 6
    assert outputs.attentions[0].shape == (2 * 16, 2, 16, 16)  # of each of 4x4 windows
    backbone = SKSwinBackbone.from_pretrained(tmp_path, out_features=["stage1", "stage3"])
    maps = backbone(images).feature_maps
    assert [tuple(feature.shape) for feature in maps] == [(2, 16, 16, 16), (2, 64, 4, 4)]


def test_separate_keys_are_for_static_keys():
    with pytest.raises(ValueError, match="only 'static_key' has a key for each window"):
        SKSwinConfig(token_mixers="conv_static_key", window_keys="separate")
