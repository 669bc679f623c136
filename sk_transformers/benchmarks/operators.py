"""What a pass spends its time on, by groups of operators."""

from collections import Counter

from torch.profiler import ProfilerActivity, profile

from .measure import Work

REST = "the rest"
# An operator belongs to the first group one of whose fragments is in its name.
OPERATORS = {
    "attention kernels": ("scaled_dot_product",),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "_linear_pointwise"),
    "convolutions": ("convolution",),
    "norms": ("native_layer_norm",),
    "softmax, exponentials": ("softmax", "aten::exp", "aten::amax"),
    "activations, sums, scales": (
        "aten::gelu", "aten::clamp_min", "aten::threshold", "aten::pow", "aten::mul", "aten::add", "aten::addcmul",
        "aten::sub", "aten::div", "aten::sum",
    ),
    "copies": ("aten::copy_", "aten::cat", "aten::fill_"),
}  # fmt: skip


def time_by_operator(work: Work, rounds: int) -> dict[str, float]:
    """Return the milliseconds of a pass for each group of operators and for the rest, on average over the rounds."""
    for _ in range(2):
        work()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(rounds):
            work()
    spent = Counter(dict.fromkeys((*OPERATORS, REST), 0.0))
    for event in profiler.key_averages():
        spent[group_of(event.key)] += event.self_cpu_time_total / 1000 / rounds
    return dict(spent)


def group_of(operator: str) -> str:
    """Return the group that the operator of this name belongs to."""
    return next((group for group, parts in OPERATORS.items() if any(part in operator for part in parts)), REST)


def to_table(times: dict[str, dict[str, float]]) -> str:
    """Return Markdown: a row for each group, a column for each module that was profiled."""
    lines = [f"| ms | {' | '.join(times)} |", f"| --- |{' ---: |' * len(times)}"]
    for group in (*OPERATORS, REST):
        lines.append(f"| {group} | {' | '.join(f'{spent.get(group, 0):.0f}' for spent in times.values())} |")
    lines.append(f"| together | {' | '.join(f'{sum(spent.values()):.0f}' for spent in times.values())} |")
    return "\n".join(lines)
