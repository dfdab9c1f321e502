"""Win rates of tables of preferences: what counts as a draw, what is left out, what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from burnish.errors import DataError, UsageError
from burnish.evaluation.intervals import wilson_interval
from burnish.evaluation.win_rate import standings, wins_of
from tests.evaluation.worlds import World


def write(path: Path, text: str) -> Path:
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def write_world(world: World, folder: Path) -> tuple[Path, Path]:
    header = ",".join(world.names)
    rows = "\n".join(",".join(map(str, row + 1)) for row in world.wins)
    preferences = write(folder / "preferences.csv", f"{header}\n{rows}\n")
    written = np.column_stack([world.reference, world.written]).round().astype(int)
    rows = "\n".join(",".join(map(str, [k, *row])) for k, row in enumerate(written))
    return preferences, write(folder / "lengths.csv.gz", f"index,gpt,{header}\n{rows}\n")


def test_draws_count_half_whether_written_0_or_1_and_a_half_and_fractions_count_as_they_are() -> None:
    assert wins_of(np.array([1, 2, 0, 1.5, 1.25])).tolist() == [0, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("wrong", [0.3, 2.5, -1.0])
def test_what_is_no_preference_is_refused(wrong: float) -> None:
    with pytest.raises(DataError, match="prompt 2"):
        wins_of(np.array([[1.0], [wrong]]))


def test_missing_preferences_are_left_out_of_that_models_mean_only(tmp_path: Path) -> None:
    text = "index,instruction,a,b,c\n0,Why?,1,2,\n1,How?,2,nan,\n2,When?,1.5,2,NA\n"
    found = standings(write(tmp_path / "p.csv.gz", text)).rates
    assert found["a"].win_rate == pytest.approx(0.5)
    assert (found["b"].win_rate, found["b"].num_judged) == (1.0, 2)
    assert found["c"].in_percent() == {"win_rate": None, "ci": None, "length_controlled_win_rate": None}
    assert list(found) == ["a", "b", "c"]


def test_an_index_without_a_name_is_no_model(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", ",a\n0,1\n1,2\n2,2\n")
    assert list(standings(path).rates) == ["a"]


def test_a_draw_a_loss_and_a_win_are_no_index(tmp_path: Path) -> None:
    found = standings(write(tmp_path / "p.csv", "a,b\n0,1\n1,1\n2,2\n")).rates
    assert found["a"].win_rate == 0.5 and list(found) == ["a", "b"]


def test_plain_wins_and_losses_have_wilsons_interval(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "a\n" + "2\n" * 98 + "1\n" * 2)
    assert standings(path).rates["a"].interval == pytest.approx(wilson_interval(98, 100))


def test_a_cell_that_is_no_number_is_named_by_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"p\.csv:3.*won"):
        standings(write(tmp_path / "p.csv", "a\n1\nwon\n"))


def test_lengths_join_by_a_column_that_names_the_prompts_whatever_their_order(tmp_path: Path) -> None:
    world = World(seed=3, num_models=4, num_prompts=120)
    preferences, lengths = write_world(world, tmp_path)
    plain = standings(preferences, lengths=lengths).rates
    numbered = [
        f"{k - 1},{line}" if k else f"index,{line}" for k, line in enumerate(preferences.read_text().split())
    ]
    turned = write(tmp_path / "t.csv", "\n".join([numbered[0], *reversed(numbered[1:])]) + "\n")
    assert standings(turned, lengths=lengths).rates["model-1"].length_controlled == pytest.approx(
        plain["model-1"].length_controlled
    )
    short = write(tmp_path / "s.csv", "\n".join(preferences.read_text().split()[:50]) + "\n")
    with pytest.raises(DataError, match="120 rows"):
        standings(short, lengths=lengths)


def test_the_references_column_is_found_or_asked_for(tmp_path: Path) -> None:
    preferences = write(tmp_path / "p.csv", "a,b\n1,2\n2,1\n1,1\n")
    lengths = "{0},a_length,len_b\n10,20,30\n30,20,50\n20,20,20\n"
    for name in ("reference", "gpt4", "baseline_length"):
        found = standings(preferences, lengths=write(tmp_path / "l.csv", lengths.format(name)))
        assert found.rates["b"].length_controlled is not None
    two = write(
        tmp_path / "l.csv", lengths.replace("\n", ",5\n").replace("len_b,5", "len_b,other").format("gpt4")
    )
    with pytest.raises(UsageError, match="gpt4, other"):
        standings(preferences, lengths=two)
    assert standings(preferences, lengths=two, reference="gpt4").rates["a"].length_controlled is not None


def test_of_many_columns_left_over_the_reference_is_the_one_whose_brief_and_wordy_selves_lie_around_a_half(
    tmp_path: Path,
) -> None:
    world = World(seed=3, num_models=4, num_prompts=200)
    preferences, lengths = write_world(world, tmp_path)
    plain = standings(preferences, lengths=lengths).rates
    table = gzip.decompress(lengths.read_bytes()).decode().split()
    wide = [f"{line},{'absent' if not k else 7 * k}" for k, line in enumerate(table)]
    found = standings(preferences, lengths=write(tmp_path / "wide.csv", "\n".join(wide) + "\n")).rates
    assert found["model-1"].length_controlled == plain["model-1"].length_controlled


def test_annotations_come_to_what_their_table_comes_to_on_whichever_side_the_reference_stands(
    tmp_path: Path,
) -> None:
    world = World(seed=3, num_models=4, num_prompts=120)
    preferences, lengths = write_world(world, tmp_path)
    plain = standings(preferences, lengths=lengths).rates
    records = []
    for m, model in enumerate(world.names):
        for k in range(world.num_prompts):
            record = {
                "instruction": f"Prompt {k}?", "preference": 1 + world.wins[k, m],
                "generator_1": "gpt", "output_1": "x" * round(world.reference[k]),
                "generator_2": model, "output_2": "y" * round(world.written[k, m]),
            }  # fmt: skip
            if k % 3 == 0:
                one, other = (
                    (record["generator_1"], record["output_1"]),
                    (record["generator_2"], record["output_2"]),
                )
                record |= {
                    "generator_1": other[0],
                    "output_1": other[1],
                    "generator_2": one[0],
                    "output_2": one[1],
                }
                record["preference"] = 3 - record["preference"]  # type: ignore[operator]
            records.append(record)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(records))
    found = standings(path).rates
    assert list(found) == list(plain)
    for model, rate in plain.items():
        assert found[model].win_rate == pytest.approx(rate.win_rate)
        assert found[model].length_controlled == pytest.approx(rate.length_controlled)
    path.write_text(json.dumps([{**records[1], "preference": None}]))
    with pytest.raises(DataError, match="none with a preference"):
        standings(path)
    others = [records[1], {**records[1], "generator_1": "a", "generator_2": "b"}]
    path.write_text(json.dumps(others))
    with pytest.raises(DataError, match="no model stands in every record"):
        standings(path)
