"""The commands of `scripts/benchmark.py`: each measures and prints Markdown, some write their figures as JSON."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from ..files import write_json
from ..models.configuration_checks import size_pair
from ..options import image_size, non_negative_int, positive_int
from ..provenance import provenance
from ..zoo import get_variant, list_models
from .measure import DTYPES, MODES, TASKS

if TYPE_CHECKING:  # a command imports what it needs: timm and others take seconds
    from .speed import Comparison

RUNTIME_NAMES = (
    *("eager", "eager-bfloat16", "compiled", "aot"),
    *("onnx", "onnx-int8", "openvino", "openvino-int8", "openvino-bfloat16"),
)
Add = Callable[..., argparse.Action]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets `run`, a function of what is parsed."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description="Measure the zoo's networks. A ratio over 1 says that ours is faster; memory is what torch"
        " allocates over the weights at the peak.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], help: str) -> Add:
        subparser = commands.add_parser(name, help=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        subparser.set_defaults(run=run)
        return subparser.add_argument

    add = command("count", count, "parameters and multiply-adds, beside published ones")
    add_models(add)
    add("--mask_rcnn", type=height_width, metavar="HEIGHTxWIDTH", help="count Mask R-CNN over them on such images")
    add = command("speed", speed, "networks and mixers beside timm, transformers and plain static keys")
    add_comparisons(add)
    add("--modes", nargs="+", choices=MODES, default=["eager"], help="as they are, or by torch.compile")
    add(
        "--batch_sizes",
        nargs="+",
        type=positive_int,
        default=[1, 8, 32],
        help="those that a comparison has; 32 is SKA's",
    )
    add_output(add)
    add = command("device", device, "all of it on an accelerator: numerics, kernels, and speed; a file to send back")
    add_comparisons(add)
    add("--device", type=usable_device, default="cpu", help="cuda, xpu, mps, or the CPU itself")
    add("--triton", action="store_true", help="CSKA, where it is not compiled, by its Triton kernel; on cuda")
    add("--modes", nargs="+", choices=MODES, default=list(MODES), help="as they are, or by torch.compile")
    add("--batch_sizes", nargs="+", type=positive_int, default=[1, 8, 32], help="those that a comparison has")
    add_output(add)
    add_comparisons(command("profile", profile, "what those spend their time on, by groups of operators"))
    add = command("scaling", scaling, "time and memory against image size, batch and depth")
    add_rounds(add)
    add_output(add)
    add("--plot", type=writable, metavar="FILE", help="where to draw images a second, as PNG")
    add = command("resolution", resolution, "resized static keys beside windows of them, on images of several sizes")
    add_models(add)
    add_rounds(add)
    add = command("dense", dense, "backbones beside their peers in turns: the maps of four stages of large images")
    add(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="names of the zoo, timm:NAME or transformers:KIND, the baseline first; without one, those of the page",
    )
    add(
        "--sizes",
        nargs="+",
        type=height_width,
        default=[(512, 512), (800, 1333)],
        metavar="HEIGHTxWIDTH",
        help="of images, in pixels; all are padded to multiples of 32",
    )
    add("--dtypes", nargs="+", choices=DTYPES, default=["float32"], help="of weights and images")
    add("--profile", action="store_true", help="tell what they spend their time on at the last size, too")
    add_cpu_time(add)
    add_rounds(add)
    add_output(add)
    add_append(add)
    add = command(
        "runtimes", runtimes, "networks in turns where they are deployed: AOTInductor, ONNX Runtime, OpenVINO"
    )
    add(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="names of the zoo, timm:NAME or repo folders, the baseline first; without one, those of the page",
    )
    add("--runtimes", nargs="+", choices=RUNTIME_NAMES, default=list(RUNTIME_NAMES), help="in the order of the table")
    add("--batch_sizes", nargs="+", type=positive_int, default=[1, 8], help="images in a batch")
    add("--image_size", type=positive_int, help="pixels a side of ours; the networks' own without it")
    add("--latency_rounds", type=positive_int, default=50, help="rounds at batch 1, for its 99th percentile")
    add_cpu_time(add)
    add("--memory", action="store_true", help="measure it, too, each time in a fresh process (Linux)")
    add("--dataset", help="measure trained networks' accuracy on it, as sk-transformers train takes it")
    add_rounds(add)
    add_output(add)
    add_append(add)
    add = command("calibration", calibration, "the figures of calibrations in one file, of which the page is made")
    add("calibrations", nargs="+", metavar="NAME=FOLDER", help="what sk-transformers calibrate wrote, and its name")
    add("--runtimes", nargs="+", default=[], metavar="NAME=FILE", help="what runtimes wrote")
    add("--probe", metavar="FILE", help="what probe wrote")
    add("--evaluations", nargs="+", metavar="NAME=FOLDER", help="what sk-transformers evaluate wrote, and of what")
    add("--output", type=writable, required=True, metavar="FILE", help="where to write the figures, as JSON")
    add = command("probe", probe, "a linear classifier on the mean patch tokens of networks")
    add("networks", nargs="+", metavar="NETWORK", help="repo folders or Hub ids")
    add("--dataset", required=True, help="labelled images, as sk-transformers train takes them")
    add("--train_images", type=positive_int, default=5000, help="that the classifier learns from, at most")
    add("--test_images", type=positive_int, default=2000, help="that it is tried on, at most")
    add("--image_size", type=positive_int, help="pixels a side; the networks' own without it")
    add_output(add)
    add = command("displacement", displacement, "trained classifiers on images that are shifted, enlarged or corrupted")
    add("networks", nargs="*", metavar="NETWORK", help="names of the zoo, repo folders or Hub ids; all trained ones")
    add("--dataset", required=True, help="labelled images, as sk-transformers train takes them")
    add("--images", type=positive_int, default=2000, help="that are tried, at most, drawn at random")
    add("--severities", nargs="*", type=int, choices=range(1, 6), default=[1, 3, 5], help="of the 15 corruptions")
    add_output(add)
    add_append(add)
    add_rounds(command("startup", startup, "the import, and loading from a file"))
    add_training(command("training", training, "training loops beside those of transformers and timm"))
    add = command("loading", loading, "loaders of training images beside timm's and torchvision's, without a network")
    add("--dataset", type=folder_of_images, metavar="FOLDER", help="with `train` in it; example images without one")
    add("--image_size", type=positive_int, default=224, help="pixels a side")
    add("--batch_size", type=positive_int, default=32, help="images in a batch")
    add("--batches", type=positive_int, default=8, help="of each loader in a round; five more are not timed")
    add("--workers", nargs="+", type=int, choices=(0, 1), default=[0, 1], help="processes that load images")
    add("--model", default="skaformer-s18", help="a name of the zoo, whose training step loading is a share of")
    add_rounds(add)
    add_output(add)
    return parser


def add_models(add: Add) -> None:
    """Add the choice of networks of the zoo."""
    add("--models", metavar="NAME", help="part of a name, or a pattern; all networks without it")


def add_rounds(add: Add) -> None:
    """Add the number of rounds."""
    add("--rounds", type=positive_int, default=5, help="of which the median counts; one more comes before")


def add_output(add: Add) -> None:
    """Add the file of the figures."""
    add("--output", type=writable, metavar="FILE", help="where to write the figures, as JSON")


def add_cpu_time(add: Add) -> None:
    """Add the choice of the clock."""
    add("--cpu_time", action="store_true", help="time of the CPU: with one thread, where others use the machine")


def add_append(add: Add) -> None:
    """Add whether figures are added to those of a file."""
    add("--append", action="store_true", help="keep the runs that the file of the figures has")


def add_comparisons(add: Add) -> None:
    """Add the choice of comparisons."""
    add_models(add)
    add_rounds(add)
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="what is timed")
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="of the weights, or in training of autocast")


def add_training(add: Add) -> None:
    """Add what the training loops train."""
    add("--model", default="skvit-tiny-patch16-224", help="a name of the zoo")
    add("--image_size", type=positive_int, default=224, help="pixels a side")
    add("--images", choices=["photos", "digits"], default="photos", help="500x375 JPEG or 8x8 PNG")
    add("--batch_size", type=positive_int, default=16, help="images a step")
    add("--steps", type=positive_int, default=10, help="of each loop in a round; three of them are not timed")
    add_rounds(add)
    add("--workers", type=non_negative_int, default=0, help="processes that load images, for each loop")
    add_output(add)


def height_width(text: str) -> tuple[int, int]:
    """Return the pixels of images, `"512"` or `"800x1333"`, as height and width."""
    return size_pair("size", image_size(text))


def usable_device(name: str) -> torch.device:
    """Return the device of the name, if this machine has it and torch can tell its memory."""
    here = torch.accelerator.current_accelerator()
    names = ["cpu"] if here is None else ["cpu", here.type]
    if name.split(":")[0] not in names:
        raise argparse.ArgumentTypeError(f"{name} is not on this machine, which has {' and '.join(names)}")
    if name != "cpu" and not hasattr(torch.accelerator, "max_memory_allocated"):
        raise argparse.ArgumentTypeError(f"{name} takes torch 2.9 or newer, and this is {torch.__version__}")
    return torch.device(name)


def writable(name: str) -> Path:
    """Return the path of a file to write, if its folder exists."""
    if not Path(name).parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name} cannot be written: there is no folder {Path(name).parent}")
    return Path(name)


def folder_of_images(name: str) -> Path:
    """Return the path of a folder that has the folder `train`."""
    if not (Path(name) / "train").is_dir():
        raise argparse.ArgumentTypeError(f"{name}: there is no folder {Path(name) / 'train'}, expected one of images")
    return Path(name)


def count(args: argparse.Namespace) -> None:
    """Print parameters and multiply-adds, or those of Mask R-CNN."""
    from . import counts

    names = named(args.models)
    print(counts.to_table(names) if args.mask_rcnn is None else counts.to_detector_table(names, args.mask_rcnn))


def speed(args: argparse.Namespace) -> None:
    """Print results as they come, since all take long, then the table; write them after each."""
    compare_speed(args, torch.device("cpu"), {})


def device(args: argparse.Namespace) -> None:
    """Check the mixers' numbers on a device, and print the kernels that they took; then do as `speed` does there."""
    from . import numerics

    if args.triton:
        if args.device.type != "cuda":
            raise ValueError(f"--triton: that kernel is for CUDA devices, and --device is {args.device}.")
        from ..triton_kernel import use_triton

        use_triton()
    checks = []
    for check in numerics.check_mixers(args.device):
        checks.append(check)
        print(check, flush=True)
    print(f"\n{numerics.to_table(checks)}\n", flush=True)
    compare_speed(args, args.device, {"provenance": provenance(), "numerics": [vars(check) for check in checks]})
    if not all(check.is_right for check in checks):
        raise ValueError(f"--device {args.device}: numbers are wrong there, see the first table.")


