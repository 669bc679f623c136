"""Sigma reparametrization beside the authors' layer, and that nothing else changes by it."""

import json

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from sk_transformers import create_model
from sk_transformers.cli.evaluate import main as evaluate
from sk_transformers.pretrained import load_classifier
from sk_transformers.training.optimization import kind_of
from sk_transformers.training.spectral_reparam import SpectralReparam, add_spectral_reparam, advance, fold

from ..support.networks import assert_close, drawn, fill, logits
from ..support.small_models import small_model
from ..support.training import EVERYTHING, QUICK, assert_same_runs, dying_at, finetune, metrics_of


def reparametrized(layer, gamma):
    """A layer of the case: the authors start from the exact singular vector, and with a gamma of their own."""
    add_spectral_reparam(layer, [])
    reparam = layer.parametrizations.weight[0]
    weight = layer.parametrizations.weight.original
    with torch.no_grad():
        reparam.u.copy_(torch.linalg.svd(weight.flatten(1))[2][:1])
        reparam.gamma.fill_(gamma)
    return layer, reparam, weight


def test_a_linear_layer_is_the_authors():
    case, expected = fill.load_case("sigma_reparam_layer")
    tensors, tokens = fill.state_dict(case), fill.pixel_values(case)
    layer = nn.Linear(24, 40).double()
    layer.load_state_dict({name: tensors[name] for name in ("weight", "bias")})
    layer, reparam, weight = reparametrized(nn.Sequential(layer)[0], case["gamma"])

    def call(number):
        assert_close(reparam.sigma(reparam.as_matrices(weight)), expected[f"sigma{number}"])
        output = layer(tokens)
        advance(layer)
        return output

    assert_close(call(1), expected["y1"])
    with torch.no_grad():
        weight += 0.5 * tensors["perturbation"]
    output = call(2)
    assert_close(output, expected["y2"])
    (output * tensors["cotangent"]).sum().backward()
    assert_close(weight.grad, expected["grad_weight"])
    assert_close(layer.bias.grad, expected["grad_bias"])
    assert_close(reparam.gamma.grad, expected["grad_gamma"])
    assert_close(call(3), expected["y3"])
    kept = reparam.u.clone()
    assert_close(layer.eval()(tokens), expected["y4_eval"])
    assert torch.equal(reparam.u, kept)


def test_a_convolution_is_the_authors():
    case, expected = fill.load_case("sigma_reparam_layer")
    tensors = fill.state_dict(case)
    layer = nn.Conv2d(3, 16, 4, stride=4).double()
    weight = tensors["conv.weight"].view(16, 3, 4, 4)
    layer.load_state_dict({"weight": weight, "bias": tensors["conv.bias"]})
    layer, _, _ = reparametrized(layer, case["conv_gamma"])
    images = fill.pixel_values({"input_seed": case["conv_input_seed"], "input_shape": case["conv_input_shape"]})
    assert_close(layer(images), expected["conv"])


@pytest.mark.parametrize(
    ("shape", "groups", "gammas"), [((6, 5), 1, 1), ((6, 3, 2, 2), 1, 1), ((6, 1, 3, 3), 6, 6), ((4, 3, 2, 2), 2, 2),
                                    ((3, 16, 8), 1, 3)]
)  # fmt: skip
def test_each_gamma_is_a_spectral_norm(shape, groups, gammas):
    """Of a matrix, of each group of a convolution, of each head of a static key; the weight's own scale is lost."""
    weight = torch.randn(shape, dtype=torch.float64)
    reparam = SpectralReparam(weight, groups)
    matrices = reparam.as_matrices(weight)
    assert_close(reparam.gamma, torch.linalg.matrix_norm(matrices, ord=2), 1e-3)
    assert_close(reparam(weight), weight)  # nothing changes at the start
    with torch.no_grad():
        reparam.gamma.copy_(torch.arange(1, gammas + 1))
    for _ in range(200):
        reparam.advance(weight)
    for scaled in (weight, 7 * weight):
        norms = torch.linalg.matrix_norm(reparam.as_matrices(reparam(scaled)), ord=2)
        assert_close(norms, torch.arange(1, gammas + 1, dtype=torch.float64), 1e-6)


@pytest.mark.parametrize("name", ["bias-vit", "dinov3", "skaformer", "cskaformer"])
def test_a_network_is_as_it_was_and_folds(name):
    model = drawn(small_model(name))
    side = model.config.image_size
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    names, before = set(model.state_dict()), logits(model, images)
    add_spectral_reparam(model, [])
    assert_close(logits(model, images), before)
    assert not parametrize.is_parametrized(model.classifier)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(images, labels=torch.tensor([0, 2])).loss.backward()
    advance(model)
    optimizer.step()
    trained = logits(model.eval(), images)
    assert not torch.allclose(trained, before)
    fold(model)
    assert set(model.state_dict()) == names
    assert_close(logits(model, images), trained)


def test_kinds_of_parameters_stay():
    model = small_model("cskvit")
    kinds = {name: kind_of(name, parameter) for name, parameter in model.named_parameters()}
    add_spectral_reparam(model, [])
    for name, parameter in model.named_parameters():
        if name.endswith(".original"):
            assert kind_of(name, parameter) == kinds[name.replace("parametrizations.", "").removesuffix(".original")]
        elif name.endswith(".gamma"):
            assert kind_of(name, parameter) == "norms"


def test_patterns_choose_modules():
    model = small_model("skvit")
    add_spectral_reparam(model, ["*mlp.fc1", "*layers.0.mixer"])
    chosen = {name for name, module in model.named_modules() if parametrize.is_parametrized(module)}
    assert chosen == {"skvit.layers.0.mlp.fc1", "skvit.layers.1.mlp.fc1", "skvit.layers.0.mixer"}
    with pytest.raises(ValueError, match="--spectral_reparam nothing: no linear layer.* such as skvit.layers"):
        add_spectral_reparam(small_model("skvit"), ["nothing"])


@pytest.mark.slow
def test_a_run_resumes_exactly_and_exports_plain_weights(tmp_path):
    options = [*EVERYTHING, "--spectral_reparam", "--gradient_checkpointing", "--num_train_epochs", 2]
    whole = finetune(*options, "--output_dir", tmp_path / "whole")

    with dying_at(9):
        finetune(*options, "--output_dir", tmp_path / "died")
    resumed = finetune(*options, "--output_dir", tmp_path / "died", "--resume_from_checkpoint", "latest")
    assert_same_runs(resumed, whole, step=12)
    model, _ = load_classifier(str(whole / "model"))
    assert set(model.state_dict()) == set(create_model("skvit-nano-patch4-32", num_hidden_layers=1).state_dict())


@pytest.mark.slow
def test_a_run_reports_the_network_that_it_exports(tmp_path):
    run = finetune(*QUICK, "--spectral_reparam", "--num_train_epochs", 2, "--output_dir", tmp_path / "run")
    evaluate(["--model", str(run / "model"), "--dataset", "digits", "--max_eval_samples", "60", "--output_dir",
          str(tmp_path / "evaluation")])  # fmt: skip
    found = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert found["top1"] == pytest.approx(metrics_of(run)["best"]["top1"])


@pytest.mark.parametrize("option", [["--lora_rank", 2], ["--freeze_backbone"]])
def test_it_does_not_go_with_weights_that_are_not_trained(tmp_path, option):
    with pytest.raises(ValueError, match=f"goes with weights that are trained, not with {option[0]}"):
        finetune(*QUICK, "--spectral_reparam", *option, "--output_dir", tmp_path / "run")
