"""The parent's side of the child processes in which templates run, and a template that renders in one.

    template = BoundedTemplate(ChatTemplate(source))
    template.render(messages)          the same text, or TemplateRefusal("took longer than 5 s") with the parent alive

Children are started by exec, not by fork (torch's threads would be copied in the middle of what they do) and not by
multiprocessing (a script without a `__main__` guard would start itself again). They are reused for the life of the
process. `chat.child` says what their limits are.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import orjson

import burnish
from burnish.chat.child import LENGTH, LENGTHS, TemplateBreach, too_slow
from burnish.chat.provenance import Leaf, Rendered, Run
from burnish.chat.template import ChatTemplate, TemplateRefusal
from burnish.errors import BurnishError, DataError

RENDER_SECONDS = 5.0
"""How long one render may take; the child ends it itself."""

DEAF_SECONDS = 2.0
"""How much longer a child may say nothing before it is ended: it is deaf to its own alarm then."""

LOOK_SECONDS = 0.25
"""How long the parent waits at a time before it counts how long it has waited."""

START_SECONDS = 60.0
"""How long a child may take to start, or to load a tokenizer, on a machine that is busy."""

_IDLE = 2  # children kept for the next request
_LARGEST_ANSWER = 1 << 32
_START = "import sys; sys.path[:] = sys.argv[2:]; from burnish.chat.child import main; main()"
# A child needs no secrets: of the environment it gets what an interpreter needs to start.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR", "TZ")
_SETTINGS = {"TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "1", "PYTHONHASHSEED": "0"}


class ChildDied(Exception):
    """The child ended, or was ended, before it answered; `was_slow` where that is why, `signal` where one ended it."""

    def __init__(self, how: str, *, was_slow: bool = False, signal: int | None = None) -> None:
        super().__init__(how)
        self.was_slow = was_slow
        self.signal = signal

    @classmethod
    def of(cls, code: int | None) -> Self:
        """The death of a child with this exit code, None where it was still alive."""
        if code is None or code >= 0:
            return cls("ended unasked")
        return cls(f"ended by signal {-code}", signal=-code)


def not_started(death: ChildDied) -> BurnishError:
    """The error of a child that did not come to life: the machine's, not a template's."""
    how = f"said nothing within {START_SECONDS:g} s" if death.was_slow else str(death)
    return BurnishError(
        f"a child process for templates and rows was started, and {how}",
        rule="rows are rendered and encoded in child processes, which start within a minute, on about 100 MB",
        remedy="look at the machine's load and memory (`dmesg | grep -i oom`), then run the same command again",
    )


class Cell:
    """One child process, used by one thread at a time; BurnishError where it does not start."""

    def __init__(self) -> None:
        home = str(Path(burnish.__file__).parents[1])
        paths = [home, *(path for path in sys.path if path)]
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-c", _START, str(os.getpid()), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BURNISH_DEBUG") else subprocess.DEVNULL,
            env={**kept, **_SETTINGS},
        )
        try:
            self._read(START_SECONDS)
        except ChildDied as death:
            self.end()
            raise not_started(death) from death

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child can be asked."""
        return self._process.poll() is None

    def ask(
        self,
        job: dict[str, Any],
        *,
        key: str,
        made_from: Callable[[], bytes],
        patience: float = 0.0,
    ) -> tuple[dict[str, Any], bytes]:
        """Send one request and return the answer's JSON and bytes; ChildDied where there is none.

        `key` names the template or encoder that the request is for; `made_from` pickles it where the child does not
        hold it yet, and then the first sign of life may take `patience` seconds.
        """
        header, blob = self._ask({**job, "key": key, "made_from": None}, 0.0)
        if header.get("missing"):
            header, blob = self._ask({**job, "key": key, "made_from": made_from()}, patience)
        return header, blob

    def kill(self) -> None:
        """End the child from another thread than the one that waits for its answer."""
        self._process.kill()

    def end(self) -> None:
        """End the child at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was still to be written has no reader any more
                    continue

    def _ask(self, job: dict[str, Any], patience: float) -> tuple[dict[str, Any], bytes]:
        message = pickle.dumps({**job, "seconds": RENDER_SECONDS}, protocol=pickle.HIGHEST_PROTOCOL)
        silence = max(patience, RENDER_SECONDS + DEAF_SECONDS)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(LENGTH.pack(len(message)) + message)
            self._process.stdin.flush()
            while True:
                header, blob = self._read(silence)
                if "beat" not in header:
                    return header, blob
                silence = RENDER_SECONDS + DEAF_SECONDS
        except (
            BaseException
        ) as error:  # half an answer may be left in the pipe, so the child is of no more use
            if isinstance(error, OSError | ValueError):
                code = self._ended()
                self.end()
                raise ChildDied.of(code) from error
            self.end()
            raise

    def _ended(self) -> int | None:
        """Its exit code, None where it lives: its pipes are closed a moment before it is gone."""
        try:
            return self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return None

    def _read(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        patience = _Patience(seconds)
        text_length, blob_length = LENGTHS.unpack(self._bytes(LENGTHS.size, patience))
        if text_length + blob_length > _LARGEST_ANSWER:
            raise ChildDied(f"gave an answer of {text_length + blob_length:,} bytes")
        text = self._bytes(text_length, patience)
        blob = self._bytes(blob_length, patience)
        try:
            header = orjson.loads(text)
        except ValueError:  # a lone surrogate, which orjson does not read
            header = json.loads(text)
        if not isinstance(header, dict):
            raise ChildDied("gave an answer that is no object")
        return header, blob

    def _bytes(self, count: int, patience: _Patience) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        pieces: list[bytes] = []
        while count:
            if not patience.waits_for(poll):
                raise ChildDied(too_slow(RENDER_SECONDS), was_slow=True)
            piece = os.read(descriptor, min(count, 1 << 20))
            if not piece:
                raise ChildDied.of(self._process.wait())
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


@dataclass(slots=True)
class _Patience:
    """How many seconds are `left` to wait for one answer; those do not count in which this process was stopped."""

    left: float

    def waits_for(self, poll: select.poll) -> bool:
        """Whether something is there to be read before they are over."""
        while True:
            # Ctrl-Z stops parent and child together: a look that took an hour counts as one of its own length.
            look = max(0.0, min(self.left, LOOK_SECONDS))
            started = time.monotonic()
            heard = poll.poll(look * 1000)
            self.left -= min(look, time.monotonic() - started)
            if heard or self.left <= 0:
                return bool(heard)


_idle: list[Cell] = []
_lock = threading.Lock()
_starter = ThreadPoolExecutor(1, thread_name_prefix="burnish-cells")


def take() -> Cell:
    """A child to work with: one that waits for work, or a new one; `give_back` returns it."""
    with _lock:
        while _idle and not _idle[-1].alive:
            _idle.pop().end()
        cell = _idle.pop() if _idle else None
    return cell or start()


def start() -> Cell:
    """A new child; started in a thread that never ends, for on Linux a child dies with the thread it came from."""
    try:
        return _starter.submit(Cell).result()
    except BurnishError:  # somebody ended it; whoever ends the next one too is told of
        return _starter.submit(Cell).result()


def give_back(cell: Cell) -> None:
    """Keep the child for the next request, or end it where enough are kept."""
    with _lock:
        kept = cell.alive and len(_idle) < _IDLE
        if kept:
            _idle.append(cell)
    if not kept:
        cell.end()


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _forget_all() -> None:
    """After a fork: the children are the other process's, and its lock may have been held."""
    global _lock, _starter
    _lock = threading.Lock()
    _starter = ThreadPoolExecutor(1, thread_name_prefix="burnish-cells")
    _idle.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_all)


