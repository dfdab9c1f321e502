"""A certificate is made once for what it is a certificate of, found again while nothing changed, and asked for."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnish.chat.certificate import Violation
from burnish.chat.template import CHATML
from burnish.data import workers
from burnish.data.pack import Pack, build_pack
from burnish.data.store import RowsWriter
from burnish.data.workers import EncodedRow, Workers
from burnish.errors import DataError, UsageError
from burnish.recipe.load import load_recipe
from burnish.training import vault
from burnish.training.certificate import Certificate, Certified, certify
from burnish.training.events import Event, Ready, Stepped
from burnish.training.run import resume, train
from burnish.training.violations import broken_rules, pack_violations
from burnish.types import Example
from tests.conftest import conversation, write_jsonl

ModelDirectory = Callable[..., Path]


@pytest.fixture
def model(model_directory: ModelDirectory) -> Path:
    return model_directory()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))


def asked(model: Path, data: Path, **keys: Any) -> Any:
    return load_recipe(None, {"model": str(model), "datasets": str(data), **keys}).recipe


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the rows that are given to workers."""
    given: list[int] = []
    encode_all = Workers.encode_all

    def counting(self: Workers, rows: Any) -> Iterator[EncodedRow]:
        given.append(len(rows))
        return encode_all(self, rows)

    monkeypatch.setattr(Workers, "encode_all", counting)
    return given


def content(certified: Certified) -> tuple[Any, ...]:
    return list(certified.data.train), list(certified.data.held_out), certified.data.ledger.entries()


def test_it_counts_what_there_is(model: Path, data_file: Path) -> None:
    made = certify(asked(model, data_file, val_set_size=8))
    found = made.certificate
    assert found.ok and found.violations == {} and not made.reused
    assert (found.rows, found.kept, found.held_out, found.views) == (40, 40, 8, 40)
    views = [view for rows in [*made.data.train, *made.data.held_out] for view in rows]
    assert found.tokens == sum(map(len, views))
    assert found.graded_tokens == sum(view.num_graded for view in views)
    assert found.stop_tokens == ["<|endoftext|>", "<|im_end|>"]
    assert Certificate.read(made.path) == found
    assert made.data.origins[7].line == 8


def test_where_nothing_changed_no_row_is_encoded_again(
    model: Path, data_file: Path, encodings: list[int]
) -> None:
    first = certify(asked(model, data_file, val_set_size=8))
    made = list(encodings)
    again = certify(asked(model, data_file, val_set_size=8, num_epochs=2, learning_rate=1e-3))
    assert again.reused and encodings == made == [32, 8]
    assert content(again) == content(first)
    assert again.tokenizer.stop_ids == first.tokenizer.stop_ids
    assert again.tokenizer.encoder.counts == first.tokenizer.encoder.counts
    assert again.data.fingerprint() == first.data.fingerprint()
    assert again.certificate == first.certificate


@pytest.mark.parametrize(
    "change",
    [{"max_length": 64}, {"train_on": "last"}, {"val_set_size": 4}, {"seed": 1, "val_set_size": 0.1}],
    ids=str,
)
def test_an_option_of_the_data_makes_another_key(
    change: dict[str, Any], model: Path, data_file: Path
) -> None:
    first = certify(asked(model, data_file))
    other = certify(asked(model, data_file, **change))
    assert not other.reused and other.path != first.path


def test_a_byte_of_the_data_makes_another_key(model: Path, data_file: Path) -> None:
    first = certify(asked(model, data_file))
    data_file.write_text(data_file.read_text().replace("number 7.", "number 7!"))
    other = certify(asked(model, data_file))
    assert not other.reused and other.certificate.key != first.certificate.key
    assert other.data.fingerprint() != first.data.fingerprint()


