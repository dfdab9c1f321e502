"""The recipe told back loads again to the same recipe, and the docs are the schema's."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burnish.recipe import choices
from burnish.recipe.describe import json_schema, reference_markdown, resolved_yaml
from burnish.recipe.load import load_recipe
from burnish.recipe.schema import Recipe

DOCS = Path(__file__).resolve().parents[2] / "docs" / "recipe.md"

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
tricky = st.sampled_from(
    [
        "2e-4",
        "010",
        "no",
        "~",
        "null",
        "# x",
        "a # b",
        "- a",
        "a: b",
        " a ",
        "'",
        '"',
        "a\nb",
        "a\u2028b",
        "\x85",
        "a\xa0b",
        "\u202e",
        "<<",
    ]
)
texts = words | tricky
plain = st.none() | st.booleans() | st.integers(-99, 99) | texts
names = texts.filter(lambda text: all(category(char) not in ("Cc", "Zl", "Zp") for char in text))
messages = st.lists(
    st.fixed_dictionaries({"role": st.just("user"), "content": texts}), min_size=1, max_size=2
)
sources = st.fixed_dictionaries(
    {"path": st.sampled_from(["org/set", "data.jsonl", "*.jsonl"])},
    optional={
        "split": names,
        "format": st.sampled_from(choices.DataFormat),
        "weight": st.floats(1e-6, 1e6),
        "max_samples": st.integers(1, 10**9),
        "name": names,
        "mix": st.floats(1e-6, 1e6),
        "epochs": st.floats(1e-3, 1e3),
        "cap": st.integers(1, 10**9),
        "group": names,
    },
)
recipes = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["marble", "org/model", "folder"]),
        "datasets": st.lists(sources, min_size=1, max_size=3),
    },
    optional={
        "chat_template_kwargs": st.dictionaries(
            words.filter(lambda key: key != "messages"), plain, max_size=3
        ),
        "val_set_size": st.integers(1, 500) | st.floats(0, 0.99),
        "mixture": st.sampled_from(choices.MixtureRule),
        "group_mix": st.dictionaries(words, st.floats(1e-6, 1e6), max_size=2),
        "replay": st.fixed_dictionaries({"path": st.just("data.jsonl"), "share": st.floats(1e-6, 0.99)}),
        "stages": st.lists(
            st.fixed_dictionaries({"datasets": st.just("data.jsonl"), "name": words}), max_size=2
        ),
        "adapter": st.sampled_from(choices.Adapter),
        "lora_r": st.integers(1, 512),
        "lora_target_modules": names | st.lists(names, max_size=3),
        "learning_rate": st.floats(1e-9, 10),
        "max_steps": st.integers(1, 10**7),
        "warmup_steps": st.integers(0, 100),
        "max_grad_norm": st.none() | st.floats(1e-3, 1e3),
        "eval_steps": st.integers(1, 1000) | st.floats(1e-6, 0.999),
        "sample_prompts": st.lists(texts | messages, max_size=3),
        "output_dir": names,
        "report_to": st.sampled_from([[], "none", ["wandb", "tensorboard"]]),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text("{}\n")
    (tmp_path / "folder").mkdir()
    return tmp_path


@given(recipes)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_resolved_recipe_loads_again_to_the_same_recipe(here: Path, values: dict[str, Any]) -> None:
    loaded = load_recipe(None, values)
    text = resolved_yaml(loaded)
    path = here / "folder" / "resolved.yaml"
    path.write_bytes(text.encode())
    again = load_recipe(path)
    assert again.recipe == loaded.recipe
    assert set(yaml.safe_load(text)) == set(Recipe.model_fields)


def test_the_resolved_recipe_means_the_same_files_from_another_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = resolved_yaml(load_recipe(None, {"model": "folder", "datasets": "data.jsonl"}))
    elsewhere = here / "folder"
    (elsewhere / "resolved.yaml").write_text(text)
    monkeypatch.chdir("/")
    recipe = load_recipe(elsewhere / "resolved.yaml").recipe
    assert Path(recipe.datasets[0].path).samefile(here / "data.jsonl")
    assert Path(recipe.model).samefile(elsewhere)


def test_every_value_is_followed_by_its_origin(here: Path) -> None:
    (here / "train.yaml").write_text("model: marble\ndatasets: data.jsonl\nadapter: lora\n")
    lines = resolved_yaml(load_recipe("train.yaml", ["seed=7"])).splitlines()
    comments = {line.partition(":")[0].strip("- "): line.partition("# ")[2] for line in lines}
    assert comments["model"] == "train.yaml:1"
    assert comments["path"] == "train.yaml:2"
    assert comments["split"] == comments["packing"] == "default"
    assert comments["seed"] == "override"
    assert comments["learning_rate"] == "default for adapter: lora"


def test_a_file_name_cannot_break_out_of_its_comment(here: Path) -> None:
    path = here / "a\nseed: 3.yaml"
    path.write_text("model: marble\ndatasets: data.jsonl\n")
    assert yaml.safe_load(resolved_yaml(load_recipe(path)))["seed"] == 42


def test_the_reference_page_is_the_schema_s() -> None:
    assert DOCS.read_text() == reference_markdown(), "python -m burnish.recipe.describe > docs/recipe.md"


def test_every_key_has_help_and_a_row(here: Path) -> None:
    schema = json_schema()
    page = reference_markdown()
    for owner in (schema, schema["$defs"]["DatasetSource"]):
        for key, field in owner["properties"].items():
            assert field["description"].endswith(".")
            assert f"| `{key}` |" in page
