"""Write the tables of README.md and the pages in docs from measured figures: those in docs and of trained networks.

python scripts/render_benchmarks.py
python scripts/render_benchmarks.py --check    # name the pages that are out of date, with status 1, and write nothing
"""

import argparse
import sys

from sk_transformers.cli.errors import exit_on_user_error


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a page is out of date")
    args = parser.parse_args(argv)
    from sk_transformers.benchmarks.pages import outdated_pages
    from sk_transformers.files import whole_file

    pages = outdated_pages()
    if args.check and pages:
        names = ", ".join(page.name for page in pages)
        sys.exit(f"error: out of date: {names}. Run scripts/render_benchmarks.py.")
    for page, text in pages.items():
        with whole_file(page) as partial:
            partial.write_text(text, encoding="utf-8")
    print(f"{len(pages)} pages were out of date")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
