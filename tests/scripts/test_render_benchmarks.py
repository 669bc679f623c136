"""The pages that show measured speed show what was measured."""

import runpy
from pathlib import Path

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "render_benchmarks.py"), run_name="script")


def test_no_page_is_out_of_date():
    tables = SCRIPT["render_tables"]()
    texts = {page: (SCRIPT["ROOT"] / page).read_text(encoding="utf-8") for page in SCRIPT["PAGES"]}
    for text in texts.values():
        assert SCRIPT["fill"](text, tables) == text
    for table in tables.values():
        assert any(table in text for text in texts.values())


def test_a_block_is_made_anew_and_the_rest_left():
    text = "a\n<!-- speed -->\nold\n<!-- end of speed -->\nb\n<!-- other -->\n"
    filled = SCRIPT["fill"](text, {"speed": "| new \\1 |"})
    assert filled == "a\n<!-- speed -->\n\n| new \\1 |\n\n<!-- end of speed -->\nb\n<!-- other -->\n"
    assert SCRIPT["fill"](filled, {"speed": "| new \\1 |"}) == filled
