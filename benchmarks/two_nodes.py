"""A run on two nodes that are two network namespaces of this machine, each with an address; their link is cut once.

    python benchmarks/two_nodes.py [--cut 5] [--steps 40] [--recipe recipes/assistant.yaml]

    node 0  10.77.0.1  --- cable (a veth pair) ---  10.77.0.2  node 1

The run is made twice: with the link cut for some seconds in its middle, and without. Both must end, and with the same
bits. Needs root and `ip netns`; where these are not permitted it says so and exits 0 without a figure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PORT = 29577
LIMIT = 400.0
NODES = (f"burnish-{os.getpid()}-0", f"burnish-{os.getpid()}-1")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
CABLE = "cable"


def ip(*words: str) -> None:
    """`ip` with these words; CalledProcessError where it is refused."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def connect() -> None:
    """Make both nodes and the cable between them."""
    for node in NODES:
        ip("netns", "add", node)
    ends = [CABLE, "type", "veth", "peer", "name", CABLE, "netns", NODES[1]]
    ip("-n", NODES[0], "link", "add", *ends)
    for node, address in zip(NODES, ADDRESSES, strict=True):
        ip("-n", node, "addr", "add", f"{address}/24", "dev", CABLE)
        ip("-n", node, "link", "set", CABLE, "up")
        ip("-n", node, "link", "set", "lo", "up")


def disconnect() -> None:
    """Forget what was made of the nodes."""
    for node in NODES:
        subprocess.run(["ip", "netns", "del", node], capture_output=True, check=False)


def launch(node: int, words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """torchrun on one of the nodes."""
    engine = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}"]
    engine += [f"--master-addr={ADDRESSES[0]}", f"--master-port={PORT}", "-m", "burnish", *words]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": CABLE, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        return subprocess.Popen(
            ["ip", "netns", "exec", NODES[node], sys.executable, *engine],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def steps_done(run: Path) -> int:
    """How many updates the run has logged."""
    file = run / "metrics.jsonl"
    return sum('"train"' in line for line in file.read_text().splitlines()) if file.is_file() else 0


def cut_link(seconds: float) -> None:
    """No packet passes for so long."""
    ip("-n", NODES[1], "link", "set", CABLE, "down")
    time.sleep(seconds)
    ip("-n", NODES[1], "link", "set", CABLE, "up")


def train(folder: Path, recipe: str, steps: int, cut: float) -> tuple[Path, float, int]:
    """One run on both nodes: where it is, its seconds, and after which update the link was cut."""
    name = "cut" if cut else "whole"
    keys = [
        f"output_dir={folder}",
        f"run_name={name}",
        f"max_steps={steps}",
        "num_epochs=null",
        "dtype=float32",
    ]
    words = ["train", recipe, *keys, "sample_prompts=[]", "eval_steps=0.5"]
    nodes = [launch(node, words, folder / f"{name}-{node}.log") for node in (0, 1)]
    began, at = time.monotonic(), 0
    try:
        while any(node.poll() is None for node in nodes):
            if time.monotonic() - began > LIMIT:
                raise SystemExit(f"{name}: no end after {LIMIT:.0f} s\n{tails(folder, name)}")
            if cut and not at and steps_done(folder / name) >= steps // 3:
                at = steps_done(folder / name)
                cut_link(cut)
            time.sleep(0.1)
    finally:
        for node in nodes:
            node.kill()
    if any(node.returncode for node in nodes):
        raise SystemExit(f"{name}: exit codes {[node.returncode for node in nodes]}\n{tails(folder, name)}")
    return folder / name, time.monotonic() - began, at


def tails(folder: Path, name: str) -> str:
    """What both nodes said last."""
    return "\n".join((folder / f"{name}-{node}.log").read_text()[-2000:] for node in (0, 1))


def weights(run: Path) -> str:
    """The hash of the final weights."""
    return hashlib.sha256((run / "final" / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    """Two runs, one sentence."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cut", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--recipe", default="recipes/assistant.yaml")
    asked = parser.parse_args()
    try:
        connect()
    except (OSError, subprocess.CalledProcessError) as error:
        disconnect()
        print(f"no network namespaces here ({getattr(error, 'stderr', None) or error}): nothing was measured")
        return
    folder = Path(tempfile.mkdtemp(prefix="two-nodes-"))
    try:
        cut, seconds, at = train(folder, asked.recipe, asked.steps, asked.cut)
        whole, plain, _ = train(folder, asked.recipe, asked.steps, 0.0)
        same = weights(cut) == weights(whole)
        print(
            json.dumps(
                {
                    "nodes": 2,
                    "steps": steps_done(cut),
                    "cut_seconds": asked.cut,
                    "cut_after_step": at,
                    "seconds": round(seconds, 1),
                    "seconds_without_cut": round(plain, 1),
                    "same_bits": same,
                }
            )
        )
        if not same or steps_done(cut) != asked.steps or not at:
            raise SystemExit("the run with the cut is not the run without it")
    finally:
        disconnect()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
