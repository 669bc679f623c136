"""The loss against its formulas, and a teacher against its own answers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, ViTImageProcessor

from sk_transformers import create_model
from sk_transformers.data.loaders import read_image
from sk_transformers.hub.export import export
from sk_transformers.image_processing import image_processor_for
from sk_transformers.training.objective import Objective, Teacher

from ..support.image_files import load_images
from ..support.training import QUICK, finetune, metrics_of

LABELS = ["ant", "bee", "cat"]


def answering(logits):
    return lambda pixel_values: SimpleNamespace(logits=logits)


def test_label_smoothing():
    logits, labels = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 5
    targets = 0.9 * torch.eye(5, dtype=torch.float64)[labels] + 0.1 / 5
    expected = -(targets * logits.log_softmax(-1)).sum(-1).mean()
    loss = Objective(label_smoothing=0.1)(answering(logits), None, labels, mix=False)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation(temperature):
    logits, soft = torch.randn(2, 6, 5, dtype=torch.float64)
    labels = torch.arange(6) % 5
    p, q = ((x / temperature).softmax(-1) for x in (soft, logits))
    divergence = (p * (p / q).log()).sum(-1).mean() * temperature**2
    hard = -logits.log_softmax(-1)[torch.arange(6), labels].mean()
    objective = Objective(teacher=lambda images: soft, distillation_weight=0.3, temperature=temperature)
    loss = objective(answering(logits), torch.zeros(1), labels, mix=False)
    assert loss.item() == pytest.approx((0.7 * hard + 0.3 * divergence).item(), rel=1e-5)


@pytest.fixture(scope="module")
def teacher_repo(tmp_path_factory):
    """A teacher with another order of classes, another size and another scaling than the student."""
    torch.manual_seed(0)
    model = create_model("vit-nano-patch4-32", id2label={0: "cat", 1: "dog", 2: "ant", 3: "bee"})
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.2, 0.3, 0.4], image_std=[0.3] * 3)
    return export(model, processor, tmp_path_factory.mktemp("teacher") / "model"), model.eval(), processor


@pytest.mark.parametrize("size", [32, 48])
def test_a_teacher_sees_the_students_images_in_its_own_way(teacher_repo, size):
    repo, model, own = teacher_repo
    gradient = np.linspace(0, 255, size, dtype=np.uint8)
    image = Image.fromarray(np.stack([gradient[None].repeat(size, 0)] * 3, axis=-1))
    student = ViTImageProcessor(size={"height": size, "width": size})
    teacher = Teacher(str(repo), student, LABELS)
    logits = teacher(student(image, return_tensors="pt").pixel_values)
    with torch.no_grad():
        expected = model(**own(image, return_tensors="pt")).logits[:, [2, 3, 0]]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 if size == 32 else 0.02)
    assert not any(parameter.requires_grad for parameter in teacher.parameters()) and not teacher.training


def test_wrong_teachers(teacher_repo):
    processor = ViTImageProcessor()
    with pytest.raises(ValueError, match="--teacher .*: the data has class 'emu', which the model does not"):
        Teacher(str(teacher_repo[0]), processor, ["ant", "emu"])
    with pytest.raises(ValueError, match="--teacher org/nothing could not be loaded"):
        Teacher("org/nothing", processor, LABELS)


@pytest.mark.slow
def test_a_teacher_is_learnt_from(tmp_path):
    """The loss of a step on all images, by hand."""
    torch.manual_seed(0)
    data = load_images("digits", max_train_samples=32)
    teacher = create_model("vit-nano-patch4-32", id2label=data.id2label).eval()
    teacher.classifier.weight.data *= 30  # so that it is sure of something
    repo = export(teacher, image_processor_for(teacher.config.image_size), tmp_path / "teacher")
    run = finetune(*QUICK, "--max_train_samples", 32, "--max_train_steps", 1, "--learning_rate", 1e-30,
                   "--crop_scale", 1, 1, "--rotation", 0, "--teacher", repo, "--distillation_weight", 0.75,
                   "--distillation_temperature", 2, "--output_dir", tmp_path / "run")  # fmt: skip
    student = AutoModelForImageClassification.from_pretrained(run / "model").eval()
    pixels = image_processor_for(32)(
        [read_image(image) for image in data.train["image"]], return_tensors="pt"
    ).pixel_values
    with torch.no_grad():
        logits, soft = (model(pixel_values=pixels).logits for model in (student, teacher))
    hard = torch.nn.functional.cross_entropy(logits, torch.tensor(data.train["label"]))
    p, q = (soft / 2).softmax(-1), (logits / 2).softmax(-1)
    expected = 0.25 * hard + 0.75 * 4 * (p * (p / q).log()).sum(-1).mean()
    assert abs(expected - hard) > 0.1
    assert metrics_of(run)["history"][0]["train_loss"] == pytest.approx(expected.item(), rel=5e-3)
