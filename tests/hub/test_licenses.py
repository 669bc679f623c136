"""Licenses by the Hub's names."""

import pytest

from sk_transformers.hub.licenses import check_license, license_on_card


def test_a_name_that_the_hub_does_not_know():
    assert check_license("apache-2.0") == "apache-2.0"
    with pytest.raises(ValueError, match="the Hub knows no license 'Apache 2.0': did you mean apache-2.0"):
        check_license("Apache 2.0")
    with pytest.raises(ValueError, match="'other' is for those that have no name there"):
        check_license("§§§")


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\n# A card\n", "cc-by-nc-4.0"),
        ("---\ntags: [vision]\n---\n# A card\n", None),
        ("---\nlicense: [a, b]\n---\n# A card\n", None),
        ("---\nlicense: {\n---\n# A card\n", None),
        ("# A card without metadata\n", None),
        (None, None),
    ],
)
def test_the_license_on_a_card(tmp_path, card, license):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert license_on_card(str(tmp_path)) == license
