"""Decode damaged images of every format and mode, and print the table that docs/data.md shows.

nice python scripts/fuzz_decoding.py --damages 1000
"""

import argparse
import sys

from sk_transformers.benchmarks.damaged_images import FILES, decode_damaged_elsewhere, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=1000, help="damaged copies of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES), metavar="FILE")
    args = parser.parse_args()
    outcomes = []
    for name in args.files:
        outcomes.append(decode_damaged_elsewhere(name, args.damages, args.seed))
        print(outcomes[-1], file=sys.stderr)
    print(render(outcomes))
    sys.exit(any(outcome.died or outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    main()
