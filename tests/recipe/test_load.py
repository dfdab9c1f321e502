"""Values, defaults, origins, overrides, and errors that name file, line, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.errors import UsageError
from burnish.recipe.choices import Adapter
from burnish.recipe.load import LoadedRecipe, fit_to_size, load_recipe
from burnish.recipe.schema import DatasetSource

Load = Callable[..., LoadedRecipe]


def refusal(load: Load, text: str, *overrides: str, smallest: bool = True) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(text, *overrides, smallest=smallest)
    return caught.value


def test_two_lines_are_enough(load: Load) -> None:
    recipe = load("").recipe
    assert recipe.datasets == (DatasetSource(path="data/train.jsonl"),)
    assert (recipe.learning_rate, recipe.num_epochs, recipe.max_steps) == (2e-5, 3, None)


def test_defaults_follow_the_key_they_depend_on(load: Load) -> None:
    loaded = load("adapter: lora\nlora_r: 8\nmax_steps: 10\nwarmup_steps: 0\n")
    recipe = loaded.recipe
    assert (recipe.learning_rate, recipe.lora_alpha) == (2e-4, 16.0)
    assert (recipe.num_epochs, recipe.warmup_ratio) == (None, None)
    assert loaded.origins["learning_rate"] == "default for adapter: lora"
    assert loaded.origins["lora_alpha"] == "default for lora_r: 8"
    assert loaded.origins["adapter"] == "train.yaml:3"
    assert loaded.origins["seed"] == "default"


def test_null_is_a_key_that_was_not_said_except_for_clipping(load: Load) -> None:
    loaded = load("lora_alpha:\nnum_epochs: null\nmax_grad_norm: null\n")
    assert (loaded.recipe.lora_alpha, loaded.recipe.num_epochs, loaded.recipe.max_grad_norm) == (
        32.0,
        3,
        None,
    )
    assert loaded.origins["num_epochs"] == "default"
    assert loaded.origins["max_grad_norm"] == "train.yaml:5"


def test_a_dataset_is_a_path_a_mapping_or_a_list_of_either(load: Load) -> None:
    one = load("model: m\ndatasets: {path: data/train.jsonl, weight: 2}", smallest=False).recipe
    many = load("model: m\ndatasets: [data/train.jsonl, {path: org/set}]", smallest=False).recipe
    assert one.datasets[0].weight == 2
    assert [source.path for source in many.datasets] == ["data/train.jsonl", "org/set"]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("learning_rate: 2e-4", "learning_rate", 2e-4),
        ("learning_rate: '2e-4'", "learning_rate", 2e-4),
        ("packing: no", "packing", False),
        ("packing: off", "packing", False),
        ("run_name: 2024", "run_name", "2024"),
        ("run_name: 1e3", "run_name", "1e3"),
        ("seed: 010", "seed", 10),
        ("max_steps: 1e3", "max_steps", 1000),
        ("val_set_size: 200", "val_set_size", 200),
        ("report_to: none", "report_to", ()),
        ("report_to: wandb", "report_to", ("wandb",)),
        ("lora_target_modules: [q_proj]", "lora_target_modules", ("q_proj",)),
    ],
)
def test_yaml_means_what_it_looks_like(load: Load, text: str, key: str, value: object) -> None:
    assert getattr(load(text).recipe, key) == value


def test_overrides_go_over_the_file_and_into_lists(load: Load) -> None:
    loaded = load("seed: 1", "seed=2", "datasets.0.weight=0.5", "chat_template_kwargs.enable_thinking=false")
    assert loaded.recipe.seed == 2
    assert loaded.recipe.datasets[0].weight == 0.5
    assert loaded.recipe.chat_template_kwargs == {"enable_thinking": False}
    assert loaded.origins["seed"] == loaded.origins["datasets[0].weight"] == "override"
    assert loaded.origins["datasets[0].path"] == "train.yaml:2"
    assert loaded.origins["datasets[0].format"] == "default"


def test_python_callers_need_no_file(load: Load, tmp_path: Path) -> None:
    load("")
    loaded = load_recipe(
        None, {"model": "marble", "datasets": [tmp_path / "data" / "train.jsonl"], "adapter": Adapter.LORA}
    )
    assert loaded.recipe.datasets[0].path == "data/train.jsonl"
    assert loaded.origins["model"] == "argument"
    assert loaded.path is None


@pytest.mark.parametrize(
    ("text", "saw", "remedy"),
    [
        ("learning_rat: 1", "train.yaml:3: unknown key 'learning_rat'", "`learning_rate`"),
        ("lr: 1", "train.yaml:3: unknown key 'lr'", "`learning_rate`"),
        ("seed: 1\nsequence_len: 1", "train.yaml:4: unknown key 'sequence_len'", "`max_length`"),
        ("per_device_train_batch_size: 1", "'per_device_train_batch_size'", "`micro_batch_size`"),
        ("neftune_noise_alpha: 5", "'neftune_noise_alpha'", "no such setting"),
        ("hf_token: x", "'hf_token'", "environment"),
        ("Max-Length: 5", "'Max-Length'", "`max_length`"),
        ("zzzz: 5", "'zzzz'", "the keys are: model,"),
    ],
)
def test_an_unknown_key_is_answered_with_the_key_to_say(load: Load, text: str, saw: str, remedy: str) -> None:
    error = refusal(load, text)
    assert saw in error.saw
    assert remedy in error.remedy


def test_an_unknown_key_of_a_dataset_is_found_on_its_own_line(load: Load) -> None:
    text = "model: m\ndatasets:\n- data/train.jsonl\n- path: data/train.jsonl\n  wieght: 2\n"
    error = refusal(load, text, smallest=False)
    assert error.saw == "train.yaml:5: unknown key 'datasets[1].wieght'"
    assert "`weight`" in error.remedy


@pytest.mark.parametrize(
    ("text", "saw", "rule"),
    [
        ("num_epochs: 2.5", "train.yaml:3: num_epochs: 2.5", "a whole number at least 1"),
        ("num_epochs: true", "num_epochs: True", "true and false are for switches"),
        ("max_length: long", "max_length: 'long'", "a whole number at least 2"),
        ("adapter: dorra", "adapter: 'dorra'", "one of full, lora"),
        ("val_set_size: 1.0", "val_set_size: 1.0", "a value below 1 is a share"),
        ("val_set_size: -1", "val_set_size: -1", "at least 0 and below 1"),
        ("learning_rate: .nan", "learning_rate: nan", "a number above 0"),
        ("micro_batch_size: big", "micro_batch_size: 'big'", "`auto`, or a whole number at least 1"),
        ("micro_batch_size: 64", "micro_batch_size: 64", "cannot be larger"),
        ("run_name: a;touch X", "run_name: 'a;touch X'", "letters, digits"),
        ("run_name: ../x", "run_name: '../x'", "letters, digits"),
        ('run_name: "a\\n"', r"run_name: 'a\n'", "letters, digits"),
        ("warmup_ratio: 0.1\nwarmup_steps: 2", "train.yaml:4: warmup_steps: 2", "say the same thing twice"),
        ("num_epochs: 1\nmax_steps: 2", "train.yaml:4: max_steps: 2", "say the same thing twice"),
        ("val_set_size: 1\nval_datasets: data/train.jsonl", "train.yaml:3: val_set_size: 1", "keep one"),
        ("early_stopping_patience: 2", "train.yaml:3: early_stopping_patience: 2", "needs a held-out set"),
        ("chat_template_kwargs: {messages: 1}", "chat_template_kwargs", "gives messages"),
        ("sample_prompts: [[{role: user}]]", "sample_prompts", "a role and a content"),
        ("report_to: [none, wandb]", "report_to", "keep either"),
        ("datasets.0: 1", "unknown key 'datasets.0'", "refused"),
    ],
)
def test_a_wrong_value_is_shown_with_its_line_and_the_rule(
    load: Load, text: str, saw: str, rule: str
) -> None:
    error = refusal(load, text)
    assert saw in error.saw
    assert rule in error.rule


def test_an_adapter_that_is_none_is_told_those_there_are(load: Load) -> None:
    assert "bottleneck" in refusal(load, "adapter: lorra").rule


@pytest.mark.parametrize(
    ("adapter", "alpha"), [("lora", 8.0), ("rslora", 8.0), ("pissa", 4.0), ("lora_xs", 4.0)]
)
def test_alpha_follows_the_rank_as_each_method_has_it(load: Load, adapter: str, alpha: float) -> None:
    assert load(f"adapter: {adapter}\nlora_r: 4").recipe.lora_alpha == alpha


@pytest.mark.parametrize(
    ("text", "missing"),
    [("model: m", "datasets"), ("datasets: org/x", "model"), ("model: m\ndatasets:\n", "datasets"),
     ("model: m\ndatasets: [{weight: 1}]", "datasets[0].path")],
)  # fmt: skip
def test_a_missing_key_comes_with_an_example(load: Load, text: str, missing: str) -> None:
    error = refusal(load, text, smallest=False)
    assert f"{missing} is missing" in error.saw
    assert error.remedy.startswith("add `")


@pytest.mark.parametrize(
    "text", ["datasets: []", "datasets: 5", "datasets: [5]", "datasets: [[]]", "datasets: {}"]
)
def test_datasets_of_a_wrong_shape_are_refused(load: Load, text: str) -> None:
    assert "datasets" in refusal(load, f"model: m\n{text}", smallest=False).saw


@pytest.mark.parametrize(
    "override", ["seed", "=1", "datasets.7.weight=1", "seed.x=1", "datasets.0.wieght=1", "sed=1"]
)
def test_an_override_that_leads_nowhere_is_refused(load: Load, override: str) -> None:
    assert "override" in refusal(load, "", override).saw


SECRETS = (
    "hf_" + "a1B2" * 6,
    "sk-" + "Zz09" * 6,
    "https://me:hunter2secret@example.org/x",
    "ghp_" + "q" * 30,
)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "key", ["hf_token", "model", "output_dir", "seed", "datasets", "chat_template_kwargs", "s"]
)
def test_a_secret_is_refused_and_never_printed(load: Load, key: str, secret: str) -> None:
    text = f"model: m\n{key}: '{secret}'\n" if key != "model" else f"model: '{secret}'\n"
    assert secret not in str(refusal(load, text, smallest=False))
    assert secret not in str(refusal(load, "", f"{key}='{secret}'"))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_the_place_of_a_key_is_not_printed(load: Load, secret: str) -> None:
    assert secret not in str(refusal(load, f"'{secret}': 1\n"))
    assert secret not in str(refusal(load, "", f"{secret}=1"))
    assert secret not in str(refusal(load, "", secret))
    assert secret not in str(refusal(load, "", f"seed.{secret}.x=["))
    assert secret not in str(refusal(load, "", f"datasets.{secret}=1"))


def test_the_environment_is_not_read_into_values(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_TEST", "x")
    assert (
        load("output_dir: ${BURNISH_TEST}/$BURNISH_TEST").recipe.output_dir == "${BURNISH_TEST}/$BURNISH_TEST"
    )


def test_an_override_replaces_what_the_file_says_in_the_other_way(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    file = tmp_path / "train.yaml"
    file.write_text("model: marble\ndatasets: a.jsonl\nnum_epochs: 3\nwarmup_ratio: 0.1\n")
    loaded = load_recipe(file, ["max_steps=60", "warmup_steps=5"])
    recipe = loaded.recipe
    assert (recipe.max_steps, recipe.num_epochs) == (60, None)
    assert (recipe.warmup_steps, recipe.warmup_ratio) == (5, None)
    assert loaded.origins["max_steps"] == "override"
    with pytest.raises(UsageError, match="max_steps"):
        load_recipe(file, ["max_steps=60", "num_epochs=2"])


def test_a_recipe_without_a_rate_gets_one_that_fits_the_models_size() -> None:
    loaded = load_recipe(None, {"model": "marble", "datasets": "owner/name"})
    rates = {
        size: fit_to_size(loaded, size).recipe.learning_rate for size in (7 * 10**9, 10**8, 5 * 10**7, 10**6)
    }
    assert rates == {7 * 10**9: 2e-5, 10**8: 2e-5, 5 * 10**7: 4e-5, 10**6: 2e-3}
    assert "1,000,000 parameters" in fit_to_size(loaded, 10**6).origins["learning_rate"]
    said = load_recipe(None, {"model": "marble", "datasets": "owner/name", "learning_rate": 3e-5})
    assert fit_to_size(said, 10**6) is said
