"""The pages that show measured speed show what was measured."""

import re

from sk_transformers.benchmarks.pages import PAGES, ROOT, fill, outdated_pages, render_tables


def test_no_page_is_out_of_date():
    assert not outdated_pages()


def test_every_block_has_its_table():
    text, tables = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES), render_tables()
    blocks = re.findall("<!-- end of (.+?) -->", text)
    assert blocks and all(tables[name] in text for name in blocks)
    assert {name for name in tables if not name.startswith("calibration ")} <= set(blocks)


def test_a_block_is_made_anew_and_the_rest_left():
    text = "a\n<!-- speed -->\nold\n<!-- end of speed -->\nb\n<!-- other -->\n"
    filled = fill(text, {"speed": "| new \\1 |"})
    assert filled == "a\n<!-- speed -->\n\n| new \\1 |\n\n<!-- end of speed -->\nb\n<!-- other -->\n"
    assert fill(filled, {"speed": "| new \\1 |"}) == filled
