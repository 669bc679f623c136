"""Which parameters decay and how fast each layer learns, against the names; the learning rate, against formulas."""

import math
from collections import Counter

import pytest
import torch

from sk_transformers import create_model, list_models
from sk_transformers.training.optimization import Schedule, kind_of, layer_indices, make_optimizer, parameter_groups
from sk_transformers.training.options import OptimizationOptions, ScheduleOptions


@pytest.mark.parametrize("name", list_models("nano"))
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_parameter_is_optimized_once(name, layer_decay):
    model = create_model(name)
    groups = parameter_groups(model, 0.1, layer_decay=layer_decay)
    counts = Counter(id(parameter) for group in groups for parameter in group["params"])
    assert counts == {id(parameter): 1 for parameter in model.parameters()}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "cskvit-nano-patch4-32",
            {
                "skvit.embeddings.cls_token": 0,
                "skvit.embeddings.position_embeddings": 0,
                "skvit.embeddings.patch_embeddings.projection.weight": 0,
                "skvit.layers.0.mixer.key": 1,
                "skvit.layers.0.mixer.class_key": 1,
                "skvit.layers.3.mlp.fc2.bias": 4,
                "skvit.layernorm.weight": 5,
                "classifier.weight": 5,
            },
        ),
        (
            "cskaformer-nano",
            {
                "skformer.stem.projection.weight": 0,
                "skformer.stages.0.layers.0.mixer.activation.scale": 1,
                "skformer.stages.1.downsampling.projection.weight": 2,
                "skformer.stages.1.layers.0.mixer.key_bias": 2,
                "skformer.stages.3.layers.0.mlp_residual.scale": 4,
                "skformer.layernorm.bias": 5,
                "classifier.fc1.weight": 5,
            },
        ),
        (
            "skcait-nano-patch4-32",
            {
                "skcait.embeddings.position_embeddings": 0,
                "skcait.layers.3.mixer.talking_heads.before.weight": 4,
                "skcait.pooler.cls_token": 5,
                "skcait.pooler.class_layers.0.mixer.q_proj.weight": 5,
                "classifier.weight": 5,
            },
        ),
        (
            "skcvt-nano",
            {
                "skcvt.stem.projection.weight": 0,
                "skcvt.stages.0.layers.0.mixer.convolutions.q.depthwise.weight": 1,
                "skcvt.stages.1.downsampling.projection.weight": 2,
                "skcvt.stages.2.class_token.cls_token": 3,
                "skcvt.stages.2.layers.1.mixer.convolutions.v.batchnorm.weight": 4,
                "skcvt.layernorm.bias": 5,
                "classifier.weight": 5,
            },
        ),
        (
            ("skswin-nano", {"depths": [2, 1, 1]}),
            {
                "skswin.stem.projection.weight": 0,
                "skswin.stem.norm_after.bias": 0,
                "skswin.stages.0.layers.1.mixer.key": 2,
                "skswin.stages.1.downsampling.projection.weight": 3,
                "skswin.stages.1.layers.0.mixer.attention_bias.bias": 3,
                "skswin.stages.2.layers.0.mlp.fc1.weight": 4,
                "skswin.layernorm.bias": 5,
                "classifier.weight": 5,
            },
        ),
    ],
)
def test_layers_are_counted_from_the_image(model, expected):
    name, overrides = (model, {}) if isinstance(model, str) else model
    model = create_model(name, **overrides)
    indices, last = layer_indices(model)
    assert last == 5 and {name: indices[name] for name in expected} == expected
    scales = {
        id(parameter): group["lr_scale"]
        for group in parameter_groups(model, 0.1, layer_decay=0.5)
        for parameter in group["params"]
    }
    named = dict(model.named_parameters())
    assert all(scales[id(named[name])] == 0.5 ** (5 - index) for name, index in expected.items())


@pytest.mark.parametrize("exempt", [("norms", "biases", "positions"), ("keys",), ()])
def test_weight_decay_leaves_out_what_it_is_told(exempt):
    model = create_model("cskvit-nano-patch4-32", attention_bias="full")
    decays = {
        id(parameter): group["weight_decay"]
        for group in parameter_groups(model, 0.1, exempt)
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        kind = (
            "positions" if "position" in name or "token" in name
            else "biases" if name.endswith("bias")
            else "keys" if name.endswith("key")
            else "norms" if "norm" in name
            else "weights"
        )  # fmt: skip
        assert kind_of(name, parameter) == kind
        assert decays[id(parameter)] == (0.0 if kind in exempt else 0.1), name


@pytest.mark.parametrize("name", ["adamw", "adam", "lamb", "sgd", "lion"])
def test_optimizers_of_timm_take_a_step(name):
    model = create_model("skaformer-nano")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make_optimizer(OptimizationOptions(opt=name), model, 0.01)
    model(pixel_values=torch.randn(2, 3, 64, 64), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters()))


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="--opt adamv is not an optimizer of timm: expected one such as adamw"):
        make_optimizer(OptimizationOptions(opt="adamv"), create_model("skaformer-nano"), 0.01)


def rates(given, steps=20, per_epoch=5, scale=1.0):
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr_scale": scale}], lr=2.0)
    schedule = Schedule(ScheduleOptions(**given), optimizer, 2.0, per_epoch, steps)
    return [schedule.set(step) for step in range(steps)]


def cosine(step, steps=20):
    return 0.02 + 0.5 * (2 - 0.02) * (1 + math.cos(math.pi * step / steps))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"warmup_steps": 0}, cosine),
        ({"warmup_steps": 4}, lambda t: 0.02 + t * 1.98 / 4 if t < 4 else cosine(t)),
        ({"warmup_epochs": 2}, lambda t: 0.02 + t * 1.98 / 10 if t < 10 else cosine(t)),
        ({"warmup_steps": 0, "schedule": "linear"}, lambda t: 2 - 1.98 * t / 20),
        ({"warmup_steps": 0, "schedule": "constant"}, lambda t: 2.0),
        ({"warmup_steps": 0, "cooldown_epochs": 1}, lambda t: cosine(t, 15) if t < 15 else 0.02),
        ({"warmup_steps": 0, "schedule_by": "epoch"}, lambda t: cosine(t // 5 * 5)),
    ],
)
def test_learning_rates(given, expected):
    assert rates(given) == pytest.approx([expected(step) for step in range(20)])
    assert rates(given, scale=0.5) == pytest.approx([expected(step) / 2 for step in range(20)])
