"""Deep Q-learning on CartPole from the buffer: several actors publish, one learner samples.

    pip install gymnasium
    python examples/cartpole.py [--log LOG_URL] [--directory DIRECTORY] [--curve FILE.csv]

Actors are processes of their own that play with the newest network they find and publish every
step. The learner samples by priority, gives back the temporal-difference errors as priorities, and
stops once 100 greedy games in a row bring the environment's solved score on average. The log is a
file in the directory; with `--log kafka://HOST:PORT/TOPIC` (made with `relive log create
--visual-dim 8 --text-dim 2`) the same script runs over Kafka.

The network is NumPy: 4 inputs, two layers of 64, one output per action; double Q-learning with a
target network (van Hasselt et al. 2016), Adam.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.producers import Publisher

Array: TypeAlias = npt.NDArray[Any]
Network: TypeAlias = list[Array]

ENVIRONMENT = "CartPole-v1"
HIDDEN = 64
DISCOUNT = 0.99
BATCH = 64
RATE = 1e-3
LARGEST_ERROR = 10.0
TARGET_EVERY = 100
PUBLISH_EVERY = 20
EVALUATE_EVERY = 100
START_AT = 500
STEPS_PER_S = 40.0
EXPLORING = (0.05, 0.2, 0.4)
# Position, speed, angle, angular speed: brings all four to about 1.
SCALE = np.array([1 / 2.4, 1 / 2.0, 1 / 0.21, 1 / 2.0])
# Schaul et al. 2016: how much priorities count, and how much of their bias is corrected.
ALPHA, BETA = 0.6, 0.4


def new_network(random: np.random.Generator) -> Network:
    sizes = (4, HIDDEN, HIDDEN, 2)
    network = []
    for before, after in pairwise(sizes):
        network.append(random.standard_normal((before, after)) * np.sqrt(2.0 / before))
        network.append(np.zeros(after))
    return network


def values(network: Network, states: Array) -> tuple[Array, list[Array]]:
    """The values of both actions, and each layer's input."""
    inputs, x = [], states * SCALE
    for layer in range(0, len(network), 2):
        inputs.append(x)
        x = x @ network[layer] + network[layer + 1]
        if layer + 2 < len(network):
            x = np.maximum(x, 0.0)
    return x, inputs


