"""What a comparison of speed found, as Markdown."""

import math
from collections.abc import Sequence
from typing import Any

from .measure import DTYPES, MODES, TASKS
from .speed import Result

HEADER = (
    "| ours | baseline | dtype | batch | images/s | baseline's | ratio | MiB | baseline's | of peak | baseline's |",
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def to_table(results: Sequence[Result]) -> str:
    """Return a row for each result, in a table for each task and mode."""
    tables = []
    for task in TASKS:
        for mode in MODES:
            chosen = [result for result in results if (result.task, result.mode) == (task, mode)]
            if chosen:
                tables.append(f"**{task}, {mode}**\n\n" + "\n".join([*HEADER, *map(to_row, chosen)]))
    return "\n\n".join(tables)


def to_row(result: Result) -> str:
    """Return the row of one result."""
    fractions = result.fraction_of_peak or (math.nan, math.nan)
    cells = [
        result.ours,
        result.baseline,
        result.dtype,
        str(result.batch),
        *(f"{speed:.4g}" for speed in result.images_per_second),
        f"{result.ratio:.2f}",
        *(f"{memory:.0f}" for memory in result.memory_mib),
        *("" if math.isnan(fraction) else f"{fraction:.0%}" for fraction in fractions),
    ]
    return f"| {' | '.join(cells)} |"


def to_summary(results: Sequence[Result]) -> str:
    """Return the ratios of the eager networks at their largest batch, a row for each baseline and task."""
    eager = [result for result in results if result.mode == "eager"]
    lines = ["| | beside | float32 | bfloat16 | memory |", "| --- | --- | ---: | ---: | ---: |"]
    for task, ours, baseline in dict.fromkeys(
        (r.task, r.ours, r.baseline) for r in sorted(eager, key=lambda r: r.task)
    ):
        rows = [result for result in eager if (result.task, result.ours, result.baseline) == (task, ours, baseline)]
        batch = max(result.batch for result in rows)
        ratios = {result.dtype: f"{result.ratio:.2f}x" for result in rows if result.batch == batch}
        mine, theirs = next(result.memory_mib for result in rows if result.batch == batch)
        name = f"{ours}, batch {batch}" if task == "inference" else f"{ours}, batch {batch}, training"
        cells = [name, baseline, *(ratios.get(dtype, "") for dtype in DTYPES), f"{mine / theirs:.2f}x"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def to_source(run: dict[str, Any]) -> str:
    """Return a run's command, machine and clock, as the line below its table."""
    clock = " Time of the CPU: others used the machine." if run["cpu_time"] else ""
    return f"`{run['provenance']['command']}`: {to_sentence(run['machine'])}{clock}"


def to_sentence(machine: dict[str, Any]) -> str:
    """Return the machine and the versions, as the line below a table."""
    amx = " with AMX" if machine["amx"] else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return f"{machine['cpu']}, {threads}, {machine['capability']}{amx}; {versions}."
