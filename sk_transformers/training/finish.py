"""What a run leaves when it is done: figures, curves and the repo folder."""

import json
from pathlib import Path

from transformers import PreTrainedModel

from ..hub import export, push_folder
from .checkpoints import Progress, checkpoint_folder, load_checkpoint
from .curves import plot_curves
from .display import say
from .model import add_lora
from .record import run_card, run_record
from .setup import Setup


def finish(setup: Setup, run: Path, progress: Progress) -> None:
    """Leave `metrics.json`, `curves.png`, and in `model` the repo folder with the weights of the best checkpoint."""
    model = best_model(setup, checkpoint_folder(run, progress.best_step))
    if setup.accelerator.is_main_process:
        record = run_record(setup.args, model, setup.data, progress, setup.accelerator)
        partial = run / ".metrics.json.partial"
        partial.write_text(json.dumps(record, indent=2) + "\n")
        partial.rename(run / "metrics.json")
        plot_curves(progress.history, run / "curves.png")
        card = run_card(model, run.name, record)
        repo = export(model, setup.processor, run / "model", card, pictures=[run / "curves.png"])
        say(setup.accelerator, f"Best top-1 {progress.best_top1:.2%}. Ready to push: {repo}")
        if setup.args.push_to_hub:
            pushed = push_folder(run, setup.args.push_to_hub, private=setup.args.hub_private)
            say(setup.accelerator, str(pushed))
    setup.accelerator.wait_for_everyone()


def best_model(setup: Setup, checkpoint: Path) -> PreTrainedModel:
    """A copy with the weights of the checkpoint, averaged if the run averages them, and adapters merged in."""
    load_checkpoint(setup.accelerator, checkpoint, setup.ema and setup.ema.module)
    # Also where the weights are split among the processes, all of which have to take part.
    state = setup.accelerator.get_state_dict(setup.model)
    if setup.ema is not None:
        state = setup.ema.module.state_dict()
    model = setup.model_class(setup.config)
    if setup.args.lora_rank:
        model = add_lora(model, setup.args)
    if setup.accelerator.is_main_process:
        model.load_state_dict(state)
    return (model.merge_and_unload() if setup.args.lora_rank else model).eval()
