"""Questions put to a model, greedily and in batches, and what each answer is worth.

    answer "The answer is 42." to {"expected": "42", "metric": "numeric"}
    marks  numeric_match (1, 1)  stop_rate (1, 1)  runaway_rate (0, 1)  template_leak_rate (0, 1)  answer_tokens (6, 1)

A runaway is an answer that was cut at the limit, or that repeats itself: the same run of tokens to its end, four times
or more. A leak is a control token inside an answer, or the spelling of one, or a role's heading at a line's start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from burnish.chat.reasoning import is_reasoning_tag
from burnish.evaluation.calls import are_valid, arguments_match, names_match, parse_calls
from burnish.evaluation.figures import Marks
from burnish.evaluation.ifeval import verdict
from burnish.evaluation.match import (
    chosen,
    contains,
    exact_match,
    numeric_match,
    read_json,
    regex_match,
    same_json,
)
from burnish.evaluation.questions import Question
from burnish.models.assistant import Answer, Assistant
from burnish.models.generate import generate, num_positions

Progress = Callable[[int, int | None], None]

LEAST_REPEATS = 4
LONGEST_REPEAT = 48
_SPELLED = re.compile(
    r"<\|[\w ]{1,40}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>"
    r"|^\s*(?:###\s*)?(?:Human|User|Assistant|Instruction|Response)\s*:",
    re.MULTILINE,
)
_TOOL_WORDS = re.compile(r"tool|function|python_tag", re.IGNORECASE)


def ask(
    assistant: Assistant,
    questions: Sequence[Question],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    progress: Progress = lambda done, total: None,
) -> list[Answer]:
    """One greedy answer to each question, in order; a prompt that fills the model's positions gets an empty one."""
    tokenizer = assistant.tokenizer
    prompts = [
        tokenizer.prompt_ids(question.prompt, [dict(t) for t in question.tools]) for question in questions
    ]
    room = num_positions(assistant.model.config)
    fits = [k for k, ids in enumerate(prompts) if room is None or len(ids) < room]
    fits.sort(key=lambda k: len(prompts[k]))
    answers = [Answer("", "length", ids, []) for ids in prompts]
    for start in range(0, len(fits), batch_size):
        batch = fits[start : start + batch_size]
        produced = generate(
            assistant.model,
            [prompts[k] for k in batch],
            stop_ids=assistant.stop_ids,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
        for k, one in zip(batch, produced, strict=True):
            text = tokenizer.decode_answer(one.completion_ids)
            answers[k] = Answer(text, one.finish_reason, one.prompt_ids, one.completion_ids)
        progress(start + len(batch), len(prompts))
    return answers


def mark_answer(question: Question, answer: Answer, *, spelled: str | None = None) -> Marks:
    """What one answer is worth by each of its question's metrics; `spelled` is its text with control tokens."""
    marks: Marks = {}
    for metric in question.metrics:
        marks |= {name: (float(ok), 1.0) for name, ok in _judged(metric, question, answer, spelled).items()}
    if "ifeval" in question.metrics:
        marks |= _ifeval(question, answer.text)
    return marks


def _judged(metric: str, question: Question, answer: Answer, spelled: str | None) -> dict[str, bool]:
    """By one metric, its names and whether the answer is right."""
    text, expected = answer.text, question.expected
    match metric:
        case "exact":
            return {"exact_match": any(exact_match(answer, one) for one in expected)}
        case "contains":
            return {"contains": any(contains(text, one) for one in expected)}
        case "regex":
            return {"regex_match": any(regex_match(text, one, question.place) for one in expected)}
        case "numeric":
            return {"numeric_match": any(numeric_match(text, one) for one in expected)}
        case "choice":
            return {"choice_match": chosen(text, question.choices) == question.right}
        case "json":
            there, value = read_json(text)
            given = {} if question.json is None else {"json_match": there and same_json(value, question.json)}
            return {"json_valid": there, **given}
        case "tool_call":
            return _calls(question, text if spelled is None else spelled)
        case _:
            return {}


def _calls(question: Question, text: str) -> dict[str, bool]:
    calls = parse_calls(text)
    marks = {"tool_call_valid": are_valid(calls, question.tools)}
    if question.wanted is not None:
        marks["tool_name_match"] = names_match(calls, question.wanted)
        marks["tool_argument_match"] = arguments_match(calls, question.wanted)
    return marks


def _ifeval(question: Question, text: str) -> Marks:
    found = verdict(text, question.instructions)
    marks: Marks = {}
    for name, outcomes in (("strict", found.strict), ("loose", found.loose)):
        marks[f"ifeval_prompt_{name}"] = (float(all(outcomes)), 1.0)
        marks[f"ifeval_instruction_{name}"] = (float(sum(outcomes)), float(len(outcomes)))
    return marks


def behaviour(answer: Answer, assistant: Assistant) -> Marks:
    """How an answer ended and whether it kept to itself, whatever it says."""
    stopped = answer.finish_reason == "stop"
    return {
        "stop_rate": (float(stopped), 1.0),
        "runaway_rate": (float(not stopped or repeats(answer.completion_ids)), 1.0),
        "template_leak_rate": (float(leaks(answer, assistant)), 1.0),
        "answer_tokens": (float(len(answer.completion_ids)), 1.0),
    }


def repeats(ids: Sequence[int]) -> bool:
    """Whether an answer ends in four or more copies of the same tokens, 12 tokens or more in all."""
    body = list(ids)
    for end in (len(body), len(body) - 1):  # with and without a stop token
        for size in range(1, min(LONGEST_REPEAT, end // LEAST_REPEATS) + 1):
            copies = max(LEAST_REPEATS, -(-12 // size))
            unit = body[end - size : end]
            if size * copies <= end and body[end - size * copies : end] == unit * copies:
                return True
    return False


def leaks(answer: Answer, assistant: Assistant) -> bool:
    """Whether the template shows in an answer: a control token before its end, or the spelling of one."""
    inner = answer.completion_ids[:-1] if answer.finish_reason == "stop" else answer.completion_ids
    tokenizer = assistant.tokenizer
    controls = {*tokenizer.control_ids, *tokenizer.tokenizer.all_special_ids}
    for token in {*inner} & controls:
        word = str(tokenizer.tokenizer.convert_ids_to_tokens(token))
        if not is_reasoning_tag(word) and not _TOOL_WORDS.search(word):
            return True
    return _SPELLED.search(answer.text) is not None
