"""What is written is a safetensors file, and its entry says what was meant to be in it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from burnish.checkpoint import tensors
from burnish.checkpoint.tensors import is_finite, read_hashed, tensors_in, write_stream, write_tensors

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool)  # fmt: skip


def test_every_dtype_any_layout_and_nothing_at_all_come_back_as_the_library_reads_them(
    tmp_path: Path,
) -> None:
    written = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    written["turned"] = torch.arange(12.0).reshape(3, 4).T
    written["every other"] = torch.arange(12.0)[::2]
    written["empty"] = torch.empty(0, 3)
    written["one number"] = torch.tensor(7.0)
    written["with a gradient"] = torch.ones(2, requires_grad=True)
    path = tmp_path / "all.safetensors"
    entry = write_tensors(path, written)
    read = load_file(path)
    assert read.keys() == written.keys()
    for name, tensor in written.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor.detach()), name
    content = path.read_bytes()
    assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("length", range(1, 10))
def test_the_numbers_begin_at_a_multiple_of_eight_bytes_however_long_the_names_are(
    length: int, tmp_path: Path
) -> None:
    path = tmp_path / "one.safetensors"
    write_tensors(path, {"n" * length: torch.ones(3)})
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0 and len(content) == 8 + size + 12
    said = content[8 : 8 + size]
    assert len(said) - len(said.rstrip(b" ")) < 8  # filled up, and not by more than is needed
    assert json.loads(said) == {"n" * length: {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}
    assert b", " not in said and b": " not in said


def test_large_tensors_go_out_in_parts_and_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "CHUNK", 16)
    numbers = torch.arange(41, dtype=torch.uint8)
    parts = [bytes(part) for part in tensors._stream({"a": numbers, "b": numbers[:16]})][1:]
    assert [len(part) for part in parts] == [16, 16, 9, 16]
    assert b"".join(parts[:3]) == bytes(range(41)) and parts[3] == bytes(range(16))


def test_a_file_that_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_stream(path, iter([memoryview(b"other")]))
    assert path.read_bytes() == b"mine"


def test_a_disk_that_takes_a_part_of_what_it_is_given_is_given_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __init__(self, path: Path) -> None:
            self.file = io.FileIO(path, "x")

        def __enter__(self) -> Slow:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, part: memoryview) -> int:
            return self.file.write(part[:3])

        def fileno(self) -> int:
            return self.file.fileno()

    monkeypatch.setattr(type(tmp_path), "open", lambda self, *_, **__: Slow(self))
    path = tmp_path / "slow"
    entry = write_stream(path, iter([memoryview(b"abcdefgh"), memoryview(b"ij")]))
    monkeypatch.undo()
    assert path.read_bytes() == b"abcdefghij" and entry["bytes"] == 10


def test_what_is_read_is_what_was_hashed_and_every_dtype_wherever_it_lies(tmp_path: Path) -> None:
    written = {
        "odd": torch.tensor([True, False, True])
    }  # three bytes: nothing after it lies at a multiple of eight
    written |= {str(dtype): torch.arange(6).reshape(3, 2).to(dtype) for dtype in DTYPES}
    written |= {"empty": torch.empty(0, 3), "one number": torch.tensor(7.0)}
    path = tmp_path / "x.safetensors"
    entry = write_tensors(path, written)
    whole, sha256 = read_hashed(path)
    assert sha256 == entry["sha256"] and bytes(whole.numpy()) == path.read_bytes()
    read = tensors_in(whole)
    assert list(read) == list(written)
    for name, tensor in written.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape, name
        assert torch.equal(read[name], tensor), name
    save_file({"a": torch.arange(5)}, tmp_path / "theirs", {"format": "pt"})
    assert torch.equal(tensors_in(read_hashed(tmp_path / "theirs")[0])["a"], torch.arange(5))


def test_a_file_longer_than_a_part_is_hashed_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "CHUNK", 7)
    for size in (0, 6, 7, 8, 50):
        content = bytes(range(size))
        (tmp_path / "f").write_bytes(content)
        whole, sha256 = read_hashed(tmp_path / "f")
        assert (bytes(whole.numpy()), sha256) == (content, hashlib.sha256(content).hexdigest())


def test_a_slow_hash_is_not_overtaken_by_that_of_the_next_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken = threading.Event()

    class Slow:
        def __init__(self) -> None:
            self.seen = b""

        def update(self, part: memoryview) -> None:
            if bytes(part) == b"ab":
                overtaken.wait(0.2)  # as long as a second thread would need to be first
            else:
                overtaken.set()
            self.seen += bytes(part)

        def hexdigest(self) -> str:
            return self.seen.decode()

    monkeypatch.setattr(tensors, "CHUNK", 2)
    monkeypatch.setattr(tensors.hashlib, "sha256", Slow)
    (tmp_path / "f").write_bytes(b"abcdefgh")
    assert read_hashed(tmp_path / "f")[1] == "abcdefgh"


def test_all_of_a_file_is_with_the_system_when_it_is_told_to_put_it_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(tensors.os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    write_stream(tmp_path / "f", iter([memoryview(b"abc"), memoryview(b"de")]))
    assert sizes == [5]


@pytest.mark.parametrize(
    ("numbers", "is_one", "gathers"),
    [
        ([1.0, 2.0], True, 0),
        ([3e38, 3e38], True, 1),
        ([1.0, float("nan")], False, 1),
        ([float("inf")], False, 1),
    ],
)
def test_of_a_tensor_that_ranks_hold_in_parts_the_sum_is_looked_at_first(
    numbers: list[float], is_one: bool, gathers: int
) -> None:
    gathered: list[int] = []
    dealt = torch.tensor(numbers)
    dealt.full_tensor = lambda: gathered.append(1) or torch.tensor(numbers)  # type: ignore[attr-defined]
    assert is_finite(dealt) is is_one and len(gathered) == gathers
    assert is_finite(torch.tensor(numbers)) is is_one
    assert is_finite(torch.tensor([1, 2]))
