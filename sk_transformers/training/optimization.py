"""What the optimizer does with each parameter, and how fast at each step."""

import re

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import CosineLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from .options import PARAMETER_KINDS, OptimizationOptions, ScheduleOptions

LAYER = re.compile(r"(?:stages\.(\d+)\.)?(?<!_)layers\.(\d+)\.")  # not those of a class token, a part of the head
STAGE = re.compile(r"stages\.(\d+)\.(?:downsampling|class_token)\.")
EMBEDDINGS = ("embeddings.", "stem.")


def kind_of(name: str, parameter: nn.Parameter) -> str:
    """Return one of `PARAMETER_KINDS`, or `"weights"`. Scales of norms, residuals and activations are `"norms"`."""
    name = re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name)
    last = name.rsplit(".", 1)[-1]
    if last in ("position_embeddings", "cls_token", "distillation_token", "register_tokens", "probe"):
        return "positions"
    if last in ("key", "class_key"):
        return "keys"
    if last.endswith("bias"):
        return "biases"
    return "norms" if parameter.ndim <= 1 else "weights"


def layer_indices(model: nn.Module) -> tuple[dict[str, int], int]:
    """Return each parameter's distance from the image: 0 for embeddings and stem, then 1, 2, ... for the layers.

    A stage's downsampling and class token go with its first layer, the final norm and the head with the highest index.

    Returns:
        The index of every parameter by name, and the highest index.
    """
    names = [name for name, _ in model.named_parameters()]
    layers = sorted({(int(m[1] or 0), int(m[2])) for m in map(LAYER.search, names) if m})
    index_of = {layer: index for index, layer in enumerate(layers, start=1)}
    last = len(layers) + 1

    def index(name: str) -> int:
        if match := LAYER.search(name):
            return index_of[int(match[1] or 0), int(match[2])]
        if match := STAGE.search(name):
            return index_of[int(match[1]), 0]
        return 0 if any(part in name for part in EMBEDDINGS) else last

    return {name: index(name) for name in names}, last


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    no_weight_decay: list[str] | tuple[str, ...] = PARAMETER_KINDS[:3],
    layer_decay: float = 1.0,
) -> list[dict]:
    """Return every trainable parameter in exactly one group, by layer and by whether it decays.

    Args:
        model: one of this package's, also wrapped by PEFT.
        weight_decay: of parameters whose kind is not in `no_weight_decay`.
        no_weight_decay: some of `PARAMETER_KINDS`.
        layer_decay: factor on the learning rate from one layer to the one below (arXiv 2106.08254); timm's schedulers
            apply it as the group's `lr_scale`.
    """
    indices, last = layer_indices(model)
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = indices[name] if layer_decay != 1.0 else last
            decays = kind_of(name, parameter) not in no_weight_decay
            group = groups.setdefault(
                (layer, decays),
                {
                    "params": [],
                    "weight_decay": weight_decay if decays else 0.0,
                    "lr_scale": layer_decay ** (last - layer),
                },
            )
            group["params"].append(parameter)
    return list(groups.values())


def make_optimizer(options: OptimizationOptions, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Return timm's optimizer of the name, over `parameter_groups`; ValueError if there is none."""
    if options.opt not in list_optimizers():
        raise ValueError(
            f"--opt {options.opt} is not an optimizer of timm: expected one such as adamw, lamb, sgd or lion."
        )
    groups = parameter_groups(model, options.weight_decay, options.no_weight_decay, options.layer_decay)
    info, settings = get_optimizer_info(options.opt), {}
    if options.opt_betas is not None:
        expected = info.num_betas if info.has_betas else 0
        if len(options.opt_betas) != expected:
            raise ValueError(
                f"--opt_betas has {len(options.opt_betas)} of them, and --opt {options.opt} has {expected}."
            )
        settings["betas"] = tuple(options.opt_betas)
    if options.opt_eps is not None:
        if not info.has_eps:
            raise ValueError(f"--opt_eps {options.opt_eps}: --opt {options.opt} has none; leave it out.")
        settings["eps"] = options.opt_eps
    if info.opt_class in (torch.optim.Adam, torch.optim.AdamW):
        settings["fused"] = True  # one kernel in place of ten a parameter
    return create_optimizer_v2(
        groups,
        opt=options.opt,
        lr=learning_rate,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        **settings,
    )


class Schedule:
    """The learning rate of every step: warm-up, then a cosine, a line or a constant, then cool-down at the lowest.

    It depends on the step alone, so a resumed run needs no state of it.

    Args:
        options: its course; the learning rate is the next argument, which may be scaled.
        optimizer: whose groups' `lr` is set.
        learning_rate: at the peak.
        steps_per_epoch: optimizer steps.
        total_steps: optimizer steps, cool-down included.
    """

    def __init__(
        self,
        options: ScheduleOptions,
        optimizer: torch.optim.Optimizer,
        learning_rate: float,
        steps_per_epoch: int,
        total_steps: int,
    ) -> None:
        self.optimizer = optimizer
        self.unit = steps_per_epoch if options.schedule_by == "epoch" else 1  # steps between changes
        cooldown = round(options.cooldown_epochs * steps_per_epoch)
        warmup = (
            round(options.warmup_epochs * steps_per_epoch)
            if options.warmup_epochs is not None
            else options.warmup_steps
        )
        duration = max(1, total_steps - cooldown)
        common = {
            "warmup_t": min(warmup, duration - 1),
            "warmup_lr_init": options.warmup_learning_rate * learning_rate,
            "t_in_epochs": False,
        }
        lowest = options.final_learning_rate * learning_rate
        self.scheduler: Scheduler = {
            "cosine": lambda: CosineLRScheduler(optimizer, t_initial=duration, lr_min=lowest, **common),
            "linear": lambda: PolyLRScheduler(optimizer, t_initial=duration, power=1.0, lr_min=lowest, **common),
            "constant": lambda: StepLRScheduler(optimizer, decay_t=duration, decay_rate=1.0, **common),
        }[options.schedule]()

    def set(self, step: int) -> float:
        """Set the learning rate of this step, counted from 0, and return the highest of the groups'."""
        self.scheduler.step_update(step // self.unit * self.unit)
        return max(group["lr"] for group in self.optimizer.param_groups)
