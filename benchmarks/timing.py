"""Several ways of doing the same, timed in turns."""

import random
import statistics
import time
from collections.abc import Callable, Mapping

from tqdm import tqdm

PAUSE = 0.01  # s, in which the waiting threads of the way before fall asleep


def interleaved(
    ways: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0, label: str = "rounds"
) -> dict[str, list[float]]:
    """Seconds of each way in each of `rounds`, after one run of each that does not count.

    A round runs every way once, in shuffled order: what disturbs the machine for longer than a round
    disturbs all of them alike, and none always follows the same other one.
    """
    for way in ways.values():
        way()
    order, shuffle = list(ways), random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in tqdm(range(rounds), desc=label, unit="round", disable=None, leave=False):
        shuffle(order)
        for name in order:
            time.sleep(PAUSE)
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: Mapping[str, list[float]], baseline: str) -> dict[str, dict[str, float]]:
    """How many times as fast as `baseline` each way is: median and quartiles over the rounds."""
    found = {}
    for name, times in seconds.items():
        each = [base / own for base, own in zip(seconds[baseline], times, strict=True)]
        low, median, high = statistics.quantiles(each, method="inclusive") if len(each) > 1 else each * 3
        found[name] = {"ratio": median, "ratio_low": low, "ratio_high": high}
    return found
