"""F11: templates that loop, grow, recurse or reach for Python, put together at random, each rendered in a child.

A trial passes where the caller gets a text or a refusal within ten seconds, without having grown, and an honest
template then renders as before. Most trials run with the clock of a render set to a fraction of a second, so that
thousands can be run; every `FULL`-th has the limits that users have.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from burnish.chat import cell
from burnish.chat.cell import BoundedTemplate
from burnish.chat.child import TemplateBreach
from burnish.chat.template import CHATML, ChatTemplate, TemplateRefusal
from burnish.errors import DataError
from burnish.experiments.reliability.outcome import Outcome

MOST_SECONDS, MOST_BYTES = 10.0, 1 << 30
HASTY_SECONDS, HASTY_DEAF = 0.1, 0.4
FULL = 250
HI = [{"role": "user", "content": "Hi"}]
CANARY = "CANARY"
NUMBERS = (
    "3",
    "40",
    "9999",
    "99999999",
    "10 ** 10",
    "9 ** 9",
    "9 ** 9 ** 9",
    "2 ** 62",
    "-1",
    "messages | length",
)
TEXTS = (
    "'a'",
    "'aé😀'",
    "messages[0].content",
    "'%s' * 99",
    "'{0}' ~ 'x' * 9999",
    "lipsum(n=99)",
    "eos_token",
)
REACHES = (
    "''.__class__.__mro__[1].__subclasses__()",
    "cycler.__init__.__globals__.os.popen('touch CANARY').read()",
    "self.__init__.__globals__",
    "lipsum.__globals__['os'].system('touch CANARY')",
    "messages.__class__.__base__.__subclasses__()[99]",
    "namespace.__init__.__globals__['__builtins__']['open']('CANARY', 'w')",
    "('%c' % 95 * 2) | attr('__class__')",
    "messages.append(messages)",
    "messages[0].update({'content': 'other'})",
)


def bombs(place: Path, *, seed: int, trials: int = 5_000) -> Outcome:
    """F11: random hostile templates; `place` is where their reaches would leave a file."""
    outcome = Outcome("F11", "hostile templates, rendered in a child", seed)
    rng = random.Random(seed)
    honest = BoundedTemplate(ChatTemplate(CHATML, special_tokens={"eos_token": "</s>"}))
    expected = honest.plain.render(HI)  # type: ignore[attr-defined,unused-ignore]
    limits = cell.RENDER_SECONDS, cell.DEAF_SECONDS
    slowest = 0.0
    before = resident_bytes()
    try:
        for trial in range(trials):
            as_users_have_it = trial % FULL == FULL - 1
            cell.RENDER_SECONDS, cell.DEAF_SECONDS = (
                limits if as_users_have_it else (HASTY_SECONDS, HASTY_DEAF)
            )
            source = hostile(rng)
            kind, failure, took = _timed(source)
            slowest = max(slowest, took)
            cell.RENDER_SECONDS, cell.DEAF_SECONDS = limits
            if took > MOST_SECONDS:
                failure = f"{took:.1f} s"
            elif resident_bytes() - before > MOST_BYTES:
                failure = f"the caller grew by {resident_bytes() - before:,} bytes"
            elif trial % 10 == 0 and _honest(honest) != expected:
                failure = "an honest template renders otherwise after it"
            outcome.note(kind, failure and f"{failure}: {source[:200]}")
    finally:
        cell.RENDER_SECONDS, cell.DEAF_SECONDS = limits
    if any(folder.joinpath(CANARY).exists() for folder in (place, Path.cwd())):
        outcome.failures.append("code of a template was run")
    outcome.margin = f"{trials // FULL} with the limits users have; slowest {slowest:.1f} s"
    return outcome


def _timed(source: str) -> tuple[str, str | None, float]:
    """What became of a template, and the seconds that it took."""
    with Lived() as lived:
        kind, failure = _rendered(source)
    return kind, failure, lived.seconds


class Lived:
    """Counts seconds, but not those in which this process was stopped or the machine stood still."""

    TICK = 0.05

    def __init__(self) -> None:
        self.seconds, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _count(self) -> None:
        before = time.monotonic()
        is_done = False
        while not is_done:
            is_done = self._done.wait(self.TICK)
            now = time.monotonic()
            self.seconds += min(now - before, 4 * self.TICK)
            before = now


def _honest(template: BoundedTemplate) -> str:
    try:
        return template.render(HI)
    except TemplateBreach:  # this process was stopped for a while, which is not the template's fault
        return template.render(HI)


def _rendered(source: str) -> tuple[str, str | None]:
    try:
        template = BoundedTemplate(ChatTemplate(source, special_tokens={"eos_token": "</s>"}))
        text = template.render(HI)
    except TemplateBreach as breach:
        return ("too slow" if "longer" in breach.message else "too large or ended"), None
    except (TemplateRefusal, DataError):
        return "refused", None
    except BaseException as error:
        return "uncaught", f"{type(error).__name__}: {str(error)[:200]}"
    return "rendered", None if isinstance(text, str) else f"a render that is {type(text).__name__}"


def resident_bytes() -> int:
    """What this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def hostile(rng: random.Random) -> str:
    """A template of one to three hostile parts, one in another."""
    return "".join(rng.choice(PARTS)(rng, rng.randint(0, 2)) for _ in range(rng.randint(1, 3)))


