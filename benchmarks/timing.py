"""Time several ways of doing the same thing, in turns."""

import random
import statistics
import time
from collections.abc import Callable, Mapping

from tqdm import tqdm

PAUSE = 0.01  # s, so that waiting threads of the previous way fall asleep


def interleaved(
    ways: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0, label: str = "rounds"
) -> dict[str, list[float]]:
    """Seconds of each way in each of `rounds`, after one warm-up run of each.

    A round runs every way once, in shuffled order. So any disturbance longer than a round affects all ways
    alike, and no way always runs after the same other one.
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
    """The speedup of each way over `baseline`: median and quartiles over the rounds."""
    found = {}
    for name, times in seconds.items():
        each = [base / own for base, own in zip(seconds[baseline], times, strict=True)]
        low, median, high = statistics.quantiles(each, method="inclusive") if len(each) > 1 else each * 3
        found[name] = {"ratio": median, "ratio_low": low, "ratio_high": high}
    return found
