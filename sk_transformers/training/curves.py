"""The course of a run as a picture."""

from pathlib import Path

from matplotlib.figure import Figure

from ..files import save_figure
from .attention_probe import PREFIX


def plot_curves(history: list[dict[str, float]], titles: dict[str, str], file: Path) -> None:
    """Draw loss, the figures that have `titles`, learning rate and, where it was logged, the entropy of attention
    against epochs, side by side.
    """
    scores = {title: name for name, title in titles.items()}
    best, best_title = next(iter(titles.items()))
    epochs = [entry["epoch"] for entry in history]
    entropies = {name.removeprefix(PREFIX).replace("_", " "): name for name in history[0] if name.startswith(PREFIX)}
    figure = Figure(figsize=(14.5 if entropies else 11, 3.2), layout="constrained")
    losses, qualities, rates, *more = figure.subplots(1, 4 if entropies else 3)
    for axes, title, curves in (
        (losses, "loss", {"training": "train_loss", "validation": "loss", "averaged weights": "ema_loss"}),
        (qualities, "validation", {**scores, f"{best_title}, averaged weights": f"ema_{best}"}),
        (rates, "learning rate", {"at the end of the epoch": "learning_rate"}),
        *((axes, "entropy of attention, nats", entropies) for axes in more),
    ):
        for label, name in curves.items():
            if name in history[0]:
                marker = "o" if len(epochs) < 20 else None
                axes.plot(epochs, [entry[name] for entry in history], label=label, marker=marker, markersize=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize=8)
    losses.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    save_figure(figure, file, dpi=110)
