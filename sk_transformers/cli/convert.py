"""Turn a checkpoint of MetaFormer, a ViT or the static-key authors into a repo folder of this package.

Of transformers it reads ViT, DeiT, BEiT, DINOv2, DINOv3, I-JEPA, MAE and the vision towers of CLIP and SigLIP; of timm
MetaFormers and Vision Transformers, with registers, of DINOv2, CLIP and SigLIP too. What has no classifier makes
features.

sk-transformers convert caformer_s18.pth caformer-s18 --license apache-2.0
sk-transformers convert training-run/model_best.pth.tar cskaformer-s18 --use_ema --license mit
sk-transformers convert timm:vit_base_patch16_224 vit-base
sk-transformers convert google/vit-base-patch16-224 vit-base
sk-transformers convert facebook/dinov2-small dinov2-small
"""

import argparse
from collections.abc import Sequence

from ..options import positive_int
from .errors import exit_on_user_error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="a checkpoint file, timm:NAME, or a folder or Hub id of transformers")
    parser.add_argument("output_dir", help="the repo folder to write; it must not exist, or be empty")
    parser.add_argument("--use_ema", action="store_true", help="take the averaged weights of a training run's file")
    parser.add_argument("--random", action="store_true", help="with timm:NAME, fresh weights instead of pretrained")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes: JSON, or one in each line")
    parser.add_argument("--dtype", choices=["float64", "float32", "bfloat16", "float16"], help="default: the source's")
    parser.add_argument(
        "--license", metavar="NAME", help="of the source's weights, as the Hub names it; default: what the source says"
    )
    told = parser.add_argument_group("what tensors may not tell (an error asks for it where it is needed)")
    told.add_argument(
        "--image_size", type=positive_int, nargs="+", metavar="PIXELS", help="one number, or height and width"
    )
    told.add_argument("--patch_size", type=positive_int, metavar="PIXELS", help="of a ViT with shifted patches")
    told.add_argument(
        "--head_dim", type=positive_int, metavar="CHANNELS", help="of attention; default 32 in MetaFormer, 64 in ViT"
    )
    told.add_argument("--token_mixers", nargs="+", metavar="NAME", help="of each stage, or one for all")
    told.add_argument("--hidden_act", metavar="NAME", help="of a ViT in a file of timm's, such as quick_gelu in CLIP")
    args = parser.parse_args(argv)
    if args.image_size is not None:
        if len(args.image_size) > 2:
            parser.error("--image_size takes one number, or height and width")
        args.image_size = (args.image_size[0], args.image_size[-1])
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        import torch  # seconds of imports, which --help need not wait for
        from transformers.utils import logging

        from ..conversion import convert

        logging.disable_progress_bar()  # for one file there is nothing to see
        dtype = None if args.dtype is None else getattr(torch, args.dtype)
        print(convert(**{**vars(args), "dtype": dtype}))


if __name__ == "__main__":
    main()
