"""Exported graphs give torch's logits in ONNX Runtime, for batches and images that the export did not see."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor, ViTConfig, ViTForImageClassification, ViTImageProcessor

from sk_transformers import SKViTModel, create_model
from sk_transformers.data.loaders import read_image
from sk_transformers.hub import export
from sk_transformers.hub.onnx_export import check_target, export_onnx, smallest_image

from ..support.image_files import load_images, write_images
from ..support.small_models import small_config, small_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "export_onnx.py"
PROCESSOR = ViTImageProcessor(size={"height": 16, "width": 16})
pytestmark = pytest.mark.slow  # exporting takes seconds


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # a refused image is no news
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def difference(model, file, batch, size, **options):
    """The largest difference of logits between ONNX Runtime and torch."""
    pixel_values = torch.randn(batch, 3, *size)
    with torch.no_grad():
        expected = model(pixel_values, **options).logits.numpy()
    return np.abs(session(file).run(None, {"pixel_values": pixel_values.numpy()})[0] - expected).max()


SHALLOW = {"depths": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    "name, depth",
    [
        ("skvit", {"num_hidden_layers": 1}),
        ("cskvit-small-data", {}),
        ("bias-vit", {}),
        ("sparse-vit", {}),
        ("vit", {"token_mixer": "static_map", "num_hidden_layers": 1, "attn_implementation": "eager"}),
        ("skaformer", {**SHALLOW, "token_mixers": ["separable_conv", "static_key", "conv_key", "attention"]}),
        ("cskaformer", SHALLOW),
        ("separate-swin", {"depths": [2, 1]}),
        ("cskcvt", {}),
        ("cait", {"num_hidden_layers": 1}),
        ("authors-cait", {}),
    ],
)
def test_logits_are_torchs(name, depth, tmp_path):
    model = small_model(name, **depth)
    size = (model.config.image_size,) * 2
    report = export_onnx(model, PROCESSOR, tmp_path / "out")
    for batch in (1, 2, 5):
        assert difference(model, tmp_path / "out" / "onnx" / "model.onnx", batch, size) < 1e-4
    quantized = difference(model, tmp_path / "out" / "onnx" / "model_quantized.onnx", 3, size)
    assert 0 < quantized < 0.1  # another network, but not by much
    assert report == json.loads((tmp_path / "out" / "onnx" / "export.json").read_text())
    assert report["largest_difference"] < 1e-4 and report["smallest_image"] is None
    assert_folder_is_complete(tmp_path / "out")
    for graph in ("model.onnx", "model_quantized.onnx"):
        assert_no_machine_in(tmp_path / "out" / "onnx" / graph)


def assert_folder_is_complete(folder):
    """It has what transformers.js reads."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert [name for name in files if not name.endswith(".py")] == [
        "config.json", "onnx/export.json", "onnx/model.onnx", "onnx/model_quantized.onnx", "preprocessor_config.json",
    ]  # fmt: skip
    assert AutoConfig.from_pretrained(folder).num_labels == 3
    assert AutoImageProcessor.from_pretrained(folder).size == PROCESSOR.size
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def assert_no_machine_in(file):
    """A graph holds weights and operators, and not where the exporter found them."""
    content = file.read_bytes()
    assert b".py" not in content and str(Path.home()).encode() not in content
    graph = onnx.load(file).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["pixel_values", "logits"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param  # a name, so any number


def test_a_network_of_real_size(tmp_path):
    model = create_model("skvit-tiny-patch16-224", num_hidden_layers=2).eval()
    report = export_onnx(model, PROCESSOR, tmp_path / "out")
    assert difference(model, tmp_path / "out" / "onnx" / "model.onnx", 2, (224, 224)) < 1e-4
    assert report["bytes"]["onnx/model_quantized.onnx"] < 0.5 * report["bytes"]["onnx/model.onnx"]


def test_vits_take_images_from_the_trained_size_on(tmp_path):
    model = small_model("cskvit", num_hidden_layers=1)
    export_onnx(model, PROCESSOR, tmp_path / "out", dynamic_size=True)
    file = tmp_path / "out" / "onnx" / "model.onnx"
    for batch, size in ((1, (16, 16)), (2, (16, 40)), (1, (36, 24))):
        assert difference(model, file, batch, size, interpolate_pos_encoding=True) < 1e-4
    assert_refused(file, (12, 16))
    assert_refused(file, (16, 12))


def test_hybrids_take_images_of_any_shape_from_the_trained_size_on(tmp_path):
    mixers = ["identity", "conv_static_key", "static_key", "attention"]
    model = small_model("skaformer", token_mixers=mixers, **SHALLOW)
    report = export_onnx(model, PROCESSOR, tmp_path / "out", dynamic_size=True)
    file = tmp_path / "out" / "onnx" / "model.onnx"
    assert report["smallest_image"] == (64, 64)
    for batch, size in ((1, (64, 64)), (3, (71, 130)), (1, (128, 65))):
        assert difference(model, file, batch, size) < 1e-4
    assert_refused(file, (64, 60))


def assert_refused(file, size):
    with pytest.raises(Exception, match="out of data bounds"):
        session(file).run(None, {"pixel_values": np.zeros((1, 3, *size), np.float32)})


@pytest.mark.parametrize(
    "name, size",
    [
        ("skvit", (16, 16)),
        ("vit", (16, 16)),
        ("skcait", (16, 16)),
        ("skaformer", (64, 64)),
        ("map-norm-former", (64, 64)),
        ("cskcvt", (32, 32)),
        ("cvt", (1, 1)),
    ],
)
def test_smallest_image_where_something_belongs_to_a_grid(name, size):
    assert smallest_image(small_config(name)) == size


def test_smallest_image_without_static_keys():
    config = small_config("skaformer", token_mixers=["separable_conv", "pooling", "attention", "attention"])
    assert smallest_image(config) == (32, 32)


def test_windows_need_one_size(tmp_path):
    with pytest.raises(ValueError, match="'window' cuts a map into a number of windows that an ONNX graph cannot"):
        export_onnx(small_model("window-former"), PROCESSOR, tmp_path / "out", dynamic_size=True)
    assert not list(tmp_path.iterdir())


def test_a_swin_needs_one_size(tmp_path):
    with pytest.raises(ValueError, match="A Swin cuts its maps into a number of windows that an ONNX graph cannot"):
        export_onnx(small_model("skswin"), PROCESSOR, tmp_path / "out", dynamic_size=True)
    assert not list(tmp_path.iterdir())


def test_a_repo_gets_the_graphs_and_keeps_the_rest(tmp_path):
    model = small_model("skvit", num_hidden_layers=1)
    repo = export(model, PROCESSOR, tmp_path / "repo")
    before = {file.name: file.read_bytes() for file in repo.iterdir()}
    export_onnx(model, PROCESSOR, repo)
    assert {file.name: file.read_bytes() for file in repo.iterdir() if file.is_file()} == before
    assert {file.name for file in (repo / "onnx").iterdir()} == {"export.json", "model.onnx", "model_quantized.onnx"}
    with pytest.raises(FileExistsError, match="onnx exists already: nothing was written"):
        export_onnx(model, PROCESSOR, repo)


def test_a_folder_of_an_older_version_is_the_same_model(tmp_path):
    """Its configuration lacks a field that has come since, and one that differs still makes another model."""
    model = small_model("skvit", num_hidden_layers=1)
    repo = export(model, PROCESSOR, tmp_path / "repo")
    config = json.loads((repo / "config.json").read_text())
    del config["layer_norm_eps"]
    (repo / "config.json").write_text(json.dumps(config))
    assert check_target(repo, model)
    (repo / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}))
    with pytest.raises(FileExistsError, match="holds another model"):
        check_target(repo, model)