@dataclass(slots=True)
class _Probe:
    """Whether a template is being got to know, and the limit that it broke meanwhile."""

    is_on: bool = False
    breach: TemplateBreach | None = None


class BoundedTemplate(ChatTemplate):
    """A chat template that renders in a child process; pickled, it is the plain template again."""

    def __init__(self, template: ChatTemplate) -> None:
        self.__dict__.update(template.__getstate__())
        self.plain = template
        self._pickled = pickle.dumps(template)
        self._key = hashlib.sha256(self._pickled).hexdigest()
        self._probe = _Probe()

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.plain,)

    def render(self, *args: Any, **kwargs: Any) -> str:
        """`ChatTemplate.render`, with its time and memory bounded."""
        return str(self._call("render", args, kwargs))

    def trace(self, *args: Any, **kwargs: Any) -> Rendered:
        """`ChatTemplate.trace`, with its time and memory bounded."""
        value = self._call("trace", args, kwargs)
        runs = tuple(Run(*run) for run in value["runs"])
        return Rendered(value["text"], runs, tuple(Leaf(*leaf) for leaf in value["leaves"]))

    def given(self, variables: Mapping[str, Any]) -> BoundedTemplate:
        """`ChatTemplate.given`, bounded as this one is."""
        other = BoundedTemplate(self.plain.given(variables))  # type: ignore[attr-defined,unused-ignore]
        other._probe = self._probe
        return other

    @contextmanager
    def probed(self) -> Iterator[None]:
        """While the template is got to know: one breach is enough, and the block ends with it."""
        probe = self._probe
        probe.is_on = True
        try:
            yield
        finally:
            probe.is_on, breach, probe.breach = False, probe.breach, None
            if breach is not None:
                raise breach

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        probe = self._probe
        if probe.breach is not None:
            raise probe.breach
        try:
            return call_bounded(method, args, kwargs, key=self._key, made_from=lambda: self._pickled)
        except TemplateBreach as breach:
            probe.breach = breach if probe.is_on else None
            raise


def call_bounded(
    method: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, key: str, made_from: Callable[[], bytes]
) -> Any:
    """Call a method of a template in a child, and raise here what it raised there."""
    job = {"do": method, "args": args, "kwargs": kwargs}
    for attempt in (1, 2):
        cell = take()
        try:
            header, _ = cell.ask(job, key=key, made_from=made_from)
            break
        except ChildDied as death:
            # Killed from outside, it may be asked again; what took too long would take too long again.
            if attempt == 2 or death.was_slow:
                raise TemplateBreach(str(death)) from None
        finally:
            give_back(cell)
    if "error" in header:
        raise_again(header)
    return header["value"]


def raise_again(header: dict[str, Any]) -> NoReturn:
    """Raise the error that a child's answer tells of."""
    match header["error"]:
        case "TemplateBreach":
            raise TemplateBreach(str(header["message"]))
        case "TemplateRefusal":
            raise TemplateRefusal(str(header["message"]))
        case "DataError":
            raise DataError(str(header["saw"]), rule=str(header["rule"]), remedy=str(header["remedy"]))
        case _:
            raise RuntimeError(f"in the child process:\n{header.get('trace')}")


def _same(template: ChatTemplate) -> ChatTemplate:
    return template