def compare_speed(args: argparse.Namespace, device: torch.device, more: dict[str, Any]) -> None:
    """Do as `speed` does on a device, and write `more` with its figures."""
    from . import speed, speed_report

    chosen = chosen_comparisons(args)
    if not any(set(comparison.batch_sizes) & set(args.batch_sizes) for comparison in chosen):
        sizes = sorted({size for comparison in chosen for size in comparison.batch_sizes})
        raise ValueError(
            f"--batch_sizes {' '.join(map(str, args.batch_sizes))}: expected some of {' '.join(map(str, sizes))},"
            " which these are measured at."
        )
    results: list[speed.Result] = []
    for result in speed.compare(chosen, args.tasks, args.modes, args.dtypes, args.batch_sizes, args.rounds, device):
        results.append(result)
        print(speed_report.to_row(result), flush=True)
        if args.output:
            write_json({**speed.to_json(results, device), **more}, args.output)
    print(f"\n{speed_report.to_table(results)}")


def profile(args: argparse.Namespace) -> None:
    """Print a table of operators for each comparison, task and dtype, at its largest batch."""
    from . import operators, speed

    for comparison in chosen_comparisons(args):
        for task, dtype in product((task for task in args.tasks if task in comparison.tasks), args.dtypes):
            batch = max(comparison.batch_sizes)
            times = speed.profile_operators(comparison, task, dtype, batch, args.rounds)
            print(f"\n{task}, {dtype}, batch {batch}\n\n{operators.to_table(times)}", flush=True)


