"""What is wrong with a launch is said once, by whoever prints, and every rank ends: none waits for the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.__main__ import run
from tests.parallel.gang import environment, free_port

ModelDirectory = Callable[[str], Path]


def launch(
    commands: list[list[str]], place: Path, *, folders: list[Path] | None = None, port: int | None = None
) -> tuple[list[int | None], str]:
    """The exit codes of ranks that are given these command lines, and all that they said."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, "burnish.cli.train", "burnish.cli.resume"])
    port = port or free_port()
    size = len(commands)
    members = []
    for rank, words in enumerate(commands):
        folder = folders[rank] if folders else place
        given = (words, environment(rank, size, port), folder, place / f"said-{rank}")
        members.append(processes.Process(target=_member, args=given))
    for one in members:
        one.start()
    ends = time.monotonic() + 100
    for one in members:
        one.join(max(0.0, ends - time.monotonic()))
    codes = [one.exitcode for one in members]
    for one in members:
        one.kill()
    return codes, "".join((place / f"said-{rank}").read_text() for rank in range(size))


def _member(words: list[str], told: dict[str, str], folder: Path, said: Path) -> None:
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(told)
    os.chdir(folder)
    sys.argv = ["burnish", *words]
    sys.exit(run(words))


@pytest.fixture
def recipe(model_directory: ModelDirectory, data_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {model_directory('llama')}\ndatasets: {data_file}\noutput_dir: {tmp_path}/runs\n"
        "dtype: float32\nmax_steps: 2\nrun_name: run\n"
    )
    return path


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["context_parallel=2"], "start a multiple of 2 ranks"),
        (["context_parallel=8"], "start a multiple of 8 ranks"),
        (["data_parallel=hybrid"], "start an even number of ranks"),
        (["adapter=qdora", "data_parallel=shard"], "data_parallel=replicate"),
    ],
)
def test_values_that_so_many_processes_cannot_have_are_refused_before_one_is_started(
    keys: list[str], said: str, recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(recipe), *keys, "--processes", "3"]) == 2
    assert said in capfd.readouterr().err


def test_ranks_with_other_recipes_are_told_what_differs(recipe: Path, tmp_path: Path) -> None:
    words = ["train", str(recipe)]
    codes, said = launch([words, [*words, "learning_rate=1e-5", "data_parallel=shard"]], tmp_path)
    assert codes == [2, 2]
    assert said.count("error ") == 1
    assert "rank 1 was started with another data_parallel than rank 0 (and another learning_rate)" in said


@pytest.mark.parametrize("key", ["model=/nowhere", "datasets=/nowhere.jsonl"])
def test_what_all_ranks_find_is_printed_once(key: str, recipe: Path, tmp_path: Path) -> None:
    words = ["train", str(recipe), key]
    codes, said = launch([words, words], tmp_path)
    assert codes[0] == codes[1] != 0
    assert said.count("remedy") == 1
    assert "/nowhere" in said


@pytest.mark.slow
def test_a_rank_that_does_not_see_the_run_is_named(recipe: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    codes, said = launch([["train", str(recipe), "output_dir=runs"]] * 2, tmp_path, folders=folders)
    assert codes == [2, 2]
    assert said.count("remedy") == 1
    assert "rank 1 on " in said and "runs/run is not there, and rank 0 has made it" in said


def test_a_port_that_somebody_has_is_named(recipe: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        codes, said = launch([["train", str(recipe)]], tmp_path, port=port)
        assert codes == [0]  # one rank alone needs no port
        codes, said = launch_first_of_two(["train", str(recipe), "run_name=again"], tmp_path, port)
    assert codes == [1]
    assert f":{port}" in said and "--master-port" in said and "bug" not in said


def shorthand(recipe: Path, *words: str) -> subprocess.Popen[str]:
    """`burnish train RECIPE --processes 2`, as a user starts it."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "burnish",
        "train",
        str(recipe),
        "--processes",
        "2",
        *words,
    ]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_the_shorthand_says_what_is_wrong_once_and_ends_with_its_code(recipe: Path) -> None:
    ran = shorthand(recipe, "datasets=/nowhere.jsonl")
    said, _ = ran.communicate(timeout=600)
    assert said.count("remedy") == 1 and "/nowhere.jsonl" in said
    assert "Traceback" not in said and "elastic" not in said
    assert ran.returncode in (2, 3)


@pytest.mark.slow
def test_the_shorthand_stops_when_asked_and_says_how_to_go_on(recipe: Path, tmp_path: Path) -> None:
    ran = shorthand(recipe, "max_steps=3000")
    log = tmp_path / "runs" / "run" / "metrics.jsonl"
    ends = time.monotonic() + 600
    while not (log.exists() and log.read_bytes().count(b"\n") > 3) and time.monotonic() < ends:
        time.sleep(0.1)
    ran.send_signal(signal.SIGINT)
    said, _ = ran.communicate(timeout=600)
    assert ran.returncode == 130, said
    assert "burnish resume" in said and "Traceback" not in said
    assert list((tmp_path / "runs" / "run" / "checkpoints").glob("step-*"))


def launch_first_of_two(words: list[str], place: Path, port: int) -> tuple[list[int | None], str]:
    """Rank 0 of a launch whose other rank has not come yet."""
    processes = multiprocessing.get_context("forkserver")
    one = processes.Process(target=_member, args=(words, environment(0, 2, port), place, place / "said-0"))
    one.start()
    one.join(60)
    one.kill()
    return [one.exitcode], (place / "said-0").read_text()
