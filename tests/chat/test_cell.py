"""A template can neither stop, nor fill, nor fool the process that asks for its render."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from burnish.chat import cell
from burnish.chat.cell import BoundedTemplate, Cell, give_back, take
from burnish.chat.child import TemplateBreach
from burnish.chat.template import CHATML, ChatTemplate, TemplateRefusal
from burnish.errors import BurnishError, DataError

HI = [{"role": "user", "content": "Hi"}]
SOURCE = Path(cell.__file__).parents[2]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The limits of time, shortened: a test need not wait five seconds."""
    monkeypatch.setattr(cell, "RENDER_SECONDS", 0.3)
    monkeypatch.setattr(cell, "DEAF_SECONDS", 0.7)
    return None


def bounded(source: str) -> BoundedTemplate:
    return BoundedTemplate(ChatTemplate(source, special_tokens={"eos_token": "</s>"}))


def test_a_bounded_template_renders_what_the_plain_one_renders() -> None:
    template = bounded(CHATML)
    assert template.render(HI, add_generation_prompt=True) == template.plain.render(
        HI, add_generation_prompt=True
    )
    assert (
        template.render([{"role": "user", "content": "odd \ud800 é\u2028"}]).count("odd \ud800 é\u2028") == 1
    )
    assert (template.sha256, template.source, template.is_dated) == (template.plain.sha256, CHATML, False)


def test_pickled_it_is_the_plain_template_again() -> None:
    again = pickle.loads(pickle.dumps(bounded(CHATML)))
    assert type(again) is ChatTemplate and again.render(HI) == bounded(CHATML).render(HI)


BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "deaf to alarms": "{{ 9 ** (9 ** 9) }}",
    "deaf to alarms when it runs": "{% set n = 9 %}{{ n ** (n ** n) }}",
}


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS)
def test_a_template_without_end_is_ended(source: str, hasty: None) -> None:
    with pytest.raises(TemplateBreach, match=r"took longer than 0\.3 s"):
        bounded(source).render(HI)
    assert bounded(CHATML).render(HI) == ChatTemplate(CHATML).render(HI)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 30000000000 }}",
        "{% set n = 30000000000 %}{{ 'a' * n }}",
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa') %}"
        "{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    ],
    ids=["when it compiles", "when it runs", "by doubling"],
)
def test_a_template_that_fills_the_memory_is_ended(source: str) -> None:
    with pytest.raises(TemplateBreach, match="needed more than 1024 MiB"):
        bounded(source).render(HI)


@pytest.mark.parametrize(
    "source",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{% if 1 %}" * 3_000 + "{% endif %}" * 3_000,
        "{{ 1 / 0 }}",
        "{{ raise_exception('no') }}",
    ],
    ids=["macros", "brackets", "blocks", "division", "its own words"],
)
def test_what_a_template_raises_is_its_refusal(source: str) -> None:
    with pytest.raises(TemplateRefusal) as caught:
        bounded(source).render(HI)
    assert not isinstance(caught.value, TemplateBreach)


def test_an_error_comes_back_as_what_it_is() -> None:
    with pytest.raises(TemplateRefusal) as refused:
        bounded("{{ raise_exception('System role not supported') }}").render(HI)
    assert refused.value.message == "System role not supported"
    with pytest.raises(DataError, match="line 1") as broken:
        bounded("{% for %}").render(HI)
    assert "FILE.jinja" in broken.value.remedy


BUSY = "{% for a in range(2000) %}{% for b in range(100) %}{% endfor %}{% endfor %}" + CHATML


def test_a_child_that_was_stopped_has_not_taken_longer(hasty: None) -> None:
    template, child = bounded(BUSY), take()
    give_back(child)
    with ThreadPoolExecutor(1) as threads:
        template.render(HI)
        asked = [threads.submit(template.render, HI) for _ in range(20)]
        for _ in range(4):  # at some render or other, longer than a render may take
            time.sleep(0.02)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(child.pid, signal.SIGCONT)
        assert {one.result() for one in asked} == {ChatTemplate(CHATML).render(HI)}
    assert take().pid == child.pid
    give_back(child)


STOPPED = f"""
import sys, time
from burnish.chat import cell
from burnish.chat.template import ChatTemplate
cell.RENDER_SECONDS, cell.DEAF_SECONDS, cell.LOOK_SECONDS = 0.4, 0.2, 0.05
template = cell.BoundedTemplate(ChatTemplate({BUSY!r}))
child = cell.take(); cell.give_back(child)
for number in range(60):
    print("rendering", flush=True)
    template.render({HI!r})
print("the same child" if cell.take().pid == child.pid else "another child")
"""