def chosen_comparisons(args: argparse.Namespace) -> "list[Comparison]":
    """Return the comparisons that the options choose, at least one."""
    from .speed import COMPARISONS

    pattern = "*" if args.models is None else args.models if "*" in args.models else f"*{args.models}*"
    chosen = [comparison for comparison in COMPARISONS if fnmatch(comparison.name, pattern)]
    if not chosen:
        names = ", ".join(dict.fromkeys(comparison.name for comparison in COMPARISONS))
        raise ValueError(f"--models {args.models}: expected one of those compared: {names}.")
    if not any(set(comparison.tasks) & set(args.tasks) for comparison in chosen):
        raise ValueError(f"--tasks {' '.join(args.tasks)}: {args.models} is measured in inference only.")
    return chosen


def scaling(args: argparse.Namespace) -> None:
    """Print points as they come, then the tables; write them after each, and the plot at the end."""
    from . import scaling

    points: list[scaling.Point] = []
    for point in scaling.measure_scaling(args.rounds):
        points.append(point)
        print(point, flush=True)
        if args.output:
            write_json(scaling.to_json(points), args.output)
    print(f"\n{scaling.to_table(points)}\n\n{scaling.to_exponent_table(points)}")
    if args.plot:
        scaling.plot_throughput(points, args.plot)


