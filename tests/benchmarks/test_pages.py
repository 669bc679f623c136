"""The pages that show measured speed show what was measured."""

from sk_transformers.benchmarks.pages import PAGES, ROOT, fill, outdated_pages, render_tables


def test_no_page_is_out_of_date():
    assert not outdated_pages()
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    assert all(table in text for table in render_tables().values())


def test_a_block_is_made_anew_and_the_rest_left():
    text = "a\n<!-- speed -->\nold\n<!-- end of speed -->\nb\n<!-- other -->\n"
    filled = fill(text, {"speed": "| new \\1 |"})
    assert filled == "a\n<!-- speed -->\n\n| new \\1 |\n\n<!-- end of speed -->\nb\n<!-- other -->\n"
    assert fill(filled, {"speed": "| new \\1 |"}) == filled
