"""Comparisons of networks: which runs they make, and the figures drawn from them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from matplotlib.figure import Figure

from sk_transformers.benchmarks import mixers
from sk_transformers.benchmarks.mixers import compare, find_plan, read_plan, run_options
from sk_transformers.benchmarks.mixers_report import markdown, plot_comparison, plot_family, summarize
from sk_transformers.training import loop

ROOT = Path(__file__).parents[2]
PLAN = {
    "seeds": [3, 5],
    "baseline": "attention",
    "parameter_tolerance": 0.05,
    "options": {
        "recipe": "digits", "num_train_epochs": 1, "steps_per_epoch": 2, "per_device_train_batch_size": 64,
        "warmup_steps": 1, "max_eval_samples": 100, "checkpointing_steps": 1,
    },
    "families": {
        "ViT": {
            "model": "vit-nano-patch4-32",
            "config": {"num_hidden_layers": 2, "pooling": "mean"},
            "networks": {
                "attention": {"token_mixer": "attention"},
                "pooling": {"token_mixer": "pooling", "intermediate_size": 256},
            },
        }
    },
}  # fmt: skip


def write_plan(folder, **changes):
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump({**PLAN, **changes}))
    return read_plan(file)


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("comparison")
    return folder, compare(write_plan(folder), folder / "runs", timed_rounds=2)


@pytest.mark.slow
def test_every_network_is_trained_with_every_seed(compared):
    folder, results = compared
    assert [(n["family"], n["mixer"]) for n in results["networks"]] == [("ViT", "attention"), ("ViT", "pooling")]
    for network in results["networks"]:
        assert [run["seed"] for run in network["runs"]] == [3, 5]
        assert (network["steps"], network["batch_size"]) == (2, 64)
        assert len(network["step_seconds"]) == 2
        for run in network["runs"]:
            metrics = metrics_of(folder / "runs" / f"ViT-{network['mixer']}-seed{run['seed']}")
            assert metrics["arguments"]["seed"] == run["seed"]
            assert metrics["parameters"] == network["parameters"]
            assert {name: metrics["history"][-1][name] for name in ("top1", "loss")} == {
                name: run[name] for name in ("top1", "loss")
            }
    assert json.loads((folder / "runs" / "results.json").read_text()) == results
    assert not [*folder.glob("runs/*/model"), *folder.glob("runs/*/checkpoint-*")]


@pytest.mark.slow
def test_a_run_does_not_depend_on_those_before(compared, tmp_path):
    folder, _ = compared
    network = write_plan(tmp_path).networks[-1]
    alone = loop.train(run_options(network, 5, tmp_path / "alone"))
    assert metrics_of(alone)["history"] == metrics_of(folder / "runs" / "ViT-pooling-seed5")["history"]


@pytest.mark.slow
def test_the_last_evaluation_counts_and_not_the_best(compared):
    folder, _ = compared
    record = metrics_of(folder / "runs" / "ViT-attention-seed3")
    last = record["history"][-1]
    better = {**last, "top1": 1.0}
    records = {("ViT-attention", 3): {**record, "history": [better, last], "best": better}}
    (network,) = mixers.collect(write_plan(folder), records)["networks"]
    assert network["runs"][0]["top1"] == last["top1"] < 1


@pytest.mark.slow
def test_finished_runs_are_not_repeated(compared, monkeypatch):
    folder, results = compared

    def train(options):
        raise AssertionError(f"{options.run.output_dir} is trained again")

    monkeypatch.setattr(mixers, "train", train)
    again = compare(write_plan(folder), folder / "runs")
    for before, now in zip(results["networks"], again["networks"]):
        assert now["runs"] == before["runs"]


@pytest.mark.slow
def test_a_stopped_comparison_goes_on(compared, tmp_path, monkeypatch):
    _, results = compared
    save, saved = loop.save_checkpoint, []

    def stop_in_the_second_run(accelerator, run, state, *args):
        save(accelerator, run, state, *args)
        saved.append((run.name, state.step))
        if saved[-1] == ("ViT-pooling-seed3", 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", stop_in_the_second_run)
    with pytest.raises(KeyboardInterrupt):
        compare(write_plan(tmp_path), tmp_path / "runs", keep_weights=True)
    so_far = json.loads((tmp_path / "runs" / "results.json").read_text())
    assert [len(network["runs"]) for network in so_far["networks"]] == [1]

    saved.clear()
    resumed = compare(write_plan(tmp_path), tmp_path / "runs", keep_weights=True)
    assert saved[0] == ("ViT-pooling-seed3", 2)
    for whole, network in zip(results["networks"], resumed["networks"]):
        assert network["runs"] == whole["runs"]
    assert len([*tmp_path.glob("runs/*/model")]) == 4


@pytest.mark.slow
def test_a_folder_belongs_to_one_plan(compared):
    folder, _ = compared
    other = write_plan(folder, options={**PLAN["options"], "learning_rate": 1e-5})
    with pytest.raises(ValueError, match="runs of ViT-attention with --learning_rate 0.002, and this plan says 1e-05"):
        compare(other, folder / "runs")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"parameter_tolerance": 0.001}, "ViT-pooling has .* parameters and the baseline .*, expected within 0%"),
        ({"baseline": "static_key"}, "family 'ViT' has no network 'static_key', which is the baseline"),
        (
            {"families": {"ViT": {"networks": {"attention": {}}}}},
            "plan.yaml is not a valid plan of a comparison .'model'.*",
        ),
        ({"seeds": None}, "plan.yaml is not a valid plan of a comparison"),
    ],
)
def test_wrong_plans(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_plan(tmp_path, **change)


def results_of(scores, baseline="a", **fields):
    """Results with these accuracies, `{mixer: {seed: top1}}`."""
    same = {"family": "ViT", "parameters": 1200, "macs": 34_560_000, "batch_size": 10}
    networks = [
        {"mixer": mixer, **same, **fields.get(mixer, {}), "runs": [{"seed": s, "top1": t} for s, t in by_seed.items()]}
        for mixer, by_seed in scores.items()
    ]
    return {"baseline": baseline, "data": {"train_images": 100}, "networks": networks}


def test_the_interval_of_two_networks_is_that_of_the_paired_t_test():
    a, b = [0.91, 0.93, 0.90, 0.94], [0.90, 0.95, 0.92, 0.93]
    (family,) = summarize(results_of({"a": dict(enumerate(a)), "b": dict(enumerate(b))}))
    interval = scipy.stats.ttest_rel(b, a).confidence_interval(0.95)
    row = family.rows[1]
    assert [row.difference - family.resolution, row.difference + family.resolution] == pytest.approx(
        [100 * interval.low, 100 * interval.high]
    )
    assert (row.mean, row.spread) == pytest.approx((100 * np.mean(b), 100 * np.std(b, ddof=1)))


def test_the_interval_of_several_networks_is_that_of_the_linear_model():
    """Least squares with a column for each network and each seed but one, and Bonferroni's correction."""
    scores = np.random.default_rng(0).normal(90, 1, (4, 3))
    (family,) = summarize(results_of({f"{i}": dict(enumerate(row / 100)) for i, row in enumerate(scores)}, "0"))
    networks, seeds = np.indices(scores.shape).reshape(2, -1)
    design = np.stack([networks == i for i in range(4)] + [seeds == i for i in (1, 2)], axis=1).astype(float)
    coefficients, (residual,), *_ = np.linalg.lstsq(design, scores.ravel(), rcond=None)
    contrast = np.array([-1, 1, 0, 0, 0, 0])
    error = np.sqrt(residual / (12 - 6) * contrast @ np.linalg.inv(design.T @ design) @ contrast)
    assert family.resolution == pytest.approx(scipy.stats.t(6).ppf(1 - 0.05 / 6) * error)
    assert family.rows[1].difference == pytest.approx(contrast @ coefficients)


