"""What people write on a card stays, and what nobody touched follows the model."""

import pytest
import yaml

from sk_transformers.hub.cards.merge import merge_cards, parse_card, sign

OLD = sign(
    "---\nlicense: mit\ntags:\n- a\n---\n\n# Tiny\n\nSmall.\n\n## Use\n\nUse it.\n\n## Gone\n\nOld.\n\n## End\n\nBye.\n"
)
NEW = sign(
    "---\nlicense: mit\ntags:\n- b\nmetrics:\n- accuracy\n---\n\n# Tiny\n\nSmaller.\n\n## Use\n\nUse it well.\n\n"
    "## Results\n\n0.9\n\n## End\n\nBye.\n"
)


def body(text):
    return text.split("<!--")[0]


def edit(old, new, text=OLD):
    assert old in text
    return text.replace(old, new, 1)


def test_an_untouched_card_becomes_the_new_one():
    merged = merge_cards(OLD, NEW)
    assert merged.text == NEW and merged.kept == []


@pytest.mark.parametrize(
    "edited, kept",
    [
        (edit("Use it.", "Use it with care."), "## Use"),
        (edit("Small.", "Tiny, really."), "#"),
        (edit("- a", "- mine"), "tags:"),
    ],
)
def test_what_was_edited_stays(edited, kept):
    merged = merge_cards(edited, NEW)
    assert merged.kept == [kept]
    old, new, result = parse_card(edited).items, parse_card(NEW).items, parse_card(merged.text).items
    assert result == new | {kept: old[kept]}
    assert merge_cards(merged.text, NEW).text == merged.text


def test_an_edit_stays_however_often_the_model_is_pushed():
    text = edit("Use it.", "Use it with care.")
    for version in range(3):
        text = merge_cards(text, sign(body(NEW).replace("well", f"well {version}"))).text
    assert "Use it with care." in text and "well" not in text


def test_what_was_added_stays_where_it_is():
    edited = edit("license:", "arxiv: 1\nlicense:", edit("\n## End", "\n## Thanks\n\nTo all.\n\n## End"))
    text = merge_cards(edited, NEW).text
    assert [name for name in parse_card(text).items if name.startswith("#")] == [
        "#", "## Use", "## Results", "## Thanks", "## End",
    ]  # fmt: skip
    assert "To all." in text and "arxiv: 1" in text


def test_what_was_removed_stays_away():
    merged = merge_cards(edit("## End\n\nBye.\n", ""), NEW)
    assert "Bye." not in merged.text and merged.kept == ["## End"]
    assert "Bye." not in merge_cards(merged.text, NEW).text


def test_an_edited_section_that_is_not_generated_any_more_stays():
    assert "## Gone\n\nOlder." in merge_cards(edit("Old.", "Older."), NEW).text
    assert "## Gone" not in merge_cards(OLD, NEW).text


def test_a_card_written_by_hand_stays_whole():
    hand = "---\nlicense: gpl-3.0\n---\n# Mine\n\nMine alone.\n\n## Use\n\nMy way.\n"
    merged = merge_cards(hand, NEW)
    for kept in ("license: gpl-3.0", "Mine alone.", "My way."):
        assert kept in merged.text
    assert "## Results" in merged.text and merged.kept == ["license:", "#", "## Use"]


def test_metadata_alone_is_completed():
    merged = merge_cards("---\nlicense: gpl-3.0\n---\n", NEW)
    assert "license: gpl-3.0" in merged.text and "Use it well." in merged.text and "# Tiny" in merged.text


def test_an_edit_in_the_folder_counts_too():
    edited = edit("well", "badly", NEW)
    first = merge_cards(OLD, edited).text
    assert "badly" in first
    assert "badly" in merge_cards(first, NEW).text


def test_line_ends_of_the_hubs_editor_are_no_edit():
    assert merge_cards(OLD.replace("\n", "\r\n"), NEW).text == NEW


def test_headings_in_code_are_none():
    text = "# Tiny\n\n```python\n## no heading\n```\n\n## Use\n\nx\n"
    assert list(parse_card(text).items) == ["#", "## Use"]


def test_results_are_those_of_the_weights_and_those_that_were_added():
    def card(*results):
        index = [{"name": "tiny", "results": [
            {"task": {"type": "image-classification"}, "dataset": {"name": data, "type": data},
             "metrics": [{"type": "accuracy", "value": value}]} for data, value in results
        ]}]  # fmt: skip
        return "---\n" + yaml.safe_dump({"model-index": index}) + "---\n\n# Tiny\n"

    old = sign(card(("bugs", 0.5)))
    new = sign(card(("bugs", 0.7)))
    edited = card(("bugs", 0.5), ("birds", 0.1)) + "\n<!--" + old.split("<!--")[1]
    for existing, expected in ((old, [("bugs", 0.7)]), (edited, [("bugs", 0.7), ("birds", 0.1)])):
        merged = merge_cards(existing, new).text
        results = parse_card(merged).items["model-index:"][0]["results"]
        assert [(r["dataset"]["name"], r["metrics"][0]["value"]) for r in results] == expected
        assert merge_cards(merged, new).text == merged


@pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\n- a\n---\n"])
def test_metadata_that_cannot_be_read_is_said(text):
    with pytest.raises(ValueError, match="the metadata at the top of the card is no"):
        merge_cards(text, NEW)