def test_a_character_of_the_template_makes_another_key(model: Path, data_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(CHATML)
    first = certify(asked(model, data_file, chat_template=str(file)))
    file.write_text(CHATML.replace("assistant\\n", "assistant \\n"))
    other = certify(asked(model, data_file, chat_template=str(file)))
    assert not other.reused and other.data.train[0] != first.data.train[0]
    file.write_text(CHATML)
    assert certify(asked(model, data_file, chat_template=str(file))).reused


@pytest.mark.parametrize("name", ["train/ids", "train/run_weights", "ledger.jsonl", "certificate.json"])
def test_a_flipped_bit_is_not_trained_on_and_the_rows_are_encoded_again(
    name: str, model: Path, data_file: Path, tmp_path: Path, encodings: list[int]
) -> None:
    with data_file.open("a") as file:
        file.write(json.dumps(conversation(0)) + "\n")
    first = certify(asked(model, data_file))
    place = first.path.parent / name
    expected, harmed = content(first), bytearray(place.read_bytes())
    harmed[len(harmed) // 2] ^= 4
    place.write_bytes(harmed)
    again = certify(asked(model, data_file))
    assert not again.reused and len(encodings) == 2
    assert content(again) == expected
    assert certify(asked(model, data_file)).reused


def test_the_least_recently_used_go_first(
    model: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault, "KEPT", 2)
    recipes = [asked(model, data_file, max_length=100 + k) for k in range(3)]
    certify(recipes[0])
    certify(recipes[1])
    assert certify(recipes[0]).reused
    certify(recipes[2])
    assert [certify(recipe).reused for recipe in (recipes[0], recipes[2])] == [True, True]
    assert not certify(recipes[1]).reused
    assert len(list(vault.vault().iterdir())) == 2


def test_where_no_row_is_left_nothing_is_kept(model: Path, data_file: Path) -> None:
    with pytest.raises(DataError, match="no row with a graded token"):
        certify(asked(model, data_file, max_length=4))
    assert list(vault.vault().iterdir()) == []


def test_plain_documents_are_certified_without_a_template(
    model: Path, tmp_path: Path, encodings: list[int]
) -> None:
    data = write_jsonl(tmp_path / "texts.jsonl", [{"text": "The sun is bright. " * k} for k in range(1, 30)])
    recipe = asked(model, data, max_length=16)
    first, again = certify(recipe), certify(recipe)
    assert first.certificate.ok and again.reused and len(encodings) == 1
    assert first.tokenizer.template is None is again.tokenizer.template
    assert len(first.data.train) > 29 and max(first.data.train.lengths) == 16


def planted(monkeypatch: pytest.MonkeyPatch, harm: Callable[[Example], None]) -> None:
    """Harm every example on its way from the worker, where no encoder sees it any more."""
    read = workers._read_answer

    def harmed(*parts: Any) -> Iterator[EncodedRow]:
        for encoded in read(*parts):
            for view in encoded.views:
                harm(view)
            yield encoded

    monkeypatch.setattr(workers, "_read_answer", harmed)


def drop_stop(view: Example) -> None:
    view.weights[-1] = 0.0


def grade_header(view: Example) -> None:
    view.weights[0] = 1.0


def stop_early(view: Example) -> None:
    view.input_ids[-2] = view.input_ids[-1]


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (drop_stop, "turn without its stop token"),
        (grade_header, "first token graded"),
        (stop_early, "stop token inside a turn"),
    ],
)
def test_a_planted_defect_is_named_with_its_rows_and_training_does_not_start(
    harm: Callable[[Example], None],
    code: str,
    model: Path,
    data_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted(monkeypatch, harm)
    loaded = load_recipe(
        None,
        {"model": str(model), "datasets": str(data_file), "output_dir": str(tmp_path), "run_name": "run"},
    )
    with pytest.raises(DataError, match=code) as caught:
        train(loaded)
    assert caught.value.exit_code == 3 and "train.jsonl:1" in caught.value.saw
    found = Certificate.read(tmp_path / "run" / "certificate.json")
    assert not found.ok and found.violations[code] == 40
    assert [example["row"] for example in found.examples[code]] == [0, 1, 2, 3, 4]
    assert not (tmp_path / "run" / "final").exists()


def test_what_the_encoder_side_finds_broken_is_entered(
    model: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = workers._read_answer

    def accusing(*parts: Any) -> Iterator[EncodedRow]:
        for encoded in read(*parts):
            broken = [Violation("user text graded", encoded.row.index, 0, "'What'")] * (
                encoded.row.index == 3
            )
            yield replace(encoded, violations=broken)

    monkeypatch.setattr(workers, "_read_answer", accusing)
    found = certify(asked(model, data_file)).certificate
    assert found.violations == {"user text graded": 1}
    (example,) = found.examples["user text graded"]
    assert example == {"place": f"{data_file}:4", "row": 3, "message": 0, "detail": "'What'"}


EXAMPLES = [
    Example(0, 0, (1,), [5, 6, 7, 8], [0.0, 0.0, 1.0, 1.0]),
    Example(1, 1, (1,), [9, 5, 6], [0.0, 0.5, 0.5]),
]


def reversed_targets(pack: Pack) -> Pack:
    return replace(pack, targets=pack.targets[::-1].copy())


def across(pack: Pack) -> Pack:
    """The last token of one document made to predict the first of the next."""
    rows_kept, targets = pack.rows_kept.copy(), pack.targets.copy()
    rows_kept[1], targets[1] = 3, 9
    return replace(pack, rows_kept=rows_kept, targets=targets)


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda pack: replace(pack, position_ids=np.arange(7)), "positions not consecutive"),
        (lambda pack: replace(pack, rows_kept=pack.rows_kept + 1), "target is not the next token"),
        (reversed_targets, "target is not the next token"),
        (across, "target is not the next token"),
        (lambda pack: replace(pack, weights=np.ones(4, np.float32)), "weights changed in the pack"),
        (
            lambda pack: replace(
                pack,
                row_of=pack.row_of[1:],
                targets=pack.targets[1:],
                weights=pack.weights[1:],
                sources=pack.sources[1:],
            ),
            "weights changed in the pack",
        ),
        (
            lambda pack: replace(pack, targets=pack.targets[1:]),
            "targets, weights and sources differ in number",
        ),
        (lambda pack: replace(pack, input_ids=pack.input_ids + 1), "tokens changed in the pack"),
        (lambda pack: replace(pack, rows=pack.rows[::-1]), "documents laid out otherwise"),
        (lambda pack: replace(pack, leaves=pack.leaves[:1] * 2), "documents laid out otherwise"),
        (lambda pack: replace(pack, reach=np.full(7, 7)), "documents see each other"),
        (lambda pack: replace(pack, reach=np.minimum(pack.reach, 6)), "documents see each other"),
        (lambda pack: replace(pack, sources=np.zeros(4, np.int64)), "source changed in the pack"),
    ],
)
def test_a_defect_of_a_pack_is_named(harm: Callable[[Pack], Pack], code: str) -> None:
    pack = build_pack(EXAMPLES)
    assert pack_violations(pack, EXAMPLES) == []
    assert code in pack_violations(harm(pack), EXAMPLES)


