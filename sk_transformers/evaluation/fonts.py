"""Fonts for names of classes in any script: matplotlib's own has no Chinese, Japanese or Korean."""

import logging
from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

DEFAULT = "DejaVu Sans"  # which comes with matplotlib
HINT = "install one that has them, such as Noto Sans CJK (apt-get install fonts-noto-cjk)"

logger = logging.getLogger(__name__)


def fonts_for(texts: Iterable[str]) -> list[str]:
    """Return the families of installed fonts that draw these texts together, matplotlib's own first.

    Characters that no font has are named in a warning.
    """
    families = [DEFAULT]
    wanted = {ord(character) for text in texts for character in text if not character.isspace()}
    missing = wanted - characters_of(font_manager.findfont(DEFAULT))
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: entry.fname):
        if not missing:
            break
        found = missing & characters_of(entry.fname)
        if found and entry.weight == 400 and entry.style == "normal":
            families.append(entry.name)
            missing -= found
    if missing:
        some = " ".join(map(chr, sorted(missing)[:8]))
        logger.warning("no font here has %d characters of the names of classes (%s): %s.", len(missing), some, HINT)
    return families


@cache
def font_file_for(texts: tuple[str, ...]) -> str:
    """Return the file of the installed font that draws most of these texts' characters, for Pillow, which takes one."""
    files = [font_manager.findfont(family) for family in fonts_for(texts)]
    wanted = {ord(character) for text in texts for character in text}
    return max(files, key=lambda file: len(wanted & characters_of(file)))


@cache
def characters_of(file: str) -> frozenset[int]:
    """Return the code points that a font file has; none if it cannot be read."""
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
