"""A failed check of the schema as an error a person can act on: file:line, the value, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from burnish.errors import UsageError
from burnish.recipe.document import Place
from burnish.recipe.said import SOURCE_LISTS, Said
from burnish.recipe.schema import DatasetSource, Recipe
from burnish.recipe.synonyms import say_instead
from burnish.recipe.words import allowed, show

EXAMPLES = {
    "model": "`model: marble`",
    "datasets": "`datasets: data/train.jsonl`",
    "path": "`path: data/train.jsonl`",
}

CONSEQUENCES = {"default_factory_not_called", "too_short"}
"""What pydantic adds after the real error: a default with nothing to follow, a list left empty."""


def complain(error: ValidationError, said: Said, name: str) -> UsageError:
    """The first problem in full, unknown keys before all else, and how many more there are."""
    problems = [each for each in error.errors() if each["type"] not in CONSEQUENCES] or error.errors()
    first = min(problems, key=lambda each: (each["type"] != "extra_forbidden", each["type"] != "missing"))
    result = _explain(first, said, name)
    others = len({str(_place(each, said)) for each in problems} - {str(_place(first, said))})
    if others:
        result = UsageError(
            result.saw, rule=result.rule, remedy=f"{result.remedy} ({others} more to mend after this)"
        )
    return result


def dotted(place: Place) -> str:
    """`("datasets", 1, "weight")` as people write it: `datasets[1].weight`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def _explain(problem: ErrorDetails, said: Said, name: str) -> UsageError:
    place = _place(problem, said)
    if problem["type"] == "extra_forbidden":
        known = (
            DatasetSource.model_fields if place[0] in SOURCE_LISTS and len(place) > 1 else Recipe.model_fields
        )
        return UsageError(
            f"{said.origin(place)}: unknown key {show(dotted(place))}",
            rule="a key that burnish does not know would do nothing, so it is refused",
            remedy=say_instead(str(place[-1]), known),
        )
    if problem["type"] == "missing":
        where = said.origin(place[:-1]) if len(place) > 1 else name
        return UsageError(
            f"{where}: {dotted(place)} is missing",
            rule="a recipe names a model and datasets, and every dataset a path",
            remedy=f"add {EXAMPLES[str(place[-1])]}",
        )
    if not place:
        return _disagreement(problem, said)
    return _wrong_value(problem, place, said)


def _wrong_value(problem: ErrorDetails, place: Place, said: Said) -> UsageError:
    value = _value(said.values, place)
    rule = f"{dotted(place)} is {_allowed(place)}"
    if problem["type"] == "value_error":
        rule = f"{rule}; {_message(problem)}"
    return UsageError(
        f"{said.origin(place)}: {dotted(place)}: {show(value)}",
        rule=rule,
        remedy="correct the value, or remove the line for the default",
    )


def _disagreement(problem: ErrorDetails, said: Said) -> UsageError:
    """Keys that contradict each other: the message names them, so show what each one says, and where."""
    message = _message(problem)
    named = [key for key in dict.fromkeys(re.findall(r"\w+", message)) if key in said.values]
    saw = ", ".join(f"{said.origin((key,))}: {key}: {show(said.values[key])}" for key in named)
    return UsageError(saw, rule=message, remedy="remove or change one of the keys")


def _message(problem: ErrorDetails) -> str:
    return problem["msg"].removeprefix("Value error, ")


def _place(problem: ErrorDetails, said: Said) -> Place:
    """The part of pydantic's location that is a place in the recipe, not the name of a union's branch."""
    place: Place = ()
    value: Any = said.values
    for step in problem["loc"]:
        if step in _steps(value):
            value = value[step]
        elif problem["type"] == "missing":
            value = None
        else:
            break
        place = (*place, step)
    return place


def _steps(value: Any) -> Collection[Any]:
    if isinstance(value, list):
        return range(len(value))
    return value.keys() if isinstance(value, dict) else ()


def _value(values: Any, place: Place) -> Any:
    for step in place:
        values = values[step]
    return values


@cache
def _schema() -> dict[str, Any]:
    return Recipe.model_json_schema()


def _allowed(place: Place) -> str:
    definitions = _schema()["$defs"]
    schema = _schema()["properties"][place[0]]
    if place[0] in SOURCE_LISTS and len(place) > 1:
        schema = definitions["DatasetSource"]
        schema = schema["properties"][place[2]] if len(place) > 2 else schema
    return allowed(schema, definitions)
