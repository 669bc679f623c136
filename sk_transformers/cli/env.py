"""Print versions, hardware and threads, as a bug report needs them. It holds no paths, names of users or tokens.

sk-transformers env
"""

import argparse
import os
from collections.abc import Sequence

from .errors import exit_on_user_error

VARIABLES = (  # that change what is computed or loaded, and hold no secrets
    "ACCELERATE_USE_CPU",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "SK_TRACEBACK",
    "SK_TRANSFORMERS_FAST",
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers env", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    parse_args(argv)
    with exit_on_user_error():
        from ..provenance import environment  # seconds of imports, which --help need not wait for

        facts = environment() | {name: os.environ[name] for name in VARIABLES if name in os.environ}
        width = max(map(len, facts))
        print("\n".join(f"{name:{width}}  {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