def test_parent_and_child_that_were_stopped_together_go_on() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as ran:
        assert ran.stdout is not None and ran.stdout.readline() == "rendering\n"
        for _ in range(3):
            os.killpg(ran.pid, signal.SIGSTOP)
            time.sleep(0.7)
            os.killpg(ran.pid, signal.SIGCONT)
            time.sleep(0.03)
        assert ran.stdout.read().splitlines()[-1] == "the same child"
    assert ran.returncode == 0


def test_while_it_is_probed_one_breach_is_enough(hasty: None) -> None:
    template = bounded(BOMBS["loops"])
    with pytest.raises(TemplateBreach), template.probed():
        for _ in range(50):
            try:
                template.render(HI)
            except TemplateRefusal:
                continue
    assert not template._probe.is_on and template._probe.breach is None


def test_a_child_that_was_killed_is_replaced() -> None:
    template = bounded(CHATML)
    expected = template.render(HI)
    child = take()
    give_back(child)
    os.kill(child.pid, signal.SIGKILL)
    assert template.render(HI) == expected


def test_children_are_used_again() -> None:
    bounded(CHATML).render(HI)
    child = take()
    give_back(child)
    bounded("{{ 'other' }}").render(HI)
    again = take()
    give_back(again)
    assert again.pid == child.pid


def test_threads_share_the_children_without_mixing_their_answers() -> None:
    template = bounded("{{ messages[0].content }}")
    asked = [[{"role": "user", "content": str(number)}] for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(template.render, asked)) == [str(number) for number in range(40)]


def test_after_a_fork_both_sides_can_render() -> None:
    template = bounded(CHATML)
    expected = template.render(HI)
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:  # the copy says what it rendered, and leaves without pytest's farewell
        os.write(writer, template.render(HI).encode())
        cell._end_all()
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 1000).decode() == expected
    os.waitpid(pid, 0)
    os.close(reader)
    assert template.render(HI) == expected


def test_a_script_without_a_main_guard_works_and_gives_its_secrets_to_no_child(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from burnish.chat.cell import BoundedTemplate, take\n"
        "from burnish.chat.template import CHATML, ChatTemplate\n"
        "print(BoundedTemplate(ChatTemplate(CHATML)).render([{'role': 'user', 'content': 'Hi'}]))\n"
        "print('a secret' in open(f'/proc/{take().pid}/environ').read())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "HF_TOKEN": "a secret"}
    ran = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=True
    )
    assert ran.stdout == ChatTemplate(CHATML).render(HI) + "\nFalse\n"


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = "import time\nfrom burnish.chat.cell import take\nprint(take().pid, flush=True)\ntime.sleep(60)\n"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    gone = False
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        gone = not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"
        if gone:
            break
        time.sleep(0.05)
    assert gone


def test_a_child_loads_neither_torch_nor_numpy() -> None:
    code = "import burnish.chat.child, sys; print({'torch', 'numpy', 'transformers', 'pydantic'} & sys.modules.keys())"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert ran.stdout == "set()\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time; time.sleep(60)", r"said nothing within 0\.2 s"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("raise SystemExit(1)", "ended unasked"),
    ],
)
def test_a_child_that_does_not_start_is_told_as_the_machines_fault_and_is_gone(
    code: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Seen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)

    monkeypatch.setattr(cell, "_START", code)
    monkeypatch.setattr(cell, "START_SECONDS", 0.2 if "sleep" in code else 60.0)
    monkeypatch.setattr(cell.subprocess, "Popen", Seen)
    with pytest.raises(BurnishError, match=f"was started, and {said}") as seen:
        Cell()
    assert "dmesg" in seen.value.remedy
    assert [child.returncode is not None for child in started] == [True]


def test_an_answer_that_is_no_answer_ends_the_child() -> None:
    child = Cell()
    with pytest.raises(RuntimeError, match="child process"):
        cell.raise_again({"error": "bug", "trace": "..."})
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(cell.ChildDied, match=r"signal 9|ended"):
        child.ask({"do": "render", "args": (HI,), "kwargs": {}}, key="x", made_from=lambda: b"")
    assert not child.alive


@pytest.mark.slow
@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS)
def test_with_the_limits_as_they_are_a_bomb_ends_within_ten_seconds(source: str) -> None:
    started = time.monotonic()
    with pytest.raises(TemplateBreach):
        bounded(source).render(HI)
    assert time.monotonic() - started < 10