def test_nothing_else_is_overwritten(tmp_path):
    repo = export(small_model("vit"), PROCESSOR, tmp_path / "repo")
    with pytest.raises(FileExistsError, match="repo holds another model: nothing was written"):
        export_onnx(small_model("skvit"), PROCESSOR, repo)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other exists already: nothing was written"):
        export_onnx(small_model("skvit"), PROCESSOR, tmp_path / "other")
    assert not (repo / "onnx").exists()


def test_wrong_models_are_refused(tmp_path):
    with pytest.raises(TypeError, match="takes a classifier, not SKViTModel"):
        export_onnx(SKViTModel(small_config("skvit")), PROCESSOR, tmp_path / "out")
    with pytest.raises(ValueError, match=r"in torch.bfloat16, expected torch.float32: use model.float\(\)"):
        export_onnx(small_model("skvit").bfloat16(), PROCESSOR, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_measurement_that_fails_leaves_nothing_that_blocks_the_next(tmp_path):
    model = small_model("vit", num_hidden_layers=1)

    def fail(float_file, quantized_file):
        assert float_file.is_file() and quantized_file.is_file()
        raise ValueError("an image is unreadable")

    repo = export(model, PROCESSOR, tmp_path / "repo")
    for folder in (repo, tmp_path / "new"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match="unreadable"):
            export_onnx(model, PROCESSOR, folder, measure=fail)
        assert sorted(tmp_path.rglob("*")) == before
    assert "top1" not in export_onnx(model, PROCESSOR, repo)


def run_script(capsys, *argv):
    spec = importlib.util.spec_from_file_location("export_onnx", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main([*map(str, argv)])
    return json.loads(capsys.readouterr().out)


def test_the_script_measures_both_graphs(tmp_path, capsys):
    labels = {0: "a", 1: "b", 2: "c"}
    model = small_model("vit", id2label=labels, label2id={v: k for k, v in labels.items()}, num_hidden_layers=1)
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    repo = export(model, processor, tmp_path / "repo")
    write_images(tmp_path / "images", classes=("a", "b", "c"))
    report = run_script(capsys, repo, repo, "--dataset", tmp_path / "images")

    data = load_images(tmp_path / "images").validation
    assert report["top1"]["images"] == len(data) == 6
    pixel_values = processor([read_image(image) for image in data["image"]], return_tensors="np").pixel_values
    for name in ("onnx/model.onnx", "onnx/model_quantized.onnx"):
        classes = session(repo / name).run(None, {"pixel_values": pixel_values})[0].argmax(axis=1)
        assert report["top1"][name] == np.mean(classes == np.array(data["label"]))
    assert json.loads((repo / "onnx" / "export.json").read_text()) == report


def test_images_are_read_before_anything_is_written(tmp_path, capsys):
    labels = {0: "a", 1: "b", 2: "c"}
    model = small_model("vit", id2label=labels, label2id={v: k for k, v in labels.items()}, num_hidden_layers=1)
    repo = export(model, PROCESSOR, tmp_path / "repo")
    images = write_images(tmp_path / "images" / "validation", classes=("a", "b", "c"), images=3)
    write_images(tmp_path / "images" / "train", classes=("a", "b", "c"), images=1)
    (images / "b" / "1.png").write_bytes((images / "b" / "1.png").read_bytes()[:200])
    for target in (repo, tmp_path / "out"):
        with pytest.raises(
            SystemExit, match="b/1.png is unreadable .*: mend or remove it, or pass --on_bad_image skip"
        ):
            run_script(capsys, repo, target, "--dataset", tmp_path / "images")
        assert not (target / "onnx").exists()  # so the command that the message advises is not refused
        report = run_script(capsys, repo, target, "--dataset", tmp_path / "images", "--on_bad_image", "skip")
        assert report["top1"]["images"] == 8


def test_the_script_refuses_in_a_sentence(tmp_path, capsys):
    headless = export(SKViTModel(small_config("skvit")), PROCESSOR, tmp_path / "headless")
    damaged = export(small_model("vit"), PROCESSOR, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(bytes(100))
    others = tmp_path / "others"
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(**size)).save_pretrained(others)
    PROCESSOR.save_pretrained(others)
    for model, said in (
        (tmp_path / "nothing", "nothing could not be loaded: "),
        (headless, "headless is not a trained classifier: its weights lack classifier.bias"),
        (damaged, "damaged could not be loaded: "),
        (others, "others is a ViTForImageClassification, expected one of this package's networks"),
    ):
        with pytest.raises(SystemExit, match=f"error: model .*{said}") as error:
            run_script(capsys, model, tmp_path / "out")
        assert "\n" not in str(error.value)
    with pytest.raises(SystemExit, match="error: .*headless exists already: nothing was written"):
        run_script(capsys, headless, tmp_path / "out", "--save_page", headless)
    assert not (tmp_path / "out").exists()


def test_a_relative_bias_is_made_for_one_grid():
    with pytest.raises(ValueError, match="attention_bias='relative' makes a bias for each grid.* one size"):
        smallest_image(small_config("bias-vit"))
    assert smallest_image(small_config("bias-vit", attention_bias="full")) == (16, 16)
