"""`burnish arena`: blind pairs for people, judges for the patient, and what their votes add up to.

burnish arena power --prompts 80                     before any vote
burnish arena vote base.json tuned.json --rater ann  A, B, tie, both bad, undo; goes on where it stopped
burnish arena judge base.json tuned.json --judge gpt --endpoint https://.../v1 --max-cost 5
burnish arena report votes.jsonl
burnish arena export votes.jsonl --out pairs.jsonl
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from burnish.cli.data.asking import (
    Budget,
    Concurrency,
    EndpointUrl,
    KeyVariable,
    MaxCost,
    PriceCompletion,
    PricePrompt,
    Retries,
    Timeout,
)
from burnish.cli.judging import Again, JudgeChoice, JudgeName, RewardName, VotesPath, run_judge, tell
from burnish.cli.output import Output
from burnish.errors import UsageError
from burnish.evaluation.arena import KEYS, Session, Shown
from burnish.evaluation.outputs import Pair, one_model, pair_up, read_outputs
from burnish.evaluation.power import USUAL_DIFFERENCE, study
from burnish.evaluation.votes import VoteFile, preference_pairs, read_votes

command = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

OutputsFile = Annotated[
    str, typer.Argument(help="AlpacaEval outputs or MT-Bench answers; FILE:MODEL where it holds several.")
]
Questions = Annotated[Path | None, typer.Option(help="MT-Bench's question.jsonl, for its answers.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
VoteFiles = Annotated[list[Path], typer.Argument(help="Files of votes, or of AlpacaEval annotations.")]
DEFAULT_VOTES = Path("votes.jsonl")


@command.command("vote")
def vote(
    one: OutputsFile,
    other: OutputsFile,
    rater: Annotated[str, typer.Option(help="Your name in the votes.")],
    votes: VotesPath = DEFAULT_VOTES,
    questions: Questions = None,
    seed: Annotated[int, typer.Option(help="Seed of the order and the sides.")] = 0,
) -> None:
    """Vote on blind pairs in the terminal; the sides are drawn, and nobody is named."""
    output = Output()
    pairs = read_pairs(one, other, questions)
    output.say(study(len(pairs)).in_words(), style="dim")
    session = Session(pairs, VoteFile(votes), rater=rater, seed=seed)
    if session.done:
        output.say(f"{session.done} of {len(pairs)} are done; going on", style="dim")
    _vote_on(session, output)
    output.say(f"{session.done} of {len(pairs)} voted; `burnish arena report {votes}` counts them")


def _vote_on(session: Session, output: Output) -> None:
    """Show and ask until all pairs have a vote, or the rater stops."""
    while (shown := session.next()) is not None:
        _show(shown, output)
        while True:
            typed = _typed()
            if typed == "q":
                return
            if typed == "u":
                if not session.undo():
                    output.say("there is nothing to undo", style="dim")
                    continue
                break
            if typed in KEYS:
                session.vote(typed)
                break
            output.say(
                "A or B: that answer is better; T: tie; X: both bad; U: undo; Q: stop, and go on later"
            )


def _show(shown: Shown, output: Output) -> None:
    output.say(f"\n{'─' * 20} {shown.number} of {shown.of} {'─' * 20}", style="dim")
    for name, answers in (("A", shown.left), ("B", shown.right)):
        for turn, (asked, answered) in enumerate(zip(shown.asked, answers, strict=True)):
            if name == "A" or turn:
                output.say(f"\nasked: {asked}", style="bold")
            output.say(f"\n{name}: {answered}")


def _typed() -> str:
    """One key, or the first letter of a line; the end of input stops."""
    sys.stdout.write("\n[A] [B] [T]ie [X] both bad [U]ndo [Q]uit > ")
    sys.stdout.flush()
    if sys.stdin.isatty():
        typed = typer.getchar()
        sys.stdout.write(f"{typed if typed.isprintable() else ''}\n")
        return "q" if typed in ("\x03", "\x04") else typed.lower()
    line = sys.stdin.readline()
    return line.strip().lower()[:1] if line else "q"


@command.command("judge")
def judge(
    one: OutputsFile,
    other: OutputsFile,
    judge: JudgeName = None,
    endpoint: EndpointUrl = None,
    reward: RewardName = None,
    votes: VotesPath = DEFAULT_VOTES,
    questions: Questions = None,
    again: Again = 20,
    key_env: KeyVariable = "OPENAI_API_KEY",
    max_cost: MaxCost = None,
    price_prompt: PricePrompt = 0.0,
    price_completion: PriceCompletion = 0.0,
    concurrency: Concurrency = 4,
    timeout: Timeout = 120.0,
    retries: Retries = 6,
    as_json: AsJson = False,
) -> None:
    """Have a model judge every pair in both orders; every answer is kept, and none is paid for twice."""
    budget = Budget(max_cost, price_prompt, price_completion, key_env, concurrency, timeout, retries)
    output = Output(as_json=as_json)
    given = VoteFile(votes)
    choice = JudgeChoice(judge, endpoint, reward, again, budget)
    run_judge(choice, read_pairs(one, other, questions), given, output)
    tell(given.votes, output)


@command.command("report")
def report(votes: VoteFiles, as_json: AsJson = False) -> None:
    """Win rates, strengths, agreement of raters, and whether the place of an answer counts."""
    found = read_votes(votes)
    if not found:
        raise UsageError(
            f"no votes in {', '.join(map(str, votes))}",
            rule="a report counts votes",
            remedy="burnish arena vote, or burnish arena judge",
        )
    tell(found, Output(as_json=as_json))


@command.command("export")
def export(
    votes: VoteFiles,
    out: Annotated[Path, typer.Option(help="JSON Lines of preference pairs: prompt, chosen, rejected.")],
    as_json: AsJson = False,
) -> None:
    """Write the pairs that votes decided as preference pairs, the hand-over to preference tuning."""
    rows = preference_pairs(read_votes(votes))
    out.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    output = Output(as_json=as_json)
    output.emit({"pairs": len(rows), "out": str(out)})
    output.say(f"{len(rows)} pairs in {out}")


@command.command("power")
def power(
    prompts: Annotated[int, typer.Option(help="Prompts that will be voted on.")],
    difference: Annotated[float, typer.Option(help="Points from 50% that you would want to see.")] = 100
    * USUAL_DIFFERENCE,
    ties: Annotated[float, typer.Option(help="Percent of pairs that you expect to be tied.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """What so many prompts can show, before any vote."""
    found = study(prompts, difference=difference / 100, ties=ties / 100)
    output = Output(as_json=as_json)
    output.emit(
        {
            "prompts": found.prompts,
            "smallest_visible": 100 * found.visible,
            "smallest_reliable": 100 * found.reliable,
            "difference": difference,
            "prompts_to_see": found.needed_to_see,
            "prompts_to_find_reliably": found.needed_reliably,
        }
    )
    output.say(found.in_words())


def read_pairs(one: str, other: str, questions: Path | None) -> list[Pair]:
    """The pairs of two files of outputs."""
    sides = []
    for given in (one, other):
        name, _, model = (
            given.rpartition(":") if ":" in given and not Path(given).exists() else (given, "", None)
        )
        found = read_outputs(Path(name), questions=questions)
        chosen = one_model(found, Path(name), model=model)
        sides.append((chosen, found[chosen]))
    return pair_up(*sides[0], *sides[1])