def test_only_seeds_that_all_networks_have_are_compared():
    (family,) = summarize(results_of({"a": {0: 0.5, 1: 0.7, 2: 0.9}, "b": {0: 0.6, 2: 0.8}}))
    assert [row.mean for row in family.rows] == pytest.approx([70, 70])
    (family,) = summarize(results_of({"a": {0: 0.5, 1: 0.7}, "b": {1: 0.8}}))
    assert family.resolution is None and family.rows[1].spread is None
    assert family.rows[1].difference == pytest.approx(10)


def test_times_are_medians_of_the_ratios_of_a_round():
    a, b = {"step_seconds": [1.0, 8.0, 2.0]}, {"step_seconds": [3.0, 12.0, 4.0]}  # ratios 3, 1.5 and 2
    (family,) = summarize(results_of({"a": {0: 0.5}, "b": {0: 0.5}}, a=a, b=b))
    assert [row.step_ratio for row in family.rows] == [1, 2]
    assert [row.epoch_seconds for row in family.rows] == [20, 40]  # 100 images in batches of 10


def test_the_table():
    b = {"step_seconds": [3.0]}
    text = markdown(results_of({"a": {0: 0.5, 1: 0.6}, "b": {0: 0.7, 1: 0.8}}, a={"step_seconds": [2.0]}, b=b))
    assert text.splitlines()[-2:] == [
        "| a | 1.2 | 34.56 | 55.00 | 7.07 |  | 1.00 | 20 |",
        "| b | 1.2 | 34.56 | 75.00 | 7.07 | +20.00 ± 0.00 | 1.50 | 30 |",
    ]


