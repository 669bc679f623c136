"""What a run starts from: networks by name, or from a folder at another size."""

import pytest
import torch

from sk_transformers import create_model
from sk_transformers.hub import export
from sk_transformers.image_processing import image_processor_for
from sk_transformers.pretrained import at_image_size, load_base_model, load_classifier, load_model
from sk_transformers.training.options import parse_overrides

LABELS = dict(enumerate("abc"))


@pytest.fixture(scope="module", params=["cskvit-nano-patch4-32", "skaformer-nano"])
def repo(request, tmp_path_factory):
    torch.manual_seed(0)
    model = create_model(request.param, id2label=LABELS, image_size=32)
    folder = export(model, image_processor_for(model.config.image_size), tmp_path_factory.mktemp("models") / "model")
    return folder, model.eval()


def test_another_image_size_resizes_positions_and_keys(repo):
    folder, model = repo
    resized, processor = load_model(str(folder), LABELS, image_size=64)
    assert resized.config.image_size == 64
    assert 64 in dict(processor.size).values()
    images = torch.randn(2, 3, 64, 64)
    options = {"interpolate_pos_encoding": True} if model.config.model_type == "skvit" else {}
    with torch.no_grad():
        expected = model(images, **options).logits  # which resizes them each time
        torch.testing.assert_close(resized.eval()(images).logits, expected, rtol=1e-4, atol=1e-5)


def test_a_network_of_windows_takes_other_images_as_it_is():
    model = create_model("skaformer-nano", id2label=LABELS, static_key_resolution="window")
    same, processor = at_image_size(model, image_processor_for(64), [64, 96])
    assert same is model and processor.size == {"height": 64, "width": 96}


def test_other_networks_stay_at_their_size():
    with pytest.raises(ValueError, match="--image_size 64: a Linear is none of this package's networks"):
        at_image_size(torch.nn.Linear(1, 1), image_processor_for(32), 64)


def test_weights_in_16_bits_are_loaded_in_32(tmp_path):
    half = create_model("skvit-nano-patch4-32", id2label=LABELS).half()
    folder = str(export(half, image_processor_for(32), tmp_path / "half"))
    for loaded, _ in (load_classifier(folder), load_model(folder, LABELS), load_base_model(folder)):
        assert loaded.dtype == loaded.config.dtype == torch.float32
    kept = half.state_dict()
    for name, tensor in load_classifier(folder)[0].state_dict().items():
        assert torch.equal(tensor, kept[name].float())


def test_pretrained_weights_are_not_dropped_silently(repo):
    folder, model = repo
    field = "hidden_size" if model.config.model_type == "skvit" else "mlp_ratio"
    value = 96 if field == "hidden_size" else 2
    with pytest.raises(ValueError, match="its weights do not fit the configuration asked for"):
        load_model(str(folder), LABELS, **{field: value})
    with pytest.raises(ValueError, match="its weights do not fit the configuration asked for"):
        load_model(str(folder), dict(enumerate("abcde")), **{field: value})


@pytest.mark.parametrize("labels", ["cab", "bc", "xaybzc", "xyz"])
def test_the_head_goes_with_the_names_of_classes(repo, labels, caplog):
    folder, model = repo
    other, _ = load_model(str(folder), dict(enumerate(labels)))
    assert other.config.num_labels == len(labels) and other.config.label2id == {v: i for i, v in enumerate(labels)}
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, logits = model(images).logits, other.eval()(images).logits
    assert logits.shape == (2, len(labels))
    for index, label in enumerate(labels):
        if label in "abc":
            torch.testing.assert_close(logits[:, index], expected[:, "abc".index(label)])
        else:
            assert not any(torch.allclose(logits[:, index], known) for known in expected.T)
    known = len(set(labels) & set("abc"))
    said = f"its head knows {known} of the {len(labels)} classes by name; the others start afresh"
    assert (said in caplog.text) == (known < len(labels))


def test_random_matrices_are_not_resized(tmp_path):
    model = create_model("skaformer-nano", token_mixers=["separable_conv", "random", "random", "random"])
    folder = export(model, image_processor_for(model.config.image_size), tmp_path / "model")
    with pytest.raises(ValueError, match="matrix is made for one image size and cannot be resized"):
        load_model(str(folder), model.config.id2label, image_size=96)


def test_overrides():
    assert parse_overrides(["depths=[1, 2]", "a=0.5", "b=x"]) == {"depths": [1, 2], "a": 0.5, "b": "x"}
    with pytest.raises(ValueError, match="--config_overrides depths: expected field=value"):
        parse_overrides(["depths"])
    with pytest.raises(ValueError, match="SKViTConfig has no field 'hiden_size'. Did you mean 'hidden_size'"):
        load_model("skvit-nano-patch4-32", LABELS, hiden_size=3)
