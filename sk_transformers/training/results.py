"""What a run leaves when it is done: figures, curves and the repo folder."""

import shlex
import tempfile
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, pipeline

from ..data.drawn_digits import draw_digits
from ..evaluation.pictures import draw_predictions
from ..files import write_json
from ..hub import export, push_folder
from ..hub.cards.card import RepoFacts
from ..hub.cards.completion import example_of
from ..hub.errors import PreflightError, PushError
from ..hub.report import Push
from .checkpoints import RunState, checkpoint_folder, load_checkpoint
from .curves import plot_curves
from .display import say
from .run_record import run_card, run_record
from .setup import Setup
from .spectral_reparam import add_spectral_reparam, fold
from .trainable import add_lora


def finish(setup: Setup, run: Path, state: RunState) -> None:
    """Leave `metrics.json`, `curves.png`, and in `model` the repo folder with the weights of the best checkpoint; of a
    segmenter or detector `pictures/predictions.png`, too, which is not to be pushed.
    """
    model = best_model(setup, checkpoint_folder(run, state.best_step))
    if setup.accelerator.is_main_process:
        record = run_record(setup.options, model, setup.data, state, setup.accelerator)
        write_json(record, run / "metrics.json")
        plot_curves(state.history, setup.problem.titles, run / "curves.png")
        examples = answered_examples(model, setup)
        card = run_card(model, run.name, record, repo=RepoFacts(examples=examples))
        pictures = {"curves.png": run / "curves.png"} | {one["file"]: one["picture"] for one in examples}
        repo = export(model, setup.processor, run / "model", card, pictures)
        say(setup.accelerator, f"Best {setup.problem.best_title} {state.best_score:.2%}. Ready to push: {repo}")
        data = setup.data
        draw_predictions(model, setup.processor, data.validation, data.labels, setup.options.data, run)
        options = setup.options.run
        if options.push_to_hub is not None:
            say(setup.accelerator, str(push(run, options.push_to_hub, options.hub_private)))
    setup.accelerator.wait_for_everyone()


def push(run: Path, repo_id: str, private: bool) -> Push:
    """Bring the run to the Hub; where that fails, say that the run itself is done."""
    try:
        return push_folder(run, repo_id, private=private)
    except (PushError, PreflightError) as error:
        command = shlex.join(["sk-transformers", "push", str(run), repo_id, *["--private"] * private])
        raise type(error)(f"{error} The run is done and all of it is in {run}; to push it: {command}") from error


def answered_examples(model: PreTrainedModel, setup: Setup) -> list[dict[str, Any]]:
    """Return pictures that anybody may show, with the model's answers: of digits only, which are drawn here."""
    if setup.data.name != "digits":
        return []
    classify = pipeline("image-classification", model=model, image_processor=setup.processor, device="cpu")
    with tempfile.TemporaryDirectory() as work:
        return [example_of(file, classify(str(file))) for file in draw_digits(Path(work))]


def best_model(setup: Setup, checkpoint: Path) -> PreTrainedModel:
    """Return a copy with the weights of the checkpoint, averaged if the run averages them, and adapters merged in."""
    load_checkpoint(setup.accelerator, checkpoint, setup.averaged_model)
    # Also where the weights are split among the processes, all of which have to take part.
    weights = setup.accelerator.get_state_dict(setup.model)
    if setup.averaged_model is not None:
        weights = setup.averaged_model.state_dict()
    # PEFT's model passes on what it does not have itself to the network in it.
    model: Any = add_lora(setup.model_class(setup.config), setup.options.lora)
    reparam = setup.options.optimization.spectral_reparam
    if reparam is not None:
        add_spectral_reparam(model, reparam)
    if setup.accelerator.is_main_process:
        model.load_state_dict(weights)
        fold(model)
    return (model if setup.options.lora.lora_rank is None else model.merge_and_unload()).eval()
