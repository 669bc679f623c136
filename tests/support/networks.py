"""Networks with strong random weights, and their tensors under other people's names.

The names are spelled out here anew, and not taken from the converter's rules, so that one checks the other.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "golden"))
import fill  # noqa: E402, F401

METAFORMER_NAMES = {
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "mixer_residual.": "res_scale1.",
    "mlp_residual.": "res_scale2.",
    "mlp.activation.": "mlp.act.",
    "mixer.fc1.": "token_mixer.pwconv1.",
    "mixer.fc2.": "token_mixer.pwconv2.",
    "mixer.activation.": "token_mixer.act1.",
    "mixer.depthwise.": "token_mixer.dwconv.",
    "mixer.matrix": "token_mixer.random_matrix",
    "mixer.o_proj.": "token_mixer.proj.",
    "mixer.": "token_mixer.",
}
SMALL_VIT_NAMES = {
    "layernorm_before.": "0.norm.",
    "layernorm_after.": "1.norm.",
    "mlp.fc1.": "1.fn.net.0.",
    "mlp.fc2.": "1.fn.net.3.",
    "mixer.o_proj.": "0.fn.to_out.0.",
    "mixer.temperature": "0.fn.temperature",
    "mixer.class_key": "0.fn.k2",
    "mixer.key": "0.fn.k",
    "mixer.": "0.fn.to_",
}


@torch.no_grad()
def drawn(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in float64 with weights of a size that makes every part of it matter to the logits."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval()
    for parameter in network.parameters():
        if not parameter.requires_grad or not parameter.numel():
            continue  # a random matrix, whose rows sum to one; no registers
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.copy_(noise * 0.3 + 0.8 if parameter.dim() == 1 else noise * fan_in**-0.5)
    return network


@contextmanager
def interpolation_in_float64() -> Iterator[None]:
    """Let other libraries, which resize positions in float32 whatever their dtype, do so in float64.

    Their positions are to be numbers that float32 holds, see `drawn_in_float32`.
    """
    interpolate = nn.functional.interpolate
    with patch(
        "torch.nn.functional.interpolate", lambda maps, *args, **options: interpolate(maps.double(), *args, **options)
    ):
        yield


def drawn_in_float32(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return what `drawn` does, in float64 too, with weights that float32 holds as they are."""
    return drawn(network, seed).float().double()


@torch.no_grad()
def logits(network: nn.Module, images: torch.Tensor, **options) -> torch.Tensor:
    """Return the logits of a network of ours or of another library's, whose output they are."""
    output = network(images, **options)
    return getattr(output, "logits", output)


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    """Equal to a part of the largest number."""
    assert found.shape == expected.shape
    assert (found.double() - expected).abs().max() <= tolerance * expected.abs().max()
    assert expected.abs().max() > 0


def with_fused_projections(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Query, key and value projections in one, and CSKA's keys as the convolutions that they are."""
    fused = {}
    for name, tensor in tensors.items():
        mixer, _, leaf = name.rpartition("mixer.")
        if leaf.startswith(("q_proj.", "k_proj.", "v_proj.")):
            kind = leaf.rpartition(".")[2]
            parts = [part for part in "qkv" if f"{mixer}mixer.{part}_proj.{kind}" in tensors]
            chunks = [tensors[f"{mixer}mixer.{part}_proj.{kind}"] for part in parts]
            fused[f"{mixer}mixer.{''.join(parts)}.{kind}"] = torch.cat(chunks)
        elif leaf == "key" and f"{mixer}mixer.key_bias" in tensors:
            heads, positions, width = tensor.shape
            kernel = tensor.reshape(heads * positions, 3, 3, width // 9)
            fused[f"{mixer}mixer.to_k.weight"] = kernel.permute(0, 3, 1, 2).contiguous()
            fused[f"{mixer}mixer.to_k.bias"] = tensors[f"{mixer}mixer.key_bias"].flatten()
        elif leaf != "key_bias":
            fused[name] = tensor
    return fused


def renamed(name: str, table: dict[str, str]) -> str:
    """Return a name with its beginning replaced, by the first entry of the table that fits."""
    ours = next((ours for ours in table if name.startswith(ours)), None)
    return name if ours is None else table[ours] + name.removeprefix(ours)


def metaformer_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """An SKFormer's tensors under the names of MetaFormer's and the static-key authors."""
    theirs = {}
    for name, tensor in with_fused_projections(model.state_dict()).items():
        parts = name.removeprefix("skformer.").split(".")
        if parts[0] == "stem":
            name = f"downsample_layers.0.{'conv' if parts[1] == 'projection' else 'post_norm'}.{parts[2]}"
        elif parts[0] == "stages" and parts[2] == "downsampling":
            name = f"downsample_layers.{parts[1]}.{'conv' if parts[3] == 'projection' else 'pre_norm'}.{parts[4]}"
        elif parts[0] == "stages":
            block = renamed(".".join(parts[4:]), METAFORMER_NAMES).replace("token_mixer.key", "token_mixer.k")
            name = f"stages.{parts[1]}.{parts[3]}.{block}"
        elif parts[0] == "layernorm":
            name = f"norm.{parts[1]}"
        else:
            name = "head." + ".".join(parts[1:]).replace("layernorm", "norm")
        theirs[name] = tensor
    return theirs


def small_vit_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """An SKViT's tensors under the names of vit-pytorch's ViT for small data sets and the static-key authors."""
    outside = {
        "embeddings.position_embeddings": "pos_embedding",
        "embeddings.cls_token": "cls_token",
        "embeddings.patch_embeddings.layernorm.": "to_patch_embedding.to_patch_tokens.1.",
        "embeddings.patch_embeddings.projection.": "to_patch_embedding.to_patch_tokens.2.",
        "layernorm.": "mlp_head.0.",
        "classifier.": "mlp_head.1.",
    }
    theirs = {}
    for name, tensor in with_fused_projections(model.state_dict()).items():
        name = name.removeprefix("skvit.")
        if name.startswith("layers."):
            _, layer, inside = name.split(".", 2)
            inside = inside.replace("mixer.to_k.", "mixer.k.")
            name = f"transformer.layers.{layer}.{renamed(inside, SMALL_VIT_NAMES)}"
        else:
            name = renamed(name, outside)
        theirs[name] = tensor.reshape(()) if name.endswith("temperature") else tensor
    return theirs