@pytest.mark.parametrize(
    ("view", "codes"),
    [
        (Example(0, 0, (1,), [5, 6, 2], [0, 1, 1]), []),
        (Example(0, 0, (1,), [1, 6, 2], [0, 1, 1]), []),
        (Example(0, 0, (1,), [1, 1, 6, 2], [0, 0, 1, 1]), ["two BOS"]),
        (Example(0, 0, (1,), [5, 6, 2], [0, 0, 0]), ["nothing graded", "turn without its stop token"]),
        (Example(0, 0, (1,), [5, 6, 2], [1, 1, 1]), ["first token graded"]),
        (Example(0, 0, (1,), [5, 6, 2], [0, 1, 0]), ["turn without its stop token"]),
        (Example(0, 0, (1,), [5, 6, 7], [0, 1, 1], cut=1), []),
        (Example(0, 0, (1,), [5, 2, 2], [0, 1, 1]), ["stop token inside a turn"]),
        (Example(0, 0, (1, 3), [5, 2, 6, 2], [0, 1, 0, 1]), []),
        (Example(0, 0, (), [5, 6, 7], [0, 1, 1]), []),
    ],
)
def test_each_rule_of_ids_and_weights_sees_its_defect_and_no_other(view: Example, codes: list[str]) -> None:
    writer = RowsWriter()
    fine = Example(7, 0, (1,), [5, 6, 2], [0.0, 1.0, 1.0])
    for row in (fine, replace(view, row=8), fine):
        writer.append([row])
    found = list(broken_rules(writer.finish(), stop_ids=[2, 3], bos_id=1))
    assert sorted(code for code, _ in found) == sorted(codes)
    assert {row for _, row in found} <= {8}


