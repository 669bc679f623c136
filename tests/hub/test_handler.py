"""`handler.py` in an exported repo, asked through HTTP in a process where this package is not installed."""

import base64
import importlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import httpx
import pytest
from huggingface_hub import InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from transformers import ConvNextImageProcessor, pipeline

from sk_transformers.data import decoding
from sk_transformers.hub import export

from ..support.small_models import small_model

MAX_BYTES, MAX_PIXELS, MAX_IMAGES = 32 * 2**20, 50_000_000, 64
LABELS = {0: "ant", 1: "bee", 2: "cicada", 3: "damselfly", 4: "earwig", 5: "flea", 6: "gnat"}

pytestmark = pytest.mark.slow  # a server is started in a process of its own


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    model = small_model("cskaformer", num_labels=7, id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    processor = ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875)
    return export(model, processor, tmp_path_factory.mktemp("handler") / "repo")


def load_handler(repo, monkeypatch):
    """The module `handler` of a repo folder, with what it imports from there."""
    monkeypatch.syspath_prepend(repo)
    for name in ("handler", "decoding"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # the handler sets it, and it must not outlive the test
    return importlib.import_module("handler")


@pytest.fixture(scope="module")
def endpoint(repo, tmp_path_factory):
    """The URL of a server that runs the handler."""
    work = tmp_path_factory.mktemp("elsewhere")
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "home"), "HF_MODULES_CACHE": str(work / "modules"),
    }  # fmt: skip
    script = Path(__file__).with_name("serve_repo.py")
    command = [sys.executable, script, repo]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.terminate()


@pytest.fixture(scope="module")
def ask(endpoint):
    """A function that posts to the handler."""
    with httpx.Client(base_url=endpoint, timeout=60) as client:
        yield lambda **request: client.post("/", **request)


def picture(width=80, height=60, mode="RGB"):
    return Image.radial_gradient("L").resize((width, height)).convert(mode)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def base64_text(content):
    return base64.b64encode(content).decode()


def bomb(width=30000, height=30000):
    """A PNG of few bytes that decodes to `width * height` pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def expected(repo):
    """The pipeline's answers for `picture()`, all classes."""
    return pipeline("image-classification", model=str(repo))(picture(), top_k=7)


def same(answers, expected):
    labels = [answer["label"] for answer in answers] == [answer["label"] for answer in expected]
    return labels and [a["score"] for a in answers] == pytest.approx([e["score"] for e in expected], rel=1e-5)


def test_an_image_in_any_form_is_answered_as_by_the_pipeline(ask, expected):
    content = encoded(picture())
    text = base64_text(content)
    requests = [
        {"json": {"inputs": text}},
        {"json": {"inputs": f"data:image/png;base64,{text}"}},
        {"json": {"inputs": f"{text[:50]}\n{text[50:]}"}},
        {"content": content, "headers": {"content-type": "image/png"}},
        {"content": content, "headers": {"content-type": "application/octet-stream"}},
    ]
    for request in requests:
        response = ask(**request)
        assert response.status_code == 200, response.text
        assert same(response.json(), expected[:5])


def test_top_k(ask, expected):
    content = encoded(picture())
    for top_k in (1, 7, 1000):
        request = {"inputs": base64_text(content), "parameters": {"top_k": top_k}}
        assert same(ask(json=request).json(), expected[:top_k])
    response = ask(content=content, headers={"content-type": "image/png"}, params={"top_k": 2})
    assert same(response.json(), expected[:2])