def resolution(args: argparse.Namespace) -> None:
    """Print a table for each hybrid network."""
    from .resolution import HEADER, measure_resolutions, to_row

    hybrids = [name for name in named(args.models) if get_variant(name).family == "skformer"]
    if not hybrids:
        raise ValueError(f"--models {args.models}: expected a hybrid network; a ViT has keys of a single grid.")
    for name in hybrids:
        print(f"{name}, {torch.get_num_threads()} threads\n", *HEADER, sep="\n")
        for costs in measure_resolutions(name, args.rounds):
            print(to_row(costs), flush=True)


def dense(args: argparse.Namespace) -> None:
    """Print costs as they come, then the tables; write them after each."""
    from . import dense
    from .measure import describe_machine

    figures, costs = runs_before(args), []
    run = {"machine": describe_machine(), "provenance": provenance(), "cpu_time": args.cpu_time, "rounds": args.rounds}
    figures["runs"].append(run)
    clock = time.process_time if args.cpu_time else time.perf_counter
    for cost in dense.measure_backbones(
        args.networks or dense.NETWORKS, args.sizes, args.dtypes, args.rounds, clock, args.profile
    ):
        costs.append(cost)
        print(cost, flush=True)
        run["costs"] = dense.to_json(costs)
        if args.output:
            write_json(figures, args.output)
    print(f"\n{dense.to_text({'runs': [run]})}")


def runtimes(args: argparse.Namespace) -> None:
    """Print timings as they come, and the table of each group of networks; write them after each."""
    from ..data.options import DataOptions
    from . import runtimes

    figures = runs_before(args)
    data = None if args.dataset is None else DataOptions(args.dataset)
    for group, names in ({"trained": args.networks} if args.networks else runtimes.GROUPS).items():
        timings: list[dict[str, Any]] = []
        machine = runtimes.describe()
        run = {"machine": machine, "provenance": provenance(), "cpu_time": args.cpu_time, "timings": timings}
        for timing in runtimes.measure_runtimes(
            names,
            args.runtimes,
            args.batch_sizes,
            args.rounds,
            args.image_size,
            args.latency_rounds,
            data if group == "trained" else None,
            time.process_time if args.cpu_time else time.perf_counter,
            args.memory,
        ):
            timings.append(vars(timing))
            print(timing, flush=True)
        figures["runs"].append(run)
        if args.output:
            write_json(figures, args.output)
        print(f"\n{runtimes.to_text({'runs': [run]})}", flush=True)


