"""Ranks of a run as real processes over gloo: started once, they do a list of jobs and leave what came of each.

A job is {"name", "kind", "keys"}: `steps` opens a session, looks at loss and gradient of its first update and makes
ten; `train` and `resume` are whole runs. The first rank writes OUT/NAME.safetensors.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from burnish.data.pack import total_weight
from burnish.models.forward import pack_attention
from burnish.optim.masters import whole
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import load_recipe
from burnish.training.launching import all_ranks
from burnish.training.run import open_readied, resume, train
from burnish.training.session import Session
from burnish.training.stages import ready
from burnish.training.step import _backward, evaluate, take_step

STEPS = 10
Job = dict[str, Any]


def gang(jobs: list[Job], size: int, out: Path, *, limit: float = 240) -> None:
    """Do the jobs in `size` new processes; an AssertionError with what they said where one fails."""
    out.mkdir(parents=True, exist_ok=True)
    processes = multiprocessing.get_context("forkserver")  # one server imports torch, and its forks need not
    processes.set_forkserver_preload([__name__])
    members = [
        processes.Process(target=_member, args=(jobs, out, rank, environment(rank, size, port)))
        for port in [free_port()]
        for rank in range(size)
    ]
    ends = time.monotonic() + limit
    try:
        for member in members:
            member.start()
        for member in members:
            member.join(max(0.0, ends - time.monotonic()))
    finally:
        for member in members:
            member.kill()
            member.join()
    said = [(out / f"said-{rank}.txt").read_text() for rank in range(size)]
    assert not any(member.exitcode for member in members), "\n".join(said)[-6000:]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What a launcher says to a rank."""
    own = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_PORT": port,
    }
    said = {key: str(value) for key, value in own.items()}
    return {**os.environ, **said, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def do_steps(keys: dict[str, Any]) -> dict[str, Tensor]:
    """Loss and gradient of the first update, the held-out loss, and the weights and losses of ten updates."""
    recipe = load_recipe(None, keys).recipe
    with all_ranks(recipe) as ranks:
        with ranks.one_before_others(f"rows of {keys['run_name']}"):
            readied = ready(recipe)
        session = open_readied(recipe, readied, from_scratch=False, ranks=ranks)
        found = {"loss": torch.tensor(first_gradient(session))}
        for name, parameter in session.masters.parameters.items():
            found[f"gradient/{name}"] = (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
        found = {name: whole(tensor).clone() for name, tensor in found.items()}
        session.masters.zero_grad()
        if session.held_out:
            found["held_out"] = torch.tensor(evaluate(session).loss)
        found["losses"] = torch.tensor(
            [take_step(session).loss for _ in range(min(STEPS, session.plan.num_steps))]
        )
        for name, parameter in session.masters.parameters.items():
            found[f"weight/{name}"] = whole(parameter.detach()).clone()
        return found


def first_gradient(session: Session) -> float:
    """The loss of the first update; its gradient, over the batch's weight, stays with the masters."""
    packs = session.ahead.take(0)
    with pack_attention(session.model, packed=session.forward.packed):
        summed, _ = _backward(session, packs, lambda: False)
    if session.ranks.size > 1:
        session.masters.gather(session.ranks.sum)
    session.masters.clip(None, over=total_weight(packs))
    return float(summed) / total_weight(packs)


def do(job: Job) -> dict[str, Tensor]:
    """What comes of a job."""
    match job["kind"]:
        case "steps":
            return do_steps(job["keys"])
        case "train":
            result = train(load_recipe(None, job["keys"]))
        case "resume":
            result = resume(job["run"], job.get("overrides", []))
        case unknown:
            raise ValueError(unknown)
    return {"steps": torch.tensor(result.steps)}


def results(out: Path, job: Job) -> dict[str, Tensor]:
    """What the first rank left of a job."""
    return load_file(out / f"{job['name']}.safetensors")


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor], prefix: str) -> float:
    """The largest difference of any number whose name begins so."""
    names = [name for name in theirs if name.startswith(prefix)]
    assert names and {name for name in ours if name.startswith(prefix)} == set(names)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in names)


def _member(jobs: list[Job], out: Path, rank: int, said: dict[str, str]) -> None:
    """One rank, which speaks into a file."""
    with (out / f"said-{rank}.txt").open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(said)
    prepare_process()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for number, job in enumerate(jobs):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)  # words of one job are not those of another
        found = do(job)
        if rank == 0:
            save_file(found, out / f"{job['name']}.safetensors")
