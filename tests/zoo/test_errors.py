from __future__ import annotations

import inspect
import pickle

import pytest

import zoo.errors
from zoo.errors import ZooError, unknown_name

TREE = [kind for _, kind in inspect.getmembers(zoo.errors, inspect.isclass) if issubclass(kind, ZooError)]


def test_the_tree_in_the_docstring_is_complete() -> None:
    for kind in TREE:
        assert kind.__name__ in zoo.errors.__doc__


@pytest.mark.parametrize("kind", TREE)
def test_errors_cross_processes_with_both_parts(kind: type[ZooError]) -> None:
    error = pickle.loads(pickle.dumps(kind("wrong", "do this")))
    assert (type(error), error.problem, error.hint, str(error)) == (kind, "wrong", "do this", "wrong do this")


@pytest.mark.parametrize(
    ("name", "guess"), [("lite", "lite0"), ("efficientnetv2_s", "s"), ("TINY", "tiny"), ("resnet", None)]
)
def test_the_nearest_names_are_guessed(name: str, guess: str | None) -> None:
    problem = unknown_name("model", name, ["s", "lite0", "tiny"], "").problem
    assert problem.startswith(f"Unknown model {name!r}.")
    assert (f"Did you mean {guess}" in problem) if guess else ("Did you mean" not in problem)
