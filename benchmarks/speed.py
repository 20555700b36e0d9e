"""Compare the package's speed with a baseline and with other libraries: `python -m benchmarks.speed`.

Prints a table as it goes, and writes `_build/bench.json`, a list with a row for each measurement.
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks import features, networks, peers
from benchmarks.timing import interleaved, ratios
from scnn.data import CORPORA, Corpus, default_corpus, load_corpus
from scnn.experiment import Experiment, load_data, run
from scnn.models import Network

TASKS = ("train", "infer", "features")
MODELS = ("A", "B", "C")
VARIANTS = networks.VARIANTS | peers.installed()
OUTPUT = Path("_build/bench.json")
RESULTS = Path(__file__).with_name("bench.json")  # from a run on a quiet machine; the book shows it
ROUND = 0.4  # s, minimum time of the baseline in a round
EPOCHS = 2  # of training before the measurements: an untrained network hardly spikes


@dataclass(frozen=True)
class Case:
    """A task and its sizes, for which all variants are measured."""

    task: str
    model: str
    batch: int  # recordings
    num_steps: int


CASES = (
    Case("train", "B", 16, 10),
    Case("train", "B", 64, 10),
    Case("train", "B", 16, 100),
    Case("train", "A", 16, 10),
    Case("train", "A", 64, 10),
    Case("train", "C", 16, 10),
    Case("infer", "B", 1, 10),
    Case("infer", "B", 64, 10),
    Case("infer", "B", 1, 100),
    Case("infer", "A", 1, 10),
    Case("infer", "A", 64, 10),
)


def trained(case: Case, corpus: str) -> tuple[Network, torch.Tensor, torch.Tensor]:
    """A briefly trained network, and the images and labels it was trained on."""
    experiment = Experiment(corpus=corpus, model=case.model, num_steps=case.num_steps, epochs=EPOCHS)
    data = load_data(experiment)
    return run(experiment).network(), *data.part(data.split.train)


def batched(images: torch.Tensor, labels: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Full batches of `size`; the remainder is dropped."""
    whole = len(images) - len(images) % size
    return list(zip(images[:whole].split(size), labels[:whole].split(size), strict=True))


def in_turns(
    steps: Mapping[str, networks.Step],
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    rounds: int,
    label: str,
) -> tuple[dict[str, list[float]], int]:
    """Seconds of each variant in each round, and the number of batches in a round, the same for all variants.

    Args:
        steps: the variants. The first is the baseline; its speed determines the number of batches in a round.
    """
    for step in steps.values():  # warm up, so that everything is compiled
        for batch in batches[:3]:
            step(*batch)
    start = time.perf_counter()
    next(iter(steps.values()))(*batches[0])
    count = max(2, math.ceil(ROUND / (time.perf_counter() - start)))
    mine = list(islice(cycle(batches), count))

    def run_all(step: networks.Step) -> None:
        for batch in mine:
            step(*batch)

    ways = {name: partial(run_all, step) for name, step in steps.items()}
    return interleaved(ways, rounds, label=label), count


def measure(
    case: Case, network: Network, images: torch.Tensor, labels: torch.Tensor, rounds: int
) -> list[dict[str, Any]]:
    """A row for each installed variant."""
    steps = {name: make(network, case.task) for name, make in VARIANTS.items()}
    label = f"{case.task} {case.model}, batch {case.batch}, T={case.num_steps}"
    seconds, count = in_turns(steps, batched(images, labels, case.batch), rounds, label)
    return rows(dataclasses.asdict(case), seconds, networks.BASELINE, count * case.batch)


def measure_features(corpus: Corpus, rounds: int) -> list[dict[str, Any]]:
    """A row for each way of computing images from waveforms."""
    seconds = interleaved(features.ways(corpus), rounds, label="features")
    about = {"task": "features", "model": "mfcc", "batch": len(corpus), "num_steps": 0}
    return rows(about, seconds, features.BASELINE, len(corpus))


