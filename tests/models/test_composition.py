"""The networks as parts of something larger: explained by gradients, adapted, sharded, or under heads of others."""

import peft
import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BertModel,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    VisionEncoderDecoderModel,
    VisionTextDualEncoderModel,
)

from sk_transformers import SKFormerModel, SKViTBackbone, SKViTConfig, SKViTModel

from ..support.small_models import ALL, VITS, small_config, small_model

TEXT = {"vocab_size": 20, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def images(model: nn.Module) -> torch.Tensor:
    return torch.randn(2, 3, model.config.image_size, model.config.image_size)


@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_all_that_is_returned(name):
    """As Grad-CAM and attention rollout need."""
    model = small_model(name)
    outputs = model(images(model), output_hidden_states=True, output_attentions=True)
    # The last map of a CvT is returned beside its class token, which has read the one before.
    is_beside = getattr(model.config, "class_tokens", [0])[-1] == 1
    returned = [*outputs.hidden_states[: -1 if is_beside else None], *outputs.attentions]
    for tensor in returned:
        tensor.retain_grad()
    outputs.logits[:, 0].sum().backward()
    assert all(tensor.grad is not None and tensor.grad.shape == tensor.shape for tensor in returned)


@pytest.mark.parametrize("name", ["skvit", "vit-small-data", "deit", "skcait", "skaformer", "map-norm-former"])
def test_input_embeddings_require_gradients(name):
    """What a checkpointed layer below frozen weights needs; it must not change the network."""
    model = small_model(name)
    pixel_values = images(model)
    expected = model(pixel_values).logits
    model.requires_grad_(False).enable_input_require_grads()
    logits = model(pixel_values).logits
    assert logits.requires_grad
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("name", ["skvit", "cskvit", "vit", "skcait", "skaformer", "cskaformer", "cskcvt"])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_adapters_train_through_checkpointed_layers(name, use_reentrant):
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = small_model(name).train()
        pixel_values = images(model)
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        adapted(pixel_values, labels=torch.tensor([0, 1])).loss.backward()
        gradients.append({n: p.grad for n, p in adapted.named_parameters() if p.requires_grad})
    plain, recomputed = gradients
    assert plain and all(gradient is not None for gradient in plain.values())
    torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("name", ["skvit", "cskvit-deit", "skaformer"])
def test_every_unit_of_fsdp_is_sharded(name):
    """As Accelerate does it: the modules that stay whole, then the input embeddings, then the network."""
    model = small_model(name)
    pixel_values = images(model)
    expected = model(pixel_values).logits
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        units = [m for m in reversed(list(model.modules())) if type(m).__name__ in model._no_split_modules]
        for unit in units:
            fully_shard(unit, mesh=mesh)
        if model.get_input_embeddings() not in units:
            fully_shard(model.get_input_embeddings(), mesh=mesh)
        fully_shard(model, mesh=mesh)
        torch.testing.assert_close(model(pixel_values).logits, expected)
    finally:
        torch.distributed.destroy_process_group()


# Models made of two


@pytest.mark.parametrize("name", ["skvit", "cskvit", "skaformer", "cskaformer"])
def test_an_image_and_a_text(name):
    config = small_config(name)
    vision = (SKViTModel if name in VITS else SKFormerModel)(config)
    model = VisionTextDualEncoderModel(vision_model=vision, text_model=BertModel(BertConfig(**TEXT)))
    outputs = model(
        input_ids=torch.randint(20, (2, 5)),
        pixel_values=images(vision),
        attention_mask=torch.ones(2, 5),
        return_loss=True,
    )
    outputs.loss.backward()
    assert outputs.logits_per_image.shape == (2, 2)
    assert all(parameter.grad is not None for parameter in model.visual_projection.parameters())


@pytest.mark.parametrize("name", ["skvit", "cskvit", "skvit-mean"])
def test_a_text_from_an_image(name):
    encoder = SKViTModel(small_config(name))
    decoder = BertLMHeadModel(BertConfig(**TEXT, is_decoder=True, add_cross_attention=True))
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    outputs = model(pixel_values=images(encoder), decoder_input_ids=torch.randint(20, (2, 5)))
    outputs.logits.sum().backward()
    assert outputs.logits.shape == (2, 5, 20)
    assert encoder.layernorm.weight.grad is not None


# Heads that take tokens


def depth_config(name: str, **overrides) -> SKViTConfig:
    options = {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4], "reshape_hidden_states": False}
    return small_config(name, **{**options, **overrides})


@pytest.mark.parametrize("name", ["skvit", "cskvit"])
def test_depth(name):
    pixel_values = torch.randn(2, 3, 16, 16)
    config = depth_config(name)
    sizes = {"neck_hidden_sizes": [4, 4, 8, 8], "fusion_hidden_size": 4}
    dpt = DPTForDepthEstimation(DPTConfig(backbone_config=config, hidden_size=16, head_in_channels=4, **sizes))
    assert dpt(pixel_values).predicted_depth.shape[0] == 2
    anything = DepthAnythingConfig(
        backbone_config=config, patch_size=4, reassemble_hidden_size=16, head_in_channels=4, head_hidden_size=4, **sizes
    )
    assert DepthAnythingForDepthEstimation(anything)(pixel_values).predicted_depth.shape == (2, 16, 16)


def test_backbone_that_returns_tokens():
    backbone = SKViTBackbone(depth_config("skvit", apply_layernorm=False))
    outputs = backbone(torch.randn(2, 3, 24, 20), output_hidden_states=True)
    torch.testing.assert_close(outputs.feature_maps, outputs.hidden_states[1:])
    assert outputs.feature_maps[0].shape == (2, 1 + 6 * 5, 16)


def test_backbone_without_norm():
    backbone = SKViTBackbone(small_config("deit", apply_layernorm=False))
    outputs = backbone(torch.randn(2, 3, 16, 16), output_hidden_states=True)
    expected = outputs.hidden_states[-1][:, 2:].transpose(1, 2).reshape(2, 16, 4, 4)
    torch.testing.assert_close(outputs.feature_maps[0], expected)


@pytest.mark.parametrize(("name", "tokens"), [("skvit-mean", 0), ("deit", 2)])
def test_tokens_without_the_one_class_token(name, tokens):
    with pytest.raises(ValueError, match=f"expect one class token before the patches, and this network has {tokens}"):
        small_config(name, reshape_hidden_states=False)
