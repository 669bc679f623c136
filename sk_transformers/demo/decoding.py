"""How the page reads image files: as training does. In a Space, a copy of the file itself lies in this place."""

from ..data.decoding import UnreadableImage, decode

__all__ = ["UnreadableImage", "decode"]