DATED = "{{ strftime_now('%d %b %Y') }}\n" + CHATML


def dated_recipe(model: Path, data: Path, tmp_path: Path) -> Any:
    (tmp_path / "dated.jinja").write_text(DATED)
    return load_recipe(
        None,
        {
            "model": str(model),
            "datasets": str(data),
            "output_dir": str(tmp_path),
            "run_name": "run",
            "chat_template": str(tmp_path / "dated.jinja"),
            "max_steps": 3,
            "global_batch_size": 8,
            "save_steps": 1,
        },
    )


def test_a_date_is_part_of_the_key_only_where_the_template_prints_it(
    model: Path, data_file: Path, tmp_path: Path
) -> None:
    days = [datetime.date(2026, 1, day) for day in (1, 2)]
    dated = dated_recipe(model, data_file, tmp_path).recipe
    one, other = (certify(dated, date=day) for day in days)
    assert not other.reused and one.data.train[0] != other.data.train[0]
    assert (one.certificate.date, other.certificate.date) == ("2026-01-01", "2026-01-02")
    certify(asked(model, data_file), date=days[0])
    assert certify(asked(model, data_file), date=days[1]).reused


def interrupting(event: Event) -> None:
    if isinstance(event, Stepped) and event.step == 1:
        raise KeyboardInterrupt


def test_a_run_keeps_its_date_and_its_certificate_and_refuses_another_template(
    model: Path, data_file: Path, tmp_path: Path, encodings: list[int]
) -> None:
    loaded = dated_recipe(model, data_file, tmp_path)
    run = tmp_path / "run"

    def killed(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(loaded, show=killed)
    plan = json.loads((run / "plan.json").read_text())
    state = json.loads((run / "checkpoints" / "step-00000001" / "state.json").read_text())
    assert (
        plan["template_sha256"]
        == state["template_sha256"]
        == Certificate.read(run / "certificate.json").parts["template"]
    )
    # The run began the day before: going on today, it prints that day's date.
    settings = json.loads((run / "environment.json").read_text())
    assert settings["date"] == datetime.date.today().isoformat()

    template = tmp_path / "dated.jinja"
    template.write_text(DATED.replace("\n", "\n\n", 1))
    with pytest.raises(UsageError, match=r"chat_template: .*, was ") as caught:
        resume(run)
    assert "--allow-change=chat_template" in caught.value.remedy
    template.write_text(DATED)
    (run / "environment.json").write_text(json.dumps(settings | {"date": "2026-01-01"}))
    with pytest.raises(UsageError, match="chat_template"):
        resume(run)
    (run / "environment.json").write_text(json.dumps(settings))
    seen: list[Event] = []
    before = list(encodings)
    assert resume(run, show=seen.append).stopped_by == "finished"
    assert encodings == before
    (ready,) = [event for event in seen if isinstance(event, Ready)]
    assert any("nothing changed" in note for note in ready.notes)


def test_another_template_is_accepted_where_the_user_says_so(
    model: Path, data_file: Path, tmp_path: Path
) -> None:
    loaded = dated_recipe(model, data_file, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(loaded, show=interrupting)
    (tmp_path / "dated.jinja").write_text(CHATML)
    assert resume(tmp_path / "run", allow_change=["chat_template"]).stopped_by == "finished"


def test_a_pack_with_shared_prefixes_is_proved_too() -> None:
    alike = [
        Example(0, 0, (1,), [5, 6, 7, 8], [0.0, 0.0, 1.0, 1.0]),
        Example(1, 1, (1,), [5, 6, 9], [0.0, 0.5, 0.5]),
    ]
    pack = build_pack(alike, share_prefixes=True, min_shared=1)
    assert pack.is_tree and pack_violations(pack, alike) == []
    seen = replace(pack, reach=np.full(len(pack), len(pack)))
    assert pack_violations(seen, alike) == ["documents see each other"]