def rows(
    about: dict[str, Any], seconds: dict[str, list[float]], baseline: str, samples: int
) -> list[dict[str, Any]]:
    """The rows of one case: each variant took `seconds` in the rounds, for `samples` samples per round."""
    relative = ratios(seconds, baseline)
    return [
        about
        | {"variant": name, "baseline": baseline, "samples_per_s": samples / statistics.median(times)}
        | {"samples_per_s_min": samples / max(times), "samples_per_s_max": samples / min(times)}
        | relative[name]
        | {"rounds": len(times)}
        for name, times in seconds.items()
    ]


def every_fifth(corpus: Corpus) -> Corpus:
    """Every fifth clip of `corpus`, because librosa is slow; contains all classes and speakers."""
    part = slice(None, None, 5)
    arrays = {name: getattr(corpus, name)[part] for name in ("labels", "speakers", "takes", "names")}
    return dataclasses.replace(corpus, waveforms=corpus.waveforms[part], lists={}, **arrays)


def run_cases(
    threads: int, cases: Sequence[Case], tasks: Sequence[str], corpus: str, rounds: int
) -> list[dict[str, Any]]:
    """All rows at one number of threads; prints them as they come."""
    if hasattr(os, "sched_setaffinity"):  # not every library can limit its threads, but all heed this
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", module="spikingjelly|norse|sinabs|jax|flax")
    common = {
        "threads": threads,
        "corpus": corpus,
        "versions": {name: version(name) for name in ("torch", "snntorch", "numba")} | peers.versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    found = []
    for case in cases:
        found += [row | common for row in measure(case, *trained(case, corpus), rounds)]
        show(found[-len(VARIANTS) :])
    if "features" in tasks:
        found += [row | common for row in measure_features(every_fifth(load_corpus(corpus)), rounds)]
        show(found[-2:])
    return found


def show(found: Sequence[dict[str, Any]]) -> None:
    """Print the rows of one case."""
    first = found[0]
    steps = f", T={first['num_steps']}" if first["num_steps"] else ""
    threads = f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}"
    print(f"\n{first['task']} {first['model']}, batch {first['batch']}{steps}, {threads}")
    print(f"  {'':16}{'samples/s':>11}{'ratio':>8}   rounds from .. to")
    for row in found:
        print(
            f"  {row['variant']:16}{row['samples_per_s']:11,.0f}{row['ratio']:8.2f}"
            f"   {row['ratio_low']:.2f} .. {row['ratio_high']:.2f}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="default: all")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="default: all")
    parser.add_argument("--batches", nargs="+", type=int, help="only these batch sizes")
    parser.add_argument("--num-steps", nargs="+", type=int, help="only these numbers of time steps")
    parser.add_argument("--rounds", type=int, default=10, help="default: 10")
    parser.add_argument("--threads", nargs="+", type=int, default=[2, 1], help="each in turn; default: 2 1")
    parser.add_argument("--corpus", choices=CORPORA, help="default: fsdd-1.0.8 if available")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or min(options.threads) < 1:
        parser.error("--rounds and --threads must be at least 1")
    cases = [
        case
        for case in CASES
        if case.task in options.tasks
        and case.model in options.models
        and case.batch in (options.batches or [case.batch])
        and case.num_steps in (options.num_steps or [case.num_steps])
    ]
    if not cases and "features" not in options.tasks:
        parser.error("no case matches these options; see CASES in benchmarks/speed.py")
    corpus = options.corpus or default_corpus()
    print(f"Images of {corpus}; ratios to {networks.BASELINE} are medians over {options.rounds} rounds.")
    if peers.missing():
        print(f"Left out because not installed: {', '.join(peers.missing())} (see benchmarks/README.md).")
    found = []
    for threads in options.threads:
        # A new process, because some libraries cannot change their number of threads once they run.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found += pool.submit(run_cases, threads, cases, options.tasks, corpus, options.rounds).result()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{len(found)} rows in {options.output}")


if __name__ == "__main__":
    main()
