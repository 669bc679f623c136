"""Names of classes in scripts that matplotlib's own font lacks."""

import warnings
from pathlib import Path

import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from sk_transformers.evaluation.fonts import font_file_for, fonts_for
from sk_transformers.evaluation.plots import plot_confusion
from sk_transformers.evaluation.single_label import SingleLabelPredictions

CATS = ["\u732b", "\uace0\uc591\uc774", "chat", "\u043a\u043e\u0442"]  # Japanese, Korean, French, Russian


@pytest.fixture
def font(tmp_path, monkeypatch):
    """A font that has boxes for the first two."""
    pen = TTGlyphPen(None)
    for step, point in enumerate([(0, 0), (0, 800), (800, 800), (800, 0)]):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "box"])
    builder.setupCharacterMap({ord(character): "box" for name in CATS[:2] for character in name})
    builder.setupGlyf({".notdef": pen.glyph(), "box": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "box": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Boxes", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "boxes.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(tmp_path / "boxes.ttf")


def plot(file):
    """Draw a confusion of the classes, and return what matplotlib warned of."""
    labels = torch.arange(4)
    predictions = SingleLabelPredictions(
        labels=labels,
        loss=torch.zeros(4),
        seconds=1.0,
        measured_images=0,
        top=labels[:, None],
        confidence=torch.ones(4),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plot_confusion(predictions, CATS, file)
    return [str(warning.message) for warning in caught if "missing from" in str(warning.message)]


def without_east_asian_fonts(monkeypatch):
    fonts = [entry for entry in font_manager.fontManager.ttflist if "DejaVu" in entry.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)


def test_an_installed_font_is_used(tmp_path, monkeypatch, font, caplog):
    boxes = [entry for entry in font_manager.fontManager.ttflist if entry.name == "Boxes"]
    without_east_asian_fonts(monkeypatch)
    font_manager.fontManager.ttflist += boxes
    assert fonts_for(CATS) == ["DejaVu Sans", "Boxes"] and fonts_for(CATS[2:]) == ["DejaVu Sans"]
    assert plot(tmp_path / "confusion.png") == [] and caplog.text == ""


def test_where_there_is_none_it_is_said_which_to_install(tmp_path, monkeypatch, caplog):
    without_east_asian_fonts(monkeypatch)
    plot(tmp_path / "confusion.png")
    assert "no font here has 4 characters of the names of classes (\u732b" in caplog.text
    assert "apt-get install fonts-noto-cjk" in caplog.text and (tmp_path / "confusion.png").is_file()


def test_pillow_gets_the_font_that_has_most_of_them(monkeypatch, font):
    boxes = [entry for entry in font_manager.fontManager.ttflist if entry.name == "Boxes"]
    without_east_asian_fonts(monkeypatch)
    font_manager.fontManager.ttflist += boxes
    assert Path(font_file_for((CATS[0], "\uace0"))).name == "boxes.ttf"
    assert Path(font_file_for(("chat", CATS[0]))).name == "DejaVuSans.ttf"