def runs_before(args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures with the runs that `--append` keeps, none without it."""
    if args.append and args.output is not None and args.output.is_file():
        return json.loads(args.output.read_text(encoding="utf-8"))
    return {"runs": []}


def calibration(args: argparse.Namespace) -> None:
    """Gather the figures of calibrations and of what was measured beside them."""
    from .calibration_report import gather, read_evaluation, read_folder

    folders, files, evaluations = (
        dict(one.split("=", 1) for one in named) for named in (args.calibrations, args.runtimes, args.evaluations or [])
    )
    more = {"runtimes": {name: json.loads(Path(file).read_text()) for name, file in files.items()}}
    if args.probe:
        more["probe"] = json.loads(Path(args.probe).read_text())
    if evaluations:
        more["evaluations"] = {name: read_evaluation(folder) for name, folder in evaluations.items()}
    write_json(gather({name: read_folder(folder) for name, folder in folders.items()}, more), args.output)


def probe(args: argparse.Namespace) -> None:
    """Print a table of accuracies."""
    from ..data.options import DataOptions
    from . import probe

    options = DataOptions(args.dataset)
    probes = []
    for one in probe.measure_probes(args.networks, options, args.train_images, args.test_images, args.image_size):
        probes.append(one)
        print(one, flush=True)
    if args.output:
        write_json({"provenance": provenance(), "probes": [vars(one) for one in probes]}, args.output)
    print(f"\n{probe.to_table(probes)}")


def displacement(args: argparse.Namespace) -> None:
    """Print what networks lose under each condition, then the table."""
    from ..data.options import DataOptions
    from ..zoo import TRAINED
    from . import displacement

    names, conditions = args.networks or list(TRAINED), displacement.conditions_of(args.severities)
    answered: dict[str, dict[displacement.Condition, displacement.Answers]] = {name: {} for name in names}
    data = DataOptions(args.dataset)
    for condition, answers in displacement.measure_displacements(names, data, args.images, conditions):
        for name, there in zip(names, answers):
            answered[name][condition] = there
        print(*condition, *(f"{there.correct.mean():.1%}" for there in answers), flush=True)
    networks = [displacement.summarize(name, there) for name, there in answered.items()]
    figures = runs_before(args)
    figures["runs"].append({"provenance": provenance(), "dataset": Path(args.dataset).name, "networks": networks})
    if args.output:
        write_json(figures, args.output)
    print(f"\n{displacement.to_text(figures)}")


def startup(args: argparse.Namespace) -> None:
    """Print how long it takes to begin."""
    from .startup import to_text

    print(to_text(args.rounds))


def training(args: argparse.Namespace) -> None:
    """Print a table of training loops."""
    from .training_speed import Task, compare_loops, to_table

    task = Task(args.model, args.batch_size, args.image_size, args.steps, args.images, args.workers)
    figures = compare_loops(task, args.rounds)
    print(to_table(figures))
    if args.output:
        write_json(figures, args.output)


def loading(args: argparse.Namespace) -> None:
    """Print the rounds of loaders as they come, then the table."""
    from . import loading
    from .example_images import write_images

    step = loading.measure_step(args.model, args.image_size)
    print(f"{args.model}: {step:.1f} ms an image", flush=True)
    with TemporaryDirectory() as temporary:
        folder = args.dataset or Path(temporary)
        if args.dataset is None:
            batches = args.batches + loading.FIRST_BATCHES + loading.LAST_BATCHES
            write_images(folder, "photos", args.batch_size * batches)
        measured: list[loading.Loading] = []
        for one in loading.measure_loading(
            folder, args.image_size, args.batch_size, args.batches, args.workers, args.rounds
        ):
            measured.append(one)
            print(one, flush=True)
    figures = loading.to_json(measured, args.model, step)
    if args.output:
        write_json(figures, args.output)
    print(f"\n{loading.to_text(figures)}")


def named(pattern: str | None) -> list[str]:
    """Return the networks of the zoo that a name or pattern fits, at least one."""
    names = list_models(pattern)
    if not names:
        raise ValueError(f"--models {pattern}: no network of the zoo is called so; see `sk-transformers list`.")
    return names


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    args.run(args)
