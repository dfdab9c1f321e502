"""The judge that a command line names: an endpoint's model, a model on this machine, or a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli.data.asking import Budget, ends_tidily
from burnish.cli.output import Output
from burnish.errors import UsageError
from burnish.evaluation.judge import Judged, judge_pairs, score_pairs
from burnish.evaluation.outputs import Pair, Turns
from burnish.evaluation.tally import tally
from burnish.evaluation.votes import Vote, VoteFile

JudgeName = Annotated[
    str | None,
    typer.Option(help="Model behind --endpoint; without it a run, a directory, a hub id or `marble`."),
]
RewardName = Annotated[str | None, typer.Option(help="A reward model's directory, in place of a judge.")]
Again = Annotated[
    int, typer.Option(min=0, help="Pairs that are judged once more: does the judge agree with itself?")
]
VotesPath = Annotated[Path, typer.Option("--votes", help="File that votes are appended to.")]


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """What was said about the judge."""

    judge: str | None
    endpoint: str | None
    reward: str | None
    again: int
    budget: Budget


class _RewardRater:
    """A reward model, asked about answers in turns: the last answer, after all that was said before it."""

    def __init__(self, directory: str) -> None:
        from burnish.evaluation.reward import RewardModel

        self._model = RewardModel(directory)
        self.name = self._model.name

    def rewards(self, answers: Sequence[tuple[Turns, Turns]]) -> list[float]:
        from burnish.curation.prompts import Prompt
        from burnish.types import Origin

        graded = []
        for asked, answered in answers:
            said: list[dict[str, Any]] = []
            for question, answer in zip(asked, answered, strict=True):
                said += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            graded.append((Prompt(tuple(said[:-1]), Origin("pairs", 1)), answered[-1]))
        return [0.0 if reward is None else reward for reward in self._model.grade(graded)]


def run_judge(choice: JudgeChoice, pairs: Sequence[Pair], votes: VoteFile, output: Output) -> Judged:
    """Have the pairs judged, and say what became of it."""
    if (choice.judge is None) == (choice.reward is None):
        raise UsageError(
            "no judge" if choice.judge is None else "--judge and --reward",
            rule="pairs are judged by a model (--judge, with or without --endpoint) or by a reward model (--reward)",
            remedy="give one of them",
        )
    with ExitStack() as stack:
        stack.enter_context(ends_tidily())
        judged = (
            score_pairs(_RewardRater(choice.reward), pairs, votes)
            if choice.reward is not None
            else _by_model(choice, pairs, votes, stack)
        )
    if judged.unread:
        output.warn(
            f"{judged.unread} of {judged.verdicts} verdicts could not be read; their pairs do not count"
        )
    if judged.refused or judged.stopped_by:
        output.warn(
            f"{judged.refused} verdicts were not given{f': {judged.stopped_by}' * bool(judged.stopped_by)}"
        )
    return judged


def _by_model(choice: JudgeChoice, pairs: Sequence[Pair], votes: VoteFile, stack: ExitStack) -> Judged:
    from burnish.cli.data.teachers import open_endpoint, open_store
    from burnish.curation.answers import Teacher

    name = str(choice.judge)
    store = open_store(votes.path.with_name(f"{votes.path.name}.answers"), choice.budget, stack)
    teacher: Teacher
    if choice.endpoint is not None:
        teacher = open_endpoint(choice.endpoint, name, store, choice.budget, stack)
    else:
        from burnish.evaluation.local_teacher import LocalTeacher

        teacher = LocalTeacher(name, store=store)
    return judge_pairs(teacher, pairs, votes, again=choice.again)


def tell(votes: Sequence[Vote], output: Output) -> None:
    """The report on votes: one JSON object, or tables and sentences."""
    report = tally(votes)
    output.emit(report)
    if output.as_json:
        return
    for pair in report["pairs"]:
        low, high = pair["ci"]
        output.say(
            f"{pair['model']} wins {pair['win_rate']:.1f}% against {pair['against']} ({low:.1f} to {high:.1f}) on "
            f"{pair['prompts']} prompts, {pair['tied']:.0f}% tied; at equal length "
            f"{pair['length_controlled_win_rate']:.1f}%",
            style="bold",
        )
        output.say(pair["power"], style="dim")
    _tell_trust(report, output)
    if report["strengths"]:
        rows = [
            (model, f"{one['strength']:+.2f}", "{:+.2f} to {:+.2f}".format(*one["interval"]), one["battles"])
            for model, one in report["strengths"].items()
        ]
        output.table(("model", "strength", "95%", "battles"), rows)


def _tell_trust(report: dict[str, Any], output: Output) -> None:
    for rater, found in report["raters"].items():
        parts = [f"{rater}: {found['votes']} votes"]
        if found["both_orders_agree"] is not None:
            parts.append(f"the same in both orders {100 * found['both_orders_agree']:.0f}%")
        if found["asked_again"] is not None:
            parts.append(f"asked again, kappa {found['asked_again']['kappa']:.2f}")
        output.say(", ".join(parts))
    for raters, found in report["agreement"].items():
        low, high = found["interval"]
        output.say(
            f"{raters}: kappa {found['kappa']:.2f} ({low:.2f} to {high:.2f}) on {found['items']} pairs"
        )
    bias = report["position_bias"]
    if bias and bias["p_value"] < 0.01:
        output.warn(
            f"the answer shown first won {100 * bias['share_first']:.0f}% of decided votes: the place counts"
        )