@pytest.fixture
def client(endpoint, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return InferenceClient(model=endpoint)


@pytest.mark.parametrize("function", [None, "softmax", "sigmoid", "none"])
@pytest.mark.parametrize("top_k", [None, 2])
def test_the_hubs_own_client_is_answered(client, repo, tmp_path, function, top_k):
    picture().save(tmp_path / "picture.png")
    answers = client.image_classification(tmp_path / "picture.png", function_to_apply=function, top_k=top_k)
    options = {"top_k": top_k or 5, **({"function_to_apply": function} if function else {})}
    expected = pipeline("image-classification", model=str(repo))(picture(), **options)
    assert same([{"label": answer.label, "score": answer.score} for answer in answers], expected)


def test_the_hubs_own_client_is_told_what_is_wrong(client):
    with pytest.raises(HfHubHTTPError, match="top_k is 0, expected a whole number of at least 1.") as error:
        client.image_classification(encoded(picture()), top_k=0)
    assert error.value.response.status_code == 400


def test_parameters_that_are_null_are_the_usual_ones(ask, expected):
    for parameters in (None, {}, {"top_k": None, "function_to_apply": None}):
        answer = ask(json={"inputs": base64_text(encoded(picture())), "parameters": parameters})
        assert same(answer.json(), expected[:5])


def test_the_repo_decodes_with_the_very_file_that_training_uses(repo):
    assert (repo / "decoding.py").read_bytes() == Path(decoding.__file__).read_bytes()


def test_sixteen_bits_and_damaged_exif_mean_what_they_mean_in_training(ask, repo):
    classify = pipeline("image-classification", model=str(repo))
    damaged = (Path(__file__).parents[1] / "data" / "cases" / "damaged_exif_1.jpg").read_bytes()
    for content in (encoded(picture(mode="I;16").point(lambda value: value * 257)), damaged):
        expected = classify(decoding.decode(io.BytesIO(content)))
        assert same(ask(json={"inputs": base64_text(content)}).json(), expected)


def test_a_batch_is_answered_image_by_image(ask):
    texts = [base64_text(encoded(picture(width, height))) for width, height in ((80, 60), (40, 90), (64, 64))]
    batch = ask(json={"inputs": texts, "parameters": {"top_k": 3}}).json()
    alone = [ask(json={"inputs": text, "parameters": {"top_k": 3}}).json() for text in texts]
    assert all(same(one, other) for one, other in zip(batch, alone, strict=True))
    assert len(ask(json={"inputs": texts[:1]}).json()[0]) == 5  # a list stays one


@pytest.mark.parametrize(
    "image, kind, options",
    [
        (picture(mode="L"), "PNG", {}),
        (picture(mode="RGBA"), "PNG", {}),
        (picture(mode="1"), "TIFF", {}),
        (picture(mode="CMYK"), "JPEG", {}),
        (picture(mode="P"), "GIF", {}),
        (picture(), "WEBP", {}),
        (picture(), "AVIF", {}),
        (picture(), "JPEG2000", {}),
        (picture(mode="I;16"), "PPM", {}),
        (picture(), "MPO", {"save_all": True, "append_images": [picture()]}),
        (picture(mode="L"), "GIF", {"save_all": True, "append_images": [Image.new("L", (80, 60))]}),
        (picture(), "PNG", {"save_all": True, "append_images": [Image.new("RGB", (80, 60))]}),
        (picture(), "WEBP", {"save_all": True, "append_images": [Image.new("RGB", (80, 60))]}),
        (picture(), "TIFF", {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}),
        (picture(1, 1), "BMP", {}),
    ],
)
def test_kinds_of_images(image, kind, options, ask):
    response = ask(json={"inputs": base64_text(encoded(image, kind, **options))})
    assert response.status_code == 200, response.text
    assert sum(answer["score"] for answer in response.json()) <= 1.0001


def test_photos_are_turned_the_right_way_up(ask, expected):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees
    content = encoded(picture().transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert same(ask(json={"inputs": base64_text(content)}).json(), expected[:5])


WRONG_IMAGES = {
    "empty": (b"", "Image 1 is unreadable (empty)."),
    "no image": (b"plain text" * 50, "Image 1 is unreadable (not an image that Pillow can read: expected AVIF, BMP,"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "Image 1 is unreadable (not an image that"),
    "header only": (encoded(picture())[:20], "Image 1 is unreadable (not an image that Pillow can read"),
    "cut PNG": (encoded(picture())[:-900], "Image 1 is unreadable (damaged or cut off: "),
    "cut JPEG": (encoded(picture(), "JPEG")[:-400], "Image 1 is unreadable (damaged or cut off: "),
    "cut WEBP": (encoded(picture(), "WEBP", lossless=True)[:-90], "Image 1 is unreadable ("),
    "short data": (bomb(3000, 3000), "Image 1 is unreadable (damaged or cut off: "),
    "bomb": (bomb(), f"Image 1 is unreadable (too many pixels, expected at most {MAX_PIXELS}: make it smaller)."),
    "small bomb": (bomb(9000, 6000), f"Image 1 is unreadable (9000x6000 pixels, expected at most {MAX_PIXELS} in all"),
    "narrow": (bomb(40_000_000, 1), "Image 1 is unreadable (40000000x1 pixels, expected sides of at most 1:200: crop"),
}


def assert_refused(response, message, kind="ValueError"):
    """One sentence with status 400, raised on purpose."""
    assert response.status_code == 400
    answer = response.json()
    assert answer["error"].startswith(message) and answer["kind"] == kind, answer
    assert "\n" not in answer["error"] and len(answer["error"]) < 200


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_wrong_images_are_refused_in_a_sentence(name, ask):
    content, message = WRONG_IMAGES[name]
    assert_refused(ask(json={"inputs": base64_text(content)}), message)
    assert_refused(ask(content=content, headers={"content-type": "application/octet-stream"}), message)
    right = base64_text(encoded(picture()))
    in_batch = {"inputs": [right, base64_text(content)]}
    assert_refused(ask(json=in_batch), message.replace("Image 1", "Image 2"))


@pytest.mark.parametrize("name", ["no image", "cut PNG", "cut JPEG", "short data", "bomb"])
def test_what_the_server_cannot_decode_itself_is_refused_too(name, ask):
    response = ask(content=WRONG_IMAGES[name][0], headers={"content-type": "image/png"})
    assert response.status_code == 400
    assert "Traceback" not in response.text


def test_images_that_the_server_decoded_are_checked_too(ask):
    narrow = encoded(picture(500, 2))
    response = ask(content=narrow, headers={"content-type": "image/png"})
    assert_refused(response, "Image 1 is unreadable (500x2 pixels, expected sides of at most")


def test_long_files_are_refused(repo, monkeypatch):
    handler = load_handler(repo, monkeypatch)
    with pytest.raises(ValueError, match=f"Image 3 has {MAX_BYTES + 1} bytes, expected at most {MAX_BYTES}: send a"):
        handler.read_image(bytes(MAX_BYTES + 1), 3)


RIGHT = base64_text(encoded(picture()))
WRONG_REQUESTS = [
    ({"inputs": "not base64!"}, "Image 1 is not base64 text: encode the bytes of an image file."),
    ({"inputs": "déjà"}, "Image 1 is not base64 text"),
    ({"inputs": "https://example.com/a.png"}, "Image 1 is a URL, which is not fetched: send the image itself"),
    ({"inputs": None}, "Image 1 is missing: expected base64 text in inputs, not NoneType."),
    ({"inputs": {"image": RIGHT}}, "Image 1 is missing: expected base64 text in inputs, not dict."),
    ({"inputs": [RIGHT, 7]}, "Image 2 is missing: expected base64 text in inputs, not int."),
    ({"inputs": []}, f"inputs holds 0 images, expected 1 to {MAX_IMAGES}: split the request."),
    ({"inputs": [RIGHT] * (MAX_IMAGES + 1)}, f"inputs holds {MAX_IMAGES + 1} images"),
    ({"inputs": RIGHT, "parameters": {"top_k": 0}}, "top_k is 0, expected a whole number of at least 1."),
    ({"inputs": RIGHT, "parameters": {"top_k": True}}, "top_k is True, expected"),
    ({"inputs": RIGHT, "parameters": {"top_k": "3"}}, "top_k is '3', expected"),
    ({"inputs": RIGHT, "parameters": {"topk": 3}}, "Unknown parameter 'topk': expected top_k or function_to_apply."),
    ({"inputs": RIGHT, "top_k": 3}, "Unknown key 'top_k': expected inputs or parameters."),
    ({"inputs": RIGHT, "parameters": {"function_to_apply": "tanh"}}, "function_to_apply is 'tanh', expected one of"),
    ({"inputs": RIGHT, "parameters": {"function_to_apply": [1]}}, "function_to_apply is [1], expected one of softmax,"),
    ({"inputs": RIGHT, "parameters": 3}, "parameters is a int, expected an object"),
]


@pytest.mark.parametrize("request_body, message", WRONG_REQUESTS)
def test_wrong_requests_are_refused_in_a_sentence(request_body, message, ask):
    assert_refused(ask(json=request_body), message)


def test_a_request_that_is_no_json(ask):
    response = ask(content=b'{"inputs": ', headers={"content-type": "application/json"})
    assert response.status_code == 400


def test_the_server_still_answers_after_all_that(ask, expected):
    assert same(ask(json={"inputs": RIGHT}).json(), expected[:5])


def test_several_labels_have_a_probability_each(tmp_path, monkeypatch):
    model = small_model("skaformer", problem_type="multi_label_classification")
    repo = export(model, ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875), tmp_path / "repo")
    answers = load_handler(repo, monkeypatch).EndpointHandler(str(repo))({"inputs": picture()})
    assert same(answers, pipeline("image-classification", model=str(repo))(picture(), top_k=3))
    assert sum(answer["score"] for answer in answers) > 1.2  # fresh weights: near a half each
