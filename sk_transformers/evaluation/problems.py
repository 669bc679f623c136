"""The problems that a classifier is trained for and measured on, by `--problem_type`."""

from transformers import PretrainedConfig

from .multi_label import MULTI_LABEL
from .predictions import Problem
from .single_label import SINGLE_LABEL

PROBLEMS: dict[str, Problem] = {"single_label": SINGLE_LABEL, "multi_label": MULTI_LABEL}


def choose_problem(problem_type: str, model: str, config: PretrainedConfig) -> Problem:
    """Return the problem of this type; ValueError if the model was trained for another one."""
    own = next((name for name, one in PROBLEMS.items() if one.config_type == config.problem_type), "single_label")
    if own != problem_type:
        raise ValueError(f"model {model} was trained with --problem_type {own}, and the data is {problem_type}.")
    return PROBLEMS[problem_type]
