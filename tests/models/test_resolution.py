"""Images of other sizes than the one that a network was made for."""

import pytest
import torch

from sk_transformers import create_model
from sk_transformers.models.grids import resize_grid

from ..support.small_models import CAITS, FORMERS, VITS, small_model


@pytest.mark.parametrize("name", FORMERS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 64), (97, 65), (32, 129)])
@torch.no_grad()
def test_former_takes_any_size(name, size):
    model = small_model(name)
    logits = model(torch.randn(1, 3, *size)).logits
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["skaformer", "cskaformer"])
def test_former_refuses_tiny_images(name):
    with pytest.raises(ValueError, match="31x40 pixels, expected at least 32x32"):
        small_model(name)(torch.randn(1, 3, 31, 40))


@torch.no_grad()
def test_a_finer_stem_takes_smaller_images():
    model = create_model("cskaformer-micro-32").eval()
    maps = model(torch.randn(1, 3, 32, 32), output_hidden_states=True).hidden_states
    assert [tuple(stage.shape[2:]) for stage in maps] == [(16, 16), *model.config.grid_sizes]
    assert model(torch.randn(1, 3, 16, 24)).logits.isfinite().all()
    with pytest.raises(ValueError, match="15x16 pixels, expected at least 16x16"):
        model(torch.randn(1, 3, 15, 16))


@pytest.mark.parametrize("name", [*VITS, *CAITS])
@pytest.mark.parametrize("size", [(4, 4), (8, 20), (24, 12)])
@torch.no_grad()
def test_vit_takes_any_multiple_of_its_patch(name, size):
    model = small_model(name)
    pixel_values = torch.randn(1, 3, *size)
    assert model(pixel_values, interpolate_pos_encoding=True).logits.isfinite().all()
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} pixels, but this model was made for 16x16.*True"):
        model(pixel_values)


@pytest.mark.parametrize("size", [(18, 16), (3, 3)])
def test_vit_refuses_parts_of_a_patch(size):
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} pixels, expected a multiple of the patch size 4x4"):
        small_model("skvit")(torch.randn(1, 3, *size), interpolate_pos_encoding=True)


def resized_state(model, resized):
    """The weights of `model` with everything that has a row for each position resized by hand."""
    state = {}
    for name, tensor in model.state_dict().items():
        new_shape = resized.state_dict()[name].shape
        if tensor.shape != new_shape:
            mixer = resized.get_submodule(name.rpartition(".")[0])
            old_mixer = model.get_submodule(name.rpartition(".")[0])
            num_class_tokens = getattr(mixer, "num_class_tokens", 0)
            tensor = resize_grid(tensor, old_mixer.grid_size, mixer.grid_size, num_class_tokens)
        state[name] = tensor
    return state


@pytest.mark.parametrize("name", ["skvit", "cskvit", "cskvit-small-data", "skvit-mean", "skaformer", "cskaformer"])
@torch.no_grad()
def test_resized_network_is_the_network_made_for_that_size(name):
    model = small_model(name).double()
    size = (24, 12) if name in VITS else (96, 40)
    resized = small_model(name, image_size=list(size)).double()
    resized.load_state_dict(resized_state(model, resized))
    pixel_values = torch.randn(2, 3, *size, dtype=torch.float64)
    options = {"interpolate_pos_encoding": True} if name in VITS else {}
    torch.testing.assert_close(
        model(pixel_values, **options).logits, resized(pixel_values).logits, rtol=1e-9, atol=1e-9
    )


def test_gradients_reach_everything_on_another_size():
    for name in ("cskvit-small-data", "window-former"):
        model = small_model(name).train()
        options = {"interpolate_pos_encoding": True} if name in VITS else {}
        size = (8, 20) if name in VITS else (80, 72)
        model(torch.randn(4, 3, *size), labels=torch.arange(4) % 3, **options).loss.backward()
        assert all(p.grad is not None for p in model.parameters())


@torch.no_grad()
def test_windows_and_interpolation_agree_on_the_trained_size():
    window = small_model("window-former").double()
    interpolate = small_model("window-former", static_key_resolution="interpolate").double()
    interpolate.load_state_dict(window.state_dict())
    pixel_values = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert torch.equal(window(pixel_values).logits, interpolate(pixel_values).logits)


@torch.no_grad()
def test_attention_weights_of_windows():
    model = small_model("window-former", token_mixers=["static_key"] * 4)
    attentions = model(torch.randn(2, 3, 128, 65), output_attentions=True).attentions
    # 128x65 pixels are maps of 32x16, 16x8, 8x4 and 4x2 positions in windows of 16x16, 8x8, 4x4 and 2x2.
    assert [tuple(w.shape) for w in attentions] == [
        (4, 2, 256, 256), (4, 2, 64, 64), (4, 2, 64, 64), (4, 4, 16, 16), (4, 4, 4, 4),
    ]  # fmt: skip


@pytest.mark.slow
@torch.no_grad()
def test_compile_and_export_on_another_size():
    for name, size in (("cskvit", (24, 12)), ("cskaformer", (96, 40)), ("window-former", (96, 40))):
        model = small_model(name)
        pixel_values = torch.randn(2, 3, *size)
        options = {"interpolate_pos_encoding": True} if name in VITS else {}
        expected = model(pixel_values, **options).logits
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(pixel_values, **options).logits, expected, rtol=1e-4, atol=1e-5)
        program = torch.export.export(model, (pixel_values,), options)
        found = program.module()(pixel_values, **options).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
