"""The switch of all fast paths, and that no module changes what it was given."""

import copy

import pytest
import torch
from torch import nn

from sk_transformers.models import fast_attention_cpu, fast_mlp
from sk_transformers.models.fast_paths import use_fast_paths

from ..support.small_models import ALL, small_model


@pytest.fixture
def plain_way():
    assert use_fast_paths()
    use_fast_paths(False)
    yield
    use_fast_paths(True)


def images(model):
    config = model.config
    size = config.image_size if isinstance(config.image_size, list | tuple) else [config.image_size] * 2
    return torch.randn(2, config.num_channels, *size, dtype=model.dtype)


@pytest.mark.parametrize("name", ALL)
def test_the_plain_way_gives_the_same_and_takes_no_fast_path(name, monkeypatch, plain_way):
    model = small_model(name).double().train()
    pixel_values, labels = images(model), torch.tensor([0, 1])
    results, state = [], copy.deepcopy(model.state_dict())
    for enabled in (True, False):
        model.load_state_dict(state)  # training moves the statistics of batch norms
        use_fast_paths(enabled)
        if not enabled:
            for module, function in ((fast_attention_cpu, "tiled_attention"), (fast_mlp, "in_place_of")):
                monkeypatch.setattr(module, function, lambda *_: pytest.fail("a fast path was taken"))
            monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", lambda *_, **__: pytest.fail("sdpa ran"))
        torch.manual_seed(0)
        outputs = model(pixel_values, labels=labels)
        gradients = torch.autograd.grad(outputs.loss, list(model.parameters()))
        with torch.no_grad():
            results.append([outputs.logits, model.eval()(pixel_values).logits, *gradients])
        model.train()
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("name", ALL)
def test_what_hooks_keep_is_what_modules_returned(name, grad):
    """Kept outputs and inputs are those of the plain way after the pass too, for every mixer and activation."""
    model = small_model(name).double()
    pixel_values = images(model)

    def run_with_hooks(module_of_interest=None):
        kept, handles = [], []
        for module_name, module in model.named_modules():
            if module_of_interest in (None, module_name):
                handles.append(
                    module.register_forward_hook(
                        lambda module, args, output: kept.extend(t for t in (*args, output) if torch.is_tensor(t))
                    )
                )
        with torch.set_grad_enabled(grad):
            model(pixel_values)
        for handle in handles:
            handle.remove()
        return kept

    def plainly(module_of_interest):
        use_fast_paths(False)
        try:
            return [tensor.clone() for tensor in run_with_hooks(module_of_interest)]
        finally:
            use_fast_paths(True)

    # One module at a time, since a hook turns the fast path of its neighbors off.
    for module_name, module in model.named_modules():
        if isinstance(module, nn.Linear) or "activation" in module_name or module_name.endswith(("mlp", "mixer")):
            for kept, right in zip(run_with_hooks(module_name), plainly(module_name), strict=True):
                torch.testing.assert_close(kept, right, rtol=1e-9, atol=1e-9)
