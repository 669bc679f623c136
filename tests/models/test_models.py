"""The contract of a transformers model, for every family and mixer."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sk_transformers import SKFormerBackbone, SKFormerModel, SKViTBackbone, SKViTModel
from sk_transformers.models import attention
from sk_transformers.models.configuration_checks import ATTENTION_MIXER_NAMES, SPATIAL_MIXER_NAMES
from sk_transformers.models.token_mixers import ATTENTION_MIXERS, SPATIAL_MIXERS

from ..support.small_models import ALL, FORMERS, VITS, small_config, small_model


def images(model, batch=2, **options):
    size = model.config.image_size
    return torch.randn(batch, model.config.num_channels, size, size, **options)


def attending_layers(config):
    if not config.has_stages:
        class_layers = ["attention"] * getattr(config, "num_class_layers", 0)
        return [mixer for mixer in config.token_mixers if mixer in ATTENTION_MIXER_NAMES] + class_layers
    return [
        m for m, depth in zip(config.token_mixers, config.depths) for _ in range(depth) if m in ATTENTION_MIXER_NAMES
    ]


def test_mixer_names_are_those_of_the_mixers():
    assert set(ATTENTION_MIXERS) == set(ATTENTION_MIXER_NAMES)
    assert set(SPATIAL_MIXERS) == set(SPATIAL_MIXER_NAMES)


@pytest.mark.parametrize("name", ALL)
def test_outputs(name):
    model = small_model(name)
    pixel_values = images(model)
    outputs = model(pixel_values, labels=torch.tensor([0, 2]), output_hidden_states=True, output_attentions=True)
    assert outputs.logits.shape == (2, 3)
    expected_loss = nn.functional.cross_entropy(outputs.logits, torch.tensor([0, 2]))
    torch.testing.assert_close(outputs.loss, expected_loss)
    assert len(outputs.attentions) == len(attending_layers(model.config))
    for weights in outputs.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
    plain = model(pixel_values, return_dict=False)
    assert isinstance(plain, tuple)
    torch.testing.assert_close(plain[0], outputs.logits)  # asked for attentions, it ran the plain formulation


def test_none_leaves_an_output_to_the_configuration():
    model = small_model("skvit")
    pixel_values, unsaid = images(model), {"output_hidden_states": None, "output_attentions": None, "return_dict": None}
    assert model(pixel_values, **unsaid).keys() == {"logits"}
    model.config.output_hidden_states = True
    assert model(pixel_values, **unsaid).keys() == {"logits", "hidden_states"}
    for network in (model, model.base_model):
        network.config.return_dict = False
        assert isinstance(network(pixel_values, **unsaid), tuple)


@pytest.mark.parametrize("name", ["skvit", "skcait", "window-former", "skswin", "cvt"])
@torch.no_grad()
def test_pickles_and_copies_record_the_same_outputs(name):
    model = small_model(name)
    pixel_values, asked = images(model), {"output_hidden_states": True, "output_attentions": True}
    expected = model(pixel_values, **asked)  # which leaves hooks in the model, closures
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model):
        found = again(pixel_values, **asked)
        torch.testing.assert_close(found.hidden_states, expected.hidden_states)
        torch.testing.assert_close(found.attentions, expected.attentions)


def test_pickles_and_copies_have_other_hooks():
    model = small_model("skvit")
    model(images(model), output_hidden_states=True)
    model.skvit.layers[1].register_forward_hook(count_calls)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        again(images(model))
        assert again.skvit.layers[1].calls == 1


def count_calls(module, args, output):
    module.calls = getattr(module, "calls", 0) + 1


@pytest.mark.parametrize("name", VITS)
def test_vit_shapes(name):
    model = SKViTModel(small_config(name)).eval()
    outputs = model(images(model), output_hidden_states=True)
    tokens = 16 + model.config.num_prefix_tokens
    assert outputs.last_hidden_state.shape == (2, tokens, 16)
    assert outputs.pooler_output.shape == (2, model.config.pooled_size)
    assert [h.shape for h in outputs.hidden_states] == [(2, tokens, 16)] * (model.config.num_hidden_layers + 1)
    last = outputs.hidden_states[-1]
    normalized = model.layernorm(last) if model.config.final_norm == "tokens" else last
    torch.testing.assert_close(normalized, outputs.last_hidden_state)


@pytest.mark.parametrize("name", FORMERS)
def test_former_shapes(name):
    model = SKFormerModel(small_config(name)).eval()
    outputs = model(images(model), output_hidden_states=True)
    shapes = [(2, 16, 16, 16), (2, 16, 16, 16), (2, 16, 8, 8), (2, 32, 4, 4), (2, 32, 2, 2)]
    assert [h.shape for h in outputs.hidden_states] == shapes
    assert outputs.last_hidden_state.shape == shapes[-1]
    assert outputs.pooler_output.shape == (2, 32)


@pytest.mark.parametrize(
    ("problem_type", "labels", "loss"),
    [
        (None, torch.tensor([1, 2]), nn.CrossEntropyLoss()),
        ("single_label_classification", torch.tensor([1, -100]), nn.CrossEntropyLoss()),
        ("multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 0, 0]]), nn.BCEWithLogitsLoss()),
        ("regression", torch.randn(2, 3), nn.MSELoss()),
    ],
)
@pytest.mark.parametrize("name", ["skvit", "skaformer"])
def test_losses(name, problem_type, labels, loss):
    model = small_model(name, problem_type=problem_type)
    outputs = model(images(model), labels=labels)
    torch.testing.assert_close(outputs.loss, loss(outputs.logits, labels))


@pytest.mark.parametrize("name", ["skvit", "skaformer"])
def test_labels_outside_the_range(name):
    model = small_model(name)
    with pytest.raises(ValueError, match=r"labels hold class 3, but the model has 3 classes, 0 to 2"):
        model(images(model), labels=torch.tensor([0, 3]))


@pytest.mark.parametrize("name", ["skvit", "skaformer"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :1], r"shape \(2, 1, \d+, \d+\), expected \(batch, 3, height, width\)"),
        (lambda x: x[0], r"shape \(3, \d+, \d+\), expected \(batch, 3, height, width\)"),
        (lambda x: x.to(torch.uint8), "torch.uint8, expected torch.float32: normalize"),
        (lambda x: x.half(), "torch.float16 but the model's weights are torch.float32"),
        (lambda x: None, "pixel_values is missing"),
    ],
)
def test_wrong_images(name, change, message):
    model = small_model(name)
    with pytest.raises(ValueError, match=message):
        model(change(images(model)))


# Training


@pytest.mark.parametrize("name", ALL)
def test_every_trainable_parameter_gets_a_gradient(name):
    model = small_model(name, drop_path_rate=0.1).train()
    model(images(model, batch=8), labels=torch.arange(8) % 3).loss.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


@pytest.mark.parametrize("name", ["cskvit-small-data", "cskaformer", "window-former", "sparse-vit"])
def test_checkpointed_gradients_are_equal(name):
    model = small_model(name, drop_path_rate=0.5).train()
    pixel_values, labels = images(model, batch=4), torch.arange(4) % 3
    gradients = []
    for checkpointing in (False, True):
        (model.gradient_checkpointing_enable if checkpointing else model.gradient_checkpointing_disable)()
        model.zero_grad()
        torch.manual_seed(1)
        model(pixel_values, labels=labels).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


@pytest.mark.parametrize("name", ["skvit", "cskaformer"])
def test_checkpointing_keeps_fewer_activations(name):
    """The bytes that autograd saves for the backward pass, counted."""
    overrides = {"num_hidden_layers": 6} if name in VITS else {"depths": [2, 4, 4, 2]}
    model = small_model(name, **overrides).train()
    pixel_values = images(model, batch=4)

    def saved_bytes():
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(pixel_values)
        return sum(storages.values()) - sum(p.nbytes for p in model.parameters())

    plain = saved_bytes()
    model.gradient_checkpointing_enable()
    assert saved_bytes() < plain / 3


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    from sk_transformers.models.layers import DropPath

    drop_path = DropPath(0.25)
    branch = torch.ones(4000, 3, 2)
    dropped = drop_path(branch)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (dropped == dropped[:, :1, :1]).all()
    assert abs(dropped.mean() - 1) < 0.03
    assert torch.equal(drop_path.eval()(branch), branch)


def test_drop_path_grows_linearly():
    model = small_model("skvit", num_hidden_layers=3, drop_path_rate=0.2)
    assert [layer.drop_path.rate for layer in model.skvit.layers] == [0.0, 0.1, 0.2]
    model = small_model("skaformer", drop_path_rate=0.4)
    rates = [layer.drop_path.rate for stage in model.skformer.stages for layer in stage.layers]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


# Initialization


@pytest.mark.parametrize("name", ALL)
def test_seeded_initialization(name):
    torch.manual_seed(3)
    first = small_model(name).state_dict()
    torch.manual_seed(3)
    second = small_model(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_initialization_is_sensible():
    model = small_model("cskvit-small-data", hidden_size=64, image_size=32)
    for name, parameter in model.named_parameters():
        if name.endswith("class_key"):
            assert abs(parameter.std() - 1) < 0.05, name
        elif name.endswith("temperature"):
            assert parameter.exp().item() == pytest.approx(32**-0.5), name
        elif "layernorm" in name and name.endswith("weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            assert 0.015 < parameter.std() < 0.025, name
    static = small_model("skvit", image_size=32)
    assert all(abs(layer.mixer.key.std() - 1) < 0.05 for layer in static.skvit.layers)


def test_initializer_range_is_that_of_every_drawn_weight():
    model = small_model("cskvit-small-data", hidden_size=64, image_size=32, initializer_range=0.5)
    parameters = {n: p for n, p in model.named_parameters() if p.numel() > 1 and not n.endswith("class_key")}
    drawn = {name: parameter.std() for name, parameter in parameters.items() if parameter.std() > 0}
    assert any("mixer.key" in name for name in drawn) and any("cls_token" in name for name in drawn)
    assert all(0.35 < std < 0.6 for std in drawn.values())


def test_an_activation_with_a_parameter():
    with torch.device("meta"):
        model = SKViTModel(small_config("skvit", hidden_act="prelu"))
    model.to_empty(device="cpu").init_weights()
    assert all(layer.mlp.activation.weight == 0.25 for layer in model.layers)


@pytest.mark.parametrize("name", ALL)
def test_from_pretrained_builds_on_meta_and_restores_everything(name, tmp_path):
    model = small_model(name)
    with torch.device("meta"):
        assert all(p.is_meta for p in type(model)(model.config).parameters())
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert {n: p.requires_grad for n, p in loaded.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    pixel_values = images(model)
    torch.testing.assert_close(loaded(pixel_values).logits, model(pixel_values).logits)


@pytest.mark.parametrize("name", ["cskvit-small-data", "cskaformer"])
def test_head_swap(name, tmp_path):
    model = small_model(name)
    model.save_pretrained(tmp_path)
    swapped = type(model).from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert swapped(images(model)).logits.shape == (2, 7)
    last = (swapped.classifier.fc2 if name in FORMERS else swapped.classifier).weight
    assert 0.01 < last.std() < 0.03
    kept = swapped.base_model.state_dict()
    assert all(torch.equal(kept[n], p) for n, p in model.base_model.state_dict().items())


# Ways to run


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_attention_implementations_agree(name):
    model = small_model(name).double()
    pixel_values = images(model, dtype=torch.float64)
    logits = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        logits[implementation] = model(pixel_values).logits
    torch.testing.assert_close(logits["sdpa"], logits["eager"], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skvit-small-data", "vit-small-data", "vit", "cskaformer", "window-former"])
@torch.no_grad()
def test_flex_attention(name):
    model = small_model(name)
    pixel_values = images(model)
    expected = model(pixel_values).logits
    model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(model(pixel_values).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_half_precision(name, dtype):
    model = small_model(name)
    pixel_values = images(model)
    expected = model(pixel_values).logits
    with torch.autocast("cpu", dtype=dtype):
        torch.testing.assert_close(model(pixel_values).logits.float(), expected, rtol=0.1, atol=0.1)
    model.to(dtype)
    logits = model(pixel_values.to(dtype)).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("has_tile_units, most_weights", [(False, 0), (True, 0), (True, 1000)])
def test_training_in_bfloat16_on_either_kind_of_cpu(has_tile_units, most_weights, monkeypatch):
    """Gradients are those of float32, and the kernel runs on large grids where the CPU has units for it."""
    kernel_runs = []
    monkeypatch.setattr(attention, "MOST_WEIGHTS_WITH_TILES", most_weights)
    fused = attention.fused_attention
    monkeypatch.setattr(attention, "HAS_TILE_UNITS", has_tile_units)
    monkeypatch.setattr(attention, "fused_attention", lambda *args: kernel_runs.append(1) or fused(*args))
    model = small_model("skvit").train()
    pixel_values, labels = images(model), torch.tensor([0, 1])
    key = model.get_submodule("skvit.layers.0.mixer").key
    model(pixel_values, labels=labels).loss.backward()
    expected, key.grad = key.grad, None
    kernel_runs.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(pixel_values, labels=labels).loss.backward()
    assert bool(kernel_runs) == (has_tile_units and not most_weights)
    torch.testing.assert_close(key.grad, expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=["32", "16"])
@torch.no_grad()
def test_compile_in_one_graph(name, dtype, tolerance):
    """The graph is traced whole; the golden cases are compiled to machine code."""
    model = small_model(name).to(dtype)
    pixel_values = images(model).to(dtype)
    expected = model(pixel_values).logits
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pixel_values).logits, expected, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.slow
def test_compiled_training_step():
    model = small_model("cskvit-small-data").train()
    pixel_values, labels = images(model), torch.tensor([0, 1])
    model(pixel_values, labels=labels).loss.backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(pixel_values, labels=labels).loss.backward()
    for parameter, gradient in zip(model.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skvit", "cskaformer"])
def test_compiled_training_step_in_bfloat16(name):
    """One graph, also where products take the place of the kernel by the kind of CPU."""
    model = small_model(name).train()
    pixel_values, labels = images(model), torch.tensor([0, 1])
    gradients = []
    for network in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network(pixel_values, labels=labels).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_export_with_any_batch(name):
    model = small_model(name)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images(model),), dynamic_shapes={"pixel_values": {0: batch}})
    pixel_values = images(model, batch=5)
    torch.testing.assert_close(program.module()(pixel_values).logits, model(pixel_values).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cskvit", "cskaformer"])
def test_device_map(name, tmp_path):
    pytest.importorskip("accelerate")
    model = small_model(name)
    model.save_pretrained(tmp_path / "model")
    pixel_values = images(model)
    automatic = type(model).from_pretrained(tmp_path / "model", device_map="auto")
    torch.testing.assert_close(automatic(pixel_values).logits, model(pixel_values).logits)
    prefix = model.base_model_prefix
    parts = ["embeddings", "layers.0", "layernorm"] if name in VITS else ["stem", "stages.0", "stages.2", "layernorm"]
    on_disk = ["layers.1"] if name in VITS else ["stages.1", "stages.3"]
    device_map = {f"{prefix}.{part}": "cpu" for part in parts} | {f"{prefix}.{part}": "disk" for part in on_disk}
    offloaded = type(model).from_pretrained(
        tmp_path / "model", device_map=device_map | {"classifier": "cpu"}, offload_folder=tmp_path / "offload"
    )
    torch.testing.assert_close(offloaded(pixel_values).logits, model(pixel_values).logits)


@pytest.mark.parametrize("name", ["cskvit", "skaformer"])
def test_lora_on_the_projections(name):
    peft = pytest.importorskip("peft")
    model = small_model(name)
    pixel_values = images(model)
    before = model(pixel_values).logits
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    torch.testing.assert_close(adapted(pixel_values).logits, before)
    adapted(pixel_values, labels=torch.tensor([0, 1])).loss.backward()
    trained = [n for n, p in adapted.named_parameters() if p.grad is not None]
    assert trained and all("lora" in n or "classifier" in n for n in trained)


# Backbones


@pytest.mark.parametrize("out", [{"out_features": ["stage1", "stage2"]}, {"out_indices": [0, 2]}, {}])
@pytest.mark.parametrize("name", ["cskvit", "vit", "skvit-mean"])
def test_vit_backbone(name, out):
    backbone = SKViTBackbone(small_config(name, **out)).eval()
    outputs = backbone(torch.randn(2, 3, 24, 20), output_hidden_states=True)
    first = int(backbone.config.pooling == "cls")
    assert backbone.channels == [16] * len(backbone.out_features)
    assert len(outputs.feature_maps) == len(backbone.out_features)
    for stage, feature_map in zip(backbone.out_indices, outputs.feature_maps):
        assert feature_map.shape == (2, 16, 6, 5)
        tokens = backbone.skvit.layernorm(outputs.hidden_states[stage])[:, first:]
        assert torch.equal(feature_map, tokens.transpose(1, 2).reshape(2, 16, 6, 5))


@pytest.mark.parametrize("out", [{"out_features": ["stage1", "stage4"]}, {"out_indices": [0, 2, 3]}, {}])
@pytest.mark.parametrize("name", FORMERS)
def test_former_backbone(name, out):
    backbone = SKFormerBackbone(small_config(name, **out)).eval()
    outputs = backbone(torch.randn(2, 3, 96, 64))
    strides = {"stem": 4, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
    assert len(outputs.feature_maps) == len(backbone.out_features) == len(backbone.channels)
    for stage, channels, feature_map in zip(backbone.out_features, backbone.channels, outputs.feature_maps):
        assert feature_map.shape == (2, channels, 96 // strides[stage], 64 // strides[stage])
        torch.testing.assert_close(feature_map.mean(1), torch.zeros_like(feature_map.mean(1)), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone_class"), [("skvit", SKViTBackbone), ("cskaformer", SKFormerBackbone)])
@torch.no_grad()
def test_backbone_compiles_in_one_graph_at_its_first_call(name, backbone_class):
    """Its maps are recorded by hooks, which have to be there before it is traced, after a pickle as well."""
    backbone = backbone_class(small_config(name)).eval()
    pixel_values, again = images(backbone), pickle.loads(pickle.dumps(backbone))
    found = torch.compile(again, fullgraph=True, backend="eager")(pixel_values).feature_maps
    torch.testing.assert_close(found, backbone(pixel_values).feature_maps)


@pytest.mark.parametrize("name", ["cskvit", "cskaformer"])
def test_backbone_takes_a_classifiers_weights(name, tmp_path):
    model = small_model(name)
    model.save_pretrained(tmp_path)
    backbone_class = SKViTBackbone if name in VITS else SKFormerBackbone
    backbone, report = backbone_class.from_pretrained(
        tmp_path, out_features=["stage1", "stage2"], output_loading_info=True
    )
    assert backbone.out_indices == [1, 2]
    assert all(key.startswith("feature_norms") for key in report["missing_keys"])
    pixel_values = images(model)
    expected = model(pixel_values, output_hidden_states=True).hidden_states
    found = backbone(pixel_values, output_hidden_states=True).hidden_states
    for map_found, map_expected in zip(found, expected, strict=True):
        torch.testing.assert_close(map_found, map_expected, rtol=1e-5, atol=1e-7)