def test_the_plot_has_every_seed_and_the_mean(tmp_path):
    results = results_of({"a": {0: 0.5, 1: 0.6}, "b": {0: 0.7, 1: 0.8}})
    axes = Figure().subplots()
    plot_family(axes, summarize(results)[0], "a")
    points = [tuple(line.get_xdata()) for line in axes.lines]
    assert points == [(55, 55), (50, 60), (55,), (70, 80), (75,)]  # the baseline's mean, then seeds and mean
    plot_comparison(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def load_script():
    spec = importlib.util.spec_from_file_location("compare_mixers", ROOT / "scripts" / "compare_mixers.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize(("name", "networks"), [("mixers", 10), ("mixers-longer", 3)])
def test_the_plans_of_the_mixers(name, networks):
    plan = read_plan(find_plan(name))
    assert len(plan.networks) == networks
    for network in plan.networks:
        options = run_options(network, 0, Path("run"))
        assert (options.data.dataset, options.model.model) == ("fashion-mnist", network.model)
        assert options.model.config_fields == network.overrides


@pytest.mark.parametrize("name", ["mixers", "mixers-longer"])
def test_the_page_has_the_figures_of_the_file(name, capsys, tmp_path):
    figures = tmp_path / "figures.json"
    figures.write_bytes((ROOT / "docs" / f"{name}.json").read_bytes())
    load_script().main(["--report", str(figures)])
    assert capsys.readouterr().out.strip() in (ROOT / "docs" / "mixers.md").read_text()
    assert figures.with_suffix(".png").exists()


def test_a_plan_that_is_not_there():
    with pytest.raises(
        ValueError, match="--plan mixer: there is no such file, nor a plan .* among mixers, mixers-longer"
    ):
        load_script().main(["--plan", "mixer"])


@pytest.mark.parametrize(
    ("text", "sentence"), [("[1, 2", "is not valid JSON"), ("[]", "does not hold the results"), ("{}", "does not hold")]
)
def test_files_that_are_not_results(text, sentence, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=f"results.json {sentence}"):
        load_script().main(["--report", str(tmp_path / "results.json")])
