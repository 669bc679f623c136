"""What a pass spends its time on, by the kind of operator."""

from collections import Counter

from torch.profiler import ProfilerActivity, profile

from .measure import Work

# The first part of a name that fits decides.
KINDS = {
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


def time_by_kind(work: Work, rounds: int) -> dict[str, float]:
    """Milliseconds of a pass for each kind, and for the rest, on average over the rounds."""
    for _ in range(2):
        work()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(rounds):
            work()
    spent = Counter(dict.fromkeys(KINDS, 0.0))
    for event in profiler.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "the rest")
        spent[kind] += event.self_cpu_time_total / 1000 / rounds
    return dict(spent)


def to_table(times: dict[str, dict[str, float]]) -> str:
    """Markdown: a row for each kind, a column for each of those that were profiled."""
    lines = [f"| ms | {' | '.join(times)} |", f"| --- |{' ---: |' * len(times)}"]
    for kind in (*KINDS, "the rest"):
        lines.append(f"| {kind} | {' | '.join(f'{spent.get(kind, 0):.0f}' for spent in times.values())} |")
    lines.append(f"| together | {' | '.join(f'{sum(spent.values()):.0f}' for spent in times.values())} |")
    return "\n".join(lines)