def gradients(network: Network, inputs: list[Array], error: Array) -> list[Array]:
    """Of the values' error, shape (batch, 2), by parameter."""
    found: list[Array] = []
    for layer in range(len(network) - 2, -1, -2):
        x = inputs[layer // 2]
        found[:0] = [x.T @ error, error.sum(axis=0)]
        error = (error @ network[layer].T) * (x > 0)
    return found


class Adam:
    """Kingma and Ba 2015."""

    def __init__(self, network: Network) -> None:
        self._means = [np.zeros_like(p) for p in network]
        self._squares = [np.zeros_like(p) for p in network]
        self._steps = 0

    def step(self, network: Network, by: list[Array]) -> None:
        self._steps += 1
        rate = RATE * np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        for p, g, m, s in zip(network, by, self._means, self._squares, strict=True):
            m += 0.1 * (g - m)
            s += 0.001 * (g * g - s)
            p -= rate * m / (np.sqrt(s) + 1e-8)


def save(network: Network, file: Path) -> None:
    part = file.with_suffix(".part.npz")
    np.savez(part, *network)
    part.replace(file)


def load(file: Path) -> Network:
    with np.load(file, allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


# Actors


def act(number: int, log: str, weights: Path) -> None:
    """Play and publish until the parent is gone."""
    parent = os.getppid()
    random = np.random.default_rng(number)
    environment = gymnasium.make(ENVIRONMENT)
    exploring = EXPLORING[number % len(EXPLORING)]
    started, played = time.monotonic(), 0
    with Publisher(log) as publisher:
        game = 0
        while os.getppid() == parent:
            network = load(weights)
            state, _ = environment.reset(seed=int(random.integers(2**31)))
            step, over = 0, False
            while not over:
                if random.random() < exploring:
                    action = int(random.integers(2))
                else:
                    action = int(values(network, state)[0].argmax())
                after, reward, ended, cut_short, _ = environment.step(action)
                over = ended or cut_short
                publisher.publish(
                    Experience(
                        visual=np.concatenate([state, after]),
                        # The action, and what the value of the state after it counts.
                        text=[float(action), 0.0 if ended else DISCOUNT],
                        total_reward=float(reward),
                        initial_priority=1.0,
                        episode_id=f"{number}/{game}",
                        step=step,
                    )
                )
                state, step, played = after, step + 1, played + 1
                # As fast as a robot, not as fast as the processor.
                time.sleep(max(0.0, started + played / STEPS_PER_S - time.monotonic()))
            game += 1


# The learner


def learn(buffer: ExperienceBuffer, network: Network, weights: Path, most: int) -> list[Any]:
    """Train until it is solved; rows of the curve: updates, experiences, seconds, mean return."""
    target = [p.copy() for p in network]
    adam = Adam(network)
    curve: list[Any] = []
    started = time.monotonic()
    for update in range(1, most + 1):
        batch = buffer.sample(BATCH, beta=BETA)
        columns = batch.columns
        states, after = columns["visual"][:, :4], columns["visual"][:, 4:]
        actions = columns["text"][:, 0].astype(int)
        rows = np.arange(len(batch))
        # Double Q-learning: the network chooses, the target network says what it is worth.
        best = values(network, after)[0].argmax(axis=1)
        worth = values(target, after)[0][rows, best]
        wanted = columns["total_reward"] + columns["text"][:, 1] * worth
        found, inputs = values(network, states)
        errors = found[rows, actions] - wanted
        by = np.zeros_like(found)
        by[rows, actions] = (
            columns["weight"] * np.clip(errors, -LARGEST_ERROR, LARGEST_ERROR) / len(batch)
        )
        adam.step(network, gradients(network, inputs, by))
        priorities = (np.abs(errors) + 1e-3) ** ALPHA
        buffer.update_priorities(batch.ids, priorities, batch.versions)
        if update % TARGET_EVERY == 0:
            target = [p.copy() for p in network]
        if update % PUBLISH_EVERY == 0:
            save(network, weights)
        if update % EVALUATE_EVERY == 0:
            score = evaluate(network, 5)
            seen = buffer.stats().additions
            curve.append((update, seen, round(time.monotonic() - started, 1), score))
            print(f"{update} updates, {seen} steps played: {score:.1f}", flush=True)
            if score >= solved_score():
                score = evaluate(network, 100)
                print(f"100 games: {score:.1f}, solved is {solved_score():g}", flush=True)
                if score >= solved_score():
                    curve.append((update, seen, round(time.monotonic() - started, 1), score))
                    break
    return curve


def evaluate(network: Network, games: int) -> float:
    """The mean return of greedy games."""
    environment = gymnasium.make(ENVIRONMENT)
    total = 0.0
    for game in range(games):
        state, _ = environment.reset(seed=1_000_000 + game)
        over = False
        while not over:
            action = int(values(network, state)[0].argmax())
            state, reward, ended, cut_short, _ = environment.step(action)
            total += float(reward)
            over = ended or cut_short
    return total / games


def solved_score() -> float:
    return float(gymnasium.spec(ENVIRONMENT).reward_threshold or 0.0)


def run(directory: Path, log: str | None, actors: int, most: int) -> list[Any]:
    """Start the actors, learn, stop them; the curve."""
    directory.mkdir(parents=True, exist_ok=True)
    config = BufferConfig(
        capacity=50_000,
        visual_dim=8,
        text_dim=2,
        age_weight=0.0,
        priority_floor=1e-3,
        record_retrievals=False,
        sample_min_size=START_AT,
        sample_timeout_s=120.0,
        snapshot_interval=10_000,
        faiss_backend="cpu",
    )
    weights = directory / "network.npz"
    network = new_network(np.random.default_rng(0))
    save(network, weights)
    with ExperienceBuffer.open(directory / "buffer", config, log=log) as buffer:
        url = log or f"file:{directory / 'buffer'}"
        command = [sys.executable, __file__, "--log", url, "--weights", str(weights), "--actor"]
        # Networks this small are slower on several threads.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen([*command, str(number)], env=environment) for number in range(actors)
        ]
        try:
            return learn(buffer, network, weights, most)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", help="by default, a file in the directory")
    parser.add_argument("--directory", type=Path, help="by default, a temporary one")
    parser.add_argument("--actors", type=int, default=3)
    parser.add_argument("--updates", type=int, default=20_000, help="give up after so many")
    parser.add_argument("--curve", type=Path, help="CSV file for the curve")
    parser.add_argument("--actor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.actor is not None:
        act(chosen.actor, chosen.log, chosen.weights)
        return
    with tempfile.TemporaryDirectory(prefix="relive-cartpole-") as temporary:
        directory = chosen.directory or Path(temporary)
        curve = run(directory, chosen.log, chosen.actors, chosen.updates)
    if chosen.curve is not None:
        with chosen.curve.open("w", newline="") as file:
            csv.writer(file).writerows([("updates", "experiences", "seconds", "return"), *curve])
    if not curve or curve[-1][3] < solved_score():
        sys.exit("not solved")


if __name__ == "__main__":
    main()
