"""The child process in which chat templates run: a loop that answers requests, and the limits it works under.

A template is code from the hub. What it does here cannot stop or fill its parent:

    {% for a in range(99999) %}{% for b in range(99999) %}    an alarm ends it after 5 s of processor time
    {{ 'a' * 30000000000 }}                                   the limit of the address space ends it at once
    {{ 9 ** 9 ** 9 }}                                         deaf to alarms: the parent ends the process

Requests are pickled by the parent. Answers are JSON and raw bytes, for the parent unpickles nothing from a process
that ran foreign code. `chat.cell` is the parent's side. Neither numpy nor torch is imported here: a child starts in
a tenth of a second.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pickle
import resource
import signal
import struct
import sys
import time
import traceback
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from types import FrameType
from typing import Any, BinaryIO

import orjson

from burnish.chat.certificate import verify
from burnish.chat.encode import Encoder, EncoderSpec
from burnish.chat.refusal import RowRefused
from burnish.chat.template import ChatTemplate, TemplateRefusal
from burnish.errors import DataError
from burnish.types import Example, Row

RENDERS_PER_ROW = 6
"""All renders of one row together may take as long as so many renders at their limit."""

MEMORY_MIB = 1024
"""How far above its ordinary size a child may grow."""

BEAT_SECONDS = 1.0
_BYTES_PER_JSON_BYTE = 40  # what a tokenizer occupies in memory, in bytes per byte of its JSON, thrice over
_KEPT = 4  # templates and encoders held at a time
_PDEATHSIG = 1
# Of the processor, not of the wall: a process that was stopped, or found no core free, has not taken longer.
_CLOCK = signal.ITIMER_PROF

LENGTH = struct.Struct("<Q")
LENGTHS = struct.Struct("<QQ")


class TemplateBreach(TemplateRefusal):
    """The template did not end within its time or memory, and was stopped."""


class _TimeUp(BaseException):
    """Raised by the alarm; not an Exception, so that nothing on the way takes it for an ordinary error."""


class LimitedTemplate(ChatTemplate):
    """A template whose every call is on a budget; once it broke its limits it stays refused until `begin`."""

    def __init__(self, template: ChatTemplate, beat: Callable[[], None], *, seconds: float) -> None:
        self.__dict__.update(template.__getstate__())
        self._beat = beat
        self._running = False
        self.begin(seconds)

    @property
    def is_broken(self) -> bool:
        """Whether a limit was broken since `begin`."""
        return bool(self._breach)

    def begin(self, seconds: float) -> None:
        """Start a new row with a full budget: `seconds` for each render."""
        self._seconds = seconds
        self._left = RENDERS_PER_ROW * seconds
        self._breach = ""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """`ChatTemplate.render` on the budget."""
        return str(self._within_limits(super().render, args, kwargs))

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        """`ChatTemplate.trace` on the budget."""
        return self._within_limits(super().trace, args, kwargs)  # type: ignore[misc,unused-ignore]

    def given(self, variables: Mapping[str, Any]) -> LimitedTemplate:
        """`ChatTemplate.given`, limited as this one is."""
        return LimitedTemplate(super().given(variables), self._beat, seconds=self._seconds)  # type: ignore[misc,unused-ignore]

    def _within_limits(self, call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self._running:
            return call(*args, **kwargs)
        self._beat()
        if not self._breach:
            granted = min(self._seconds, max(0.01, self._left))
            try:
                self._running = True
                signal.setitimer(_CLOCK, granted)
                return call(*args, **kwargs)
            except _TimeUp:
                self._breach = too_slow(self._seconds)
            except MemoryError:
                self._breach = f"needed more than {MEMORY_MIB} MiB"
            except DataError:
                raise
            except Exception as error:  # whatever a hostile template makes Jinja or Python raise
                raise TemplateRefusal(f"{type(error).__name__}: {str(error)[:200]}") from None
            finally:
                self._left -= granted - signal.setitimer(_CLOCK, 0)[0]
                self._running = False
        raise TemplateBreach(self._breach)


class _Child:
    """The state of the child: its two pipes and what it was given to work with."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._held: OrderedDict[str, Any] = OrderedDict()
        self._beaten = time.monotonic()

    def serve(self) -> None:
        """Answer until the parent closes the pipe."""
        self.send({"ready": True})
        while head := self._requests.read(LENGTH.size):
            try:
                header, blob = self._answer(pickle.loads(self._requests.read(LENGTH.unpack(head)[0])))
            except _TimeUp:
                header, blob = _as_header(TemplateBreach("took longer than it may")), b""
            except MemoryError:
                header, blob = _as_header(TemplateBreach(f"needed more than {MEMORY_MIB} MiB")), b""
            except Exception as error:
                header, blob = _as_header(error), b""
            self.send(header, blob)

    def send(self, header: dict[str, Any], blob: bytes = b"") -> None:
        """Write one frame: two lengths, JSON, raw bytes."""
        try:
            text = orjson.dumps(header, default=_plain)
        except (TypeError, ValueError):  # a lone surrogate, which orjson does not write
            text = json.dumps(header, default=_plain).encode()
        self._answers.write(LENGTHS.pack(len(text), len(blob)) + text + blob)
        self._answers.flush()
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Show the parent that work goes on."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self.send({"beat": True})

    def _answer(self, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        key, made_from = job["key"], job["made_from"]
        if key not in self._held:
            if made_from is None:
                return {"missing": True}, b""
            self._hold(key, made_from, seconds=job["seconds"])
        self._held.move_to_end(key)
        held = self._held[key]
        match job["do"]:
            case "encode":
                return self._encode(held, job["rows"], seconds=job["seconds"])
            case method:
                held.begin(job["seconds"])
                return {"value": getattr(held, method)(*job["args"], **job["kwargs"])}, b""

    def _hold(self, key: str, made_from: bytes, *, seconds: float) -> None:
        """Make a template or an encoder, with room for what it normally occupies."""
        while len(self._held) >= _KEPT:
            self._held.popitem(last=False)
        _limit_memory((MEMORY_MIB << 20) + _BYTES_PER_JSON_BYTE * len(made_from))
        thing = pickle.loads(made_from)
        if isinstance(thing, EncoderSpec):
            template = (
                None
                if thing.template is None
                else LimitedTemplate(thing.template, self.beat, seconds=seconds)
            )
            self._held[key] = replace(thing, template=template).build()
        else:
            self._held[key] = LimitedTemplate(thing, self.beat, seconds=seconds)
        gc.freeze()  # a tokenizer's tables are not looked through at every collection
        self.beat()

    def _encode(
        self, encoder: Encoder, rows: Sequence[Row], *, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        """Encode rows: per row a JSON entry, and the ids (int32) and weights (float64) of all views as bytes."""
        ids, weights, entries = array("i"), array("d"), []
        for row in rows:
            self.beat()
            if isinstance(encoder.template, LimitedTemplate):
                encoder.template.begin(seconds)
            entry, views = _encode_row(encoder, row)
            for view in views:
                ids.extend(view.input_ids)
                weights.extend(view.weights)
            entries.append(entry)
            if isinstance(encoder.template, LimitedTemplate) and encoder.template.is_broken:
                break  # told at once: what is left of the chunk may take as long, row by row
        header = {"rows": entries, "stop_ids": sorted(encoder.stop_ids), "tokens": len(ids)}
        return header, ids.tobytes() + weights.tobytes()


def _encode_row(encoder: Encoder, row: Row) -> tuple[dict[str, Any], list[Example]]:
    """One row's entry: its views' shapes or why it is refused, what was unusual, which rules it breaks."""
    before = Counter(encoder.counts)
    entry: dict[str, Any] = {}
    views: list[Example] = []
    try:
        views = encoder.encode(row)
        broken = verify(encoder, row, views)
        entry["views"] = [[len(view), view.turns, view.cut] for view in views]
        if broken:
            entry["violations"] = [[v.code, v.message, v.detail] for v in broken]
    except RowRefused as refusal:
        entry["refused"], views = [refusal.reason, refusal.detail], []
    except TemplateRefusal as refusal:
        entry["refused"], views = [f"template refused: {refusal.message[:120]}", ""], []
    except (MemoryError, RecursionError) as error:
        entry["refused"], views = [f"template refused: {type(error).__name__}", ""], []
    if unusual := encoder.counts - before:
        entry["unusual"] = dict(unusual)
    return entry, views


def main() -> None:
    """Run as the child of the process whose id is the first argument."""
    parent = int(sys.argv[1])
    # Whatever prints to stdout cannot reach the answers, nor can anything read the requests from stdin.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGPROF, _alarm)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _die_with(parent)
    _limit_memory(MEMORY_MIB << 20)
    gc.set_threshold(20_000, 20, 20)  # rows come and go in thousands; few of them in circles
    gc.freeze()
    _Child(requests, answers).serve()


def too_slow(seconds: float) -> str:
    """What is said of a template that did not end in time."""
    return f"took longer than {seconds:g} s"


def _alarm(number: int, frame: FrameType | None) -> None:
    raise _TimeUp


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent; elsewhere the closed pipe does, once it is read."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def _limit_memory(more: int) -> None:
    """Let the address space grow by so many bytes from here; only Linux says how large it is."""
    if sys.platform != "linux":
        return
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - Path would be imported for this alone
        pages = int(file.read().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = pages * resource.getpagesize() + more
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _as_header(error: Exception) -> dict[str, Any]:
    """An error as the parent can raise it again."""
    match error:
        case TemplateRefusal():
            return {"error": type(error).__name__, "message": error.message}
        case DataError():
            return {"error": "DataError", "saw": error.saw, "rule": error.rule, "remedy": error.remedy}
        case _:
            return {"error": "bug", "trace": "".join(traceback.format_exception(error))[-4000:]}


def _plain(value: Any) -> Any:
    """What JSON has no word for: dataclasses that are not plain, sets."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return list(value) if isinstance(value, (set, frozenset, tuple)) else str(value)
