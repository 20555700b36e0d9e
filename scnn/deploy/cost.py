"""What a word costs on a Cortex-M: instructions, memory and energy, and where spiking breaks even.

Energies follow Horowitz (ISSCC 2014; 45 nm, 0.9 V). They cover the arithmetic and, for a processor, the
access for each word loaded or stored and the overhead of fetching, decoding and controlling each instruction.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from scnn import listen, metrics
from scnn.deploy import frontend, measure, reference
from scnn.deploy.quantize import Program, tuned
from scnn.models import Network

PICOJOULES = {
    "addition": 0.1,  # of 32 bits
    "multiplication": 0.2,  # of 8 bits
    "access": 10.0,  # of 32 bits in a 32 kB memory: half of the energy for 64 bits
    "instruction": 70.0,
}
WAYS = ("arithmetic", "memory", "processor", "word")  # of counting energy

# Rounded instruction counts for a front-end frame, a multiplication, and a connection from a spiking neuron.
# `estimate` compares networks with them, so they stay fixed even if the C gets faster.
ROUGHLY = {"frame": 24_000.0, "multiplication": 1.5, "connection": 3.0}


class Word(NamedTuple):
    """The cost of a word, averaged over recordings.

    Attributes:
        front_end: instructions of the front end.
        network: instructions of the network.
        accesses: words loaded and stored by the network.
        layers: instructions of each layer of the network, in order.
        flash: bytes of code and constants.
        ram: bytes of RAM.
    """

    front_end: float
    network: float
    accesses: float
    layers: list[float]
    flash: int
    ram: int


def word(
    target: measure.CortexM,
    clips: Sequence[np.ndarray],
    memory: bool = True,
    counted: pd.DataFrame | None = None,
) -> Word:
    """The cost of a word, averaged over `clips`; only `accesses` comes from the first of them alone.

    Args:
        clips: int16 [n] each.
        memory: whether to count accesses; if not, `accesses` is NaN.
        counted: the result of `measure.instructions` for these clips, if already known.
    """
    counted = measure.instructions(target, clips) if counted is None else counted
    table = counted["mean"].drop("sum")
    own = _of_network(table.index)
    accesses = math.nan
    if memory:
        target.run(clips[0])
        accesses = target.words_accessed(own)
    layers = [float(table[f"layer_{i + 1}"]) for i in range(len(target.program.layers))]
    size = measure.sizes(target)
    network = float(table[own].sum())
    flash = size["code"] + size["constants"]
    return Word(float(table.sum()) - network, network, accesses, layers, flash, size["ram"])


class Listening(NamedTuple):
    """The cost of listening to a stream, in addition to `Word`.

    Attributes:
        gate: instructions of the gate for each second of audio.
        answer: instructions to answer one word.
        speaking: instructions of both, for each second of a stream of words.
        wait: seconds from a word's last loud frame until the answer starts to be computed.
        flash: bytes beyond those of `Word`.
        ram: bytes beyond those of `Word`.
    """

    gate: float
    answer: float
    speaking: float
    wait: float
    flash: int
    ram: int


def listening(
    program: Program, folder: Path | str, clips: Sequence[np.ndarray], core: str = "cortex_m4", seed: int = 0
) -> Listening:
    """The cost of listening to a stream: 2 s of noise, then the recordings, each after 0.6 s of noise.

    Args:
        folder: where the C and the compiled code go.
        clips: int16 [n] each.
        core: one of `compiler.CORES`.
        seed: of the noise.

    Raises:
        ValueError: no word is heard in it.
    """
    target = measure.CortexM(program, folder, core, streaming=True)
    rate, draw = program.front_end.sample_rate, np.random.default_rng(seed)

    def noise(seconds: float) -> np.ndarray:
        return frontend.pcm(draw.normal(0, 0.001, round(seconds * rate)))

    def hear(samples: np.ndarray) -> tuple[list[int], list[int]]:
        """Instructions of each 10 ms frame, and of the frames that end with an answer."""
        frames, answers = [], []
        for start in range(0, len(samples), rate // 100):
            words = target.hear(samples[start : start + rate // 100])
            frames.append(sum(count for name, count in target.counts.items() if name != "harness_hear"))
            answers += frames[-1:] if words else []
        return frames, answers

    quiet, _ = hear(noise(2))
    stream = np.concatenate([part for clip in clips for part in (noise(0.6), clip)] + [noise(0.6)])
    spoken, answers = hear(stream)
    if not answers:
        raise ValueError("no word is heard in these recordings")
    alone, both = measure.sizes(measure.CortexM(program, folder, core)), measure.sizes(target)
    added = {name: both[name] - size for name, size in alone.items()}
    gate = sum(quiet) / 2
    return Listening(
        gate=gate,
        answer=sum(answers) / len(answers) - gate / 100,
        speaking=sum(spoken) * rate / len(stream),
        wait=listen.HANGOVER / listen.FRAMES,
        flash=added["code"] + added["constants"],
        ram=added["ram"],
    )


def estimate(network: Network, images: torch.Tensor, window: torch.Tensor) -> float:
    """A rough count of instructions per word. It is meant to guide a search, not to be published.

    The estimate is ::

        24,000 F + 1.5 M + 3 S

    where F is the number of frames with data, M the number of multiplications in layers that receive values,
    and S the number of connections from neurons that spike at least once; a neuron at the border counts like
    one inside.

    Args:
        images: float32 `[N, 1, H, W]`, to average over.
        window: bool `[N, H, W]`, True where the images hold data.
    """
    frames = window.any(dim=1).sum(dim=1).float().mean().item()
    macs = metrics.layer_costs(network)["macs"].tolist()
    multiplications, connections = sum(macs), 0.0
    if network.spiking:
        multiplications = macs[0]
        for part in images.split(50):
            active = [(trace.spikes > 0).any(dim=0).float().mean().item() for trace in network.trace(part)]
            shares = zip(active, macs[1:], strict=False)
            connections += sum(share * count for share, count in shares) * len(part) / len(images)
    counts = {"frame": frames, "multiplication": multiplications, "connection": connections}
    return sum(count * ROUGHLY[name] for name, count in counts.items())


def _of_network(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith("layer_") or name == "scnn_classify"]


def energy(additions: float, multiplications: float, cost: Word) -> dict[str, float]:
    """Energy of one answer in nJ, counted in four cumulative ways.

    Returns:
        "arithmetic", only additions and multiplications, which is what is usually compared; "memory" adds the
        network's loads and stores; "processor" adds its instructions; "word" adds the front end's.
    """
    arithmetic = additions * PICOJOULES["addition"] + multiplications * PICOJOULES["multiplication"]
    memory = arithmetic + cost.accesses * PICOJOULES["access"]
    processor = memory + cost.network * PICOJOULES["instruction"]
    whole = processor + cost.front_end * PICOJOULES["instruction"]
    return {
        name: value / 1e3 for name, value in zip(WAYS, (arithmetic, memory, processor, whole), strict=True)
    }


def by_activity(
    program: Program, folder: Path | str, clips: Sequence[np.ndarray], thresholds: Sequence[int]
) -> pd.DataFrame:
    """Instructions of each layer that receives spikes, against the activity of its inputs.

    Args:
        folder: where the C and the compiled code go.
        clips: int16 [n] each.
        thresholds: in 1/256 of the network's own (see `tuned`); they make its neurons spike more or less.

    Returns:
        A row for each threshold, recording and layer; `active` is the share of the layer's inputs that spike
        at least once.
    """
    rows = []
    for threshold in thresholds:
        other = tuned(program, program.steps, threshold)
        target = measure.CortexM(other, folder)
        hidden = reference.recognise(other, clips).hidden
        for index, pcm in enumerate(clips):
            target.run(pcm)
            for number, layer in enumerate(other.layers[1:], 2):
                active = float((hidden[number - 2][index] > 0).mean())
                rows.append((layer.name, threshold, active, target.counts[f"layer_{number}"]))
    return pd.DataFrame(rows, columns=["layer", "threshold", "active", "instructions"])


def break_even(points: pd.DataFrame, dense: Mapping[str, float]) -> pd.DataFrame:
    """The activity at which a layer that receives spikes takes as many instructions as its ReLU twin.

    A straight line is fitted to the points of each layer.

    Args:
        points: from `by_activity`.
        dense: instructions of each layer in the ReLU network.

    Returns:
        A row for each layer, with `slope` and `base` of its line, relative to the ReLU layer, and `active`,
        the share of active inputs at which the line reaches 1; all NaN if the activity does not vary.
    """
    rows = {}
    for name, group in points.groupby("layer", sort=False):
        slope, base = np.nan, np.nan
        if group["active"].nunique() > 1:
            slope, base = np.polyfit(group["active"], group["instructions"] / dense[name], 1)
        rows[name] = {"slope": slope, "base": base, "active": (1 - base) / slope}
    return pd.DataFrame(rows).T.rename_axis("layer")