def _inner(rng: random.Random, depth: int) -> str:
    return rng.choice(PARTS)(rng, depth - 1) if depth > 0 else "{{ " + rng.choice(TEXTS) + " }}"


def _loop(rng: random.Random, depth: int) -> str:
    inner = _inner(rng, depth)
    for name in "ab"[: rng.randint(1, 2)]:
        inner = f"{{% for {name} in range({rng.choice(NUMBERS)}) %}}{inner}{{% endfor %}}"
    return inner


def _product(rng: random.Random, depth: int) -> str:
    return f"{{% set n = {rng.choice(NUMBERS)} %}}{{{{ {rng.choice(TEXTS)} * n }}}}" + _inner(rng, depth)


def _power(rng: random.Random, depth: int) -> str:
    a, b, c = (rng.choice(("2", "9", "99", "n", "99999")) for _ in range(3))
    return f"{{% set n = {rng.choice(NUMBERS)} %}}{{{{ ({a} ** {b}) ** {c} }}}}"


def _doubling(rng: random.Random, depth: int) -> str:
    turns = rng.choice((5, 20, 31, 64))
    return (
        f"{{% set ns = namespace(s={rng.choice(TEXTS)}) %}}{{% for i in range({turns}) %}}"
        "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}" + _inner(rng, depth)
    )


def _recursion(rng: random.Random, depth: int) -> str:
    calls = " ".join(["{{ f(n + 1) }}"] * rng.randint(1, 3))
    return f"{{% macro f(n) %}}{_inner(rng, depth)}{calls}{{% endmacro %}}{{{{ f(0) }}}}"


def _nesting(rng: random.Random, depth: int) -> str:
    size = rng.choice((20, 900, 20_000))
    opened, closed = rng.choice((("(", ")"), ("[", "]"), ("not (", ")"), ("-(", ")")))
    return "{{ " + opened * size + "1" + closed * size + " }}"


def _filters(rng: random.Random, depth: int) -> str:
    number, text = rng.choice(NUMBERS), rng.choice(TEXTS)
    return (
        "{{ "
        + rng.choice(
            (
                f"{text} | center({number})",
                f"('%' ~ ({number}) ~ 'd') | format(1)",
                f"range({number}) | list | length",
                f"range({number}) | join({text})",
                f"{text} | indent({number}) | wordwrap(1)",
                f"{text} | replace('', {text} * 9999) | replace('a', {text} * 9999)",
                f"range({number}) | batch({number}) | list",
                f"[messages] * ({number}) | tojson",
                f"lipsum(n={number})",
                f"range({number}) | sum | string | length",
                f"'aaaaaaaaaaaaaaaaaaaaaaaaaaaa!' | regex_search('(a+)+$') ~ ({number})",
            )
        )
        + " }}"
    )


def _reach(rng: random.Random, depth: int) -> str:
    return "{{ " + rng.choice(REACHES) + " }}" + _inner(rng, depth)


PARTS: tuple[Callable[[random.Random, int], str], ...] = (
    _loop, _product, _power, _doubling, _recursion, _nesting, _filters, _reach,
)  # fmt: skip
