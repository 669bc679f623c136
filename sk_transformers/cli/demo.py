"""Show networks side by side on a page of this machine: `sk-transformers demo REPO [REPO ...]`.

sk-transformers demo runs/skvit/model runs/cskvit/model runs/vit/model
sk-transformers demo runs/skvit/model runs/cskvit/model runs/vit/model --save_space my-space
sk-transformers demo runs/segmenter/model runs/detector/model         # classes of pixels, boxes and masks
sk-transformers demo dinov2-small-work/source dinov2-small            # what was calibrated, beside its source
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import exit_on_user_error

if TYPE_CHECKING:
    from gradio import Blocks


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="repo folders, or Hub ids")
    parser.add_argument("--images", help="a folder of example images [that of the first repo, if any]")
    parser.add_argument("--port", type=int, help="of the loopback [the first that is free from 7860 on]")
    parser.add_argument("--save_space", metavar="FOLDER", help="write a Space to this folder, and show nothing")
    args = parser.parse_args(argv)
    if args.port is not None and not 0 < args.port < 65536:
        parser.error(f"--port is {args.port}, expected 1 to 65535")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        from ..demo.mechanism import check_maps, load_network  # seconds of imports, which --help need not wait for
        from ..demo.page import build_page
        from ..demo.space import example_images, save_space

        examples = example_images(Path(args.images or Path(args.models[0], "examples")), required=bool(args.images))
        networks = [load_network(model) for model in args.models]
        for network in networks:
            check_maps(network)
        if args.save_space:
            print(save_space(args.models, args.save_space, examples))
        else:
            serve(build_page(networks, examples), args.port)


def serve(page: "Blocks", port: int | None) -> None:
    from ..demo.page import launch

    try:
        launch(page, server_name="127.0.0.1", server_port=port)
    except OSError as error:
        what = "no port is free from 7860 on" if port is None else f"--port {port} is taken"
        raise OSError(f"{what}: choose another by --port.") from error


if __name__ == "__main__":
    main()
