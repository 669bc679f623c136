"""Digits of our own drawing, for the cards of networks that know digits: of no data set, and anybody's to use."""

from pathlib import Path

from PIL import Image, ImageDraw

SIDE, PEN = 64, 9  # pixels of the paper, and of the pen
PIXELS = 8  # of a side in scikit-learn's digits
SHOWN = 128  # pixels of a side on the card
STROKES = {  # from corner to corner, (across, down)
    "2": [(20, 15), (28, 6), (37, 6), (43, 15), (40, 27), (21, 57), (46, 57)],
    "3": [(20, 9), (32, 5), (42, 13), (38, 25), (28, 30), (41, 38), (42, 51), (31, 59), (19, 54)],
    "7": [(18, 7), (45, 7), (34, 34), (28, 59)],
}


def draw_digits(folder: Path) -> list[Path]:
    """Write three pictures, white on black and as coarse as the data's, into a folder that is there; their files."""
    files = []
    for digit, corners in STROKES.items():
        paper = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(paper).line(corners, fill=255, width=PEN, joint="curve")
        picture = paper.reduce(SIDE // PIXELS).resize((SHOWN, SHOWN), Image.Resampling.BILINEAR)
        files.append(folder / f"a-{digit}-drawn-for-this-card.png")
        picture.save(files[-1])
    return files
