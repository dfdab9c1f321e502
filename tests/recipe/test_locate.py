"""Which file a path means: beside the recipe, then here; and what a path may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnish.errors import UsageError
from burnish.recipe.load import load_recipe


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("recipes", "recipes/mine", "data", "checkpoint"):
        (tmp_path / folder).mkdir()
    for file in (
        "recipes/beside.jsonl",
        "recipes/both.jsonl",
        "both.jsonl",
        "data/train.jsonl",
        "chat.jinja",
    ):
        (tmp_path / file).write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def path_of(dataset: str, *overrides: str) -> str:
    Path("recipes/train.yaml").write_text(f"model: marble\ndatasets: '{dataset}'\n")
    return load_recipe("recipes/train.yaml", overrides).recipe.datasets[0].path


def test_a_file_beside_the_recipe_comes_before_one_in_the_current_directory(project: Path) -> None:
    assert path_of("beside.jsonl") == "recipes/beside.jsonl"
    assert path_of("both.jsonl") == "recipes/both.jsonl"
    assert path_of("data/train.jsonl") == "data/train.jsonl"


def test_an_override_means_the_current_directory_first(project: Path) -> None:
    assert path_of("beside.jsonl", "datasets=both.jsonl") == "both.jsonl"
    assert path_of("both.jsonl", "datasets=beside.jsonl") == "recipes/beside.jsonl"


def test_a_path_is_kept_as_seen_from_here_or_in_full(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_of(str(project / "data" / "train.jsonl")) == "data/train.jsonl"
    monkeypatch.chdir(project / "data")
    loaded = load_recipe("../recipes/train.yaml", {"datasets": "../both.jsonl"})
    assert loaded.recipe.datasets[0].path == str(project / "both.jsonl")


def test_folders_globs_and_hub_names_are_datasets(project: Path) -> None:
    assert path_of("data") == "data"
    assert path_of("data/*.jsonl") == "data/*.jsonl"
    assert path_of("org/name.v1") == "org/name.v1"
    assert path_of("dolly") == "dolly"


@pytest.mark.parametrize(
    "path",
    ["nope.jsonl", "data/*.parquet", "/nope/x", "./nope", "../nope", "a/b/c", "a;touch X", "$(touch X)",
     "-rf", "s3://bucket/x", "https://example.org/a.jsonl", "file:///etc/passwd", "a\\\\b",
     "%2e%2e/x", "~nobody/x", "long" * 2000],
)  # fmt: skip
def test_a_path_that_is_nothing_is_refused_with_file_and_line(project: Path, path: str) -> None:
    with pytest.raises(UsageError) as caught:
        path_of(path)
    assert caught.value.saw.startswith("recipes/train.yaml:2: datasets[0].path: ")


def test_a_web_address_is_refused_as_one(project: Path) -> None:
    for words in ({"model": "https://example.org/m"}, {"datasets": "https://example.org/a.jsonl"}):
        with pytest.raises(UsageError) as caught:
            load_recipe(None, {"model": "marble", "datasets": "data", **words})
        assert "no web addresses" in caught.value.rule


def test_a_no_break_space_is_a_character_of_a_name(project: Path) -> None:
    (project / "data" / "a\u202fb.jsonl").write_text("{}\n")
    assert path_of("data/a\u202fb.jsonl") == "data/a\u202fb.jsonl"


def test_control_characters_are_refused_and_shown_escaped(project: Path) -> None:
    for path in ("a\0b", "a\x1b[31m", "a\nb"):
        with pytest.raises(UsageError) as caught:
            load_recipe(None, {"model": "marble", "datasets": path})
        assert caught.value.saw.isprintable()


def test_a_near_miss_is_offered(project: Path) -> None:
    with pytest.raises(UsageError) as caught:
        path_of("data/trian.jsonl")
    assert "data/train.jsonl" in caught.value.remedy


def test_a_model_is_marble_a_directory_or_a_hub_name(project: Path) -> None:
    (project / "marble").mkdir()
    for model, kept in {"marble": "marble", "checkpoint": "checkpoint", "org/name": "org/name"}.items():
        assert load_recipe(None, {"model": model, "datasets": "data"}).recipe.model == kept
    for model in ("./nope", "a b", "both.jsonl/..", "a;touch X", "-rf"):
        with pytest.raises(UsageError):
            load_recipe(None, {"model": model, "datasets": "data"})


def test_a_chat_template_is_a_file_never_the_text_itself(project: Path) -> None:
    base = {"model": "marble", "datasets": "data"}
    assert load_recipe(None, {**base, "chat_template": "chat.jinja"}).recipe.chat_template == "chat.jinja"
    for template, rule in {
        "{{ messages }}": "path of a Jinja file",
        "nope.jinja": "path of a Jinja file",
    }.items():
        with pytest.raises(UsageError) as caught:
            load_recipe(None, {**base, "chat_template": template})
        assert rule in caught.value.rule
