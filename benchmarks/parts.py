"""Measure the gain of each part of the fast path: `python -m benchmarks.parts` (takes minutes)."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from unittest.mock import patch

import pandas as pd
import torch

from benchmarks.networks import train
from benchmarks.timing import interleaved, ratios
from scnn import boxed, data, models, window
from scnn.experiment import Experiment, load_data, run
from scnn.features import one_thread
from scnn.models import Network
from scnn.training import loss


def _box(images: torch.Tensor) -> window.Box:
    """`scnn.window.data_box`, with PyTorch operations."""
    used = (images != 0).any(dim=0).any(dim=0)
    rows, columns = (used.any(dim=dim).nonzero().flatten().tolist() or [0] for dim in (1, 0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def _product(values, background, box, size, weight, bias):
    """`scnn.boxed._infer`, computed as in training."""
    with torch.enable_grad():
        return boxed._BoxedLinear.apply(values, background, box, size, weight, bias).detach()


WITHOUT: Mapping[str, Callable[[], AbstractContextManager]] = {  # part: a context that turns it off
    "everything": nullcontext,
    "data window": partial(patch.object, models, "data_box", lambda images: window.whole(images.shape[2:])),
    "its search compiled": partial(patch.object, models, "data_box", _box),
    "changes alone": partial(patch.object, boxed, "SPARSE", 0),
    "a word without gradient": partial(patch.object, boxed, "_infer", _product),
}


def gains(network: Network, images: torch.Tensor, labels: torch.Tensor, rounds: int) -> Iterator[dict]:
    """Time for training and for answering single recordings without each part, relative to the full path.

    A part that gains nothing has a ratio of about 1.

    Args:
        images: `[N, C, H, W]`, a batch.
        labels: `[N]`.

    Yields:
        `task`, `part`, and `gain`, `low` and `high`, the median and quartiles over the rounds.
    """
    trained = copy.deepcopy(network)
    step = train(trained, loss, fused=True)

    def answer() -> None:
        with torch.no_grad():
            for image in images:
                network(image[None])

    for task, work in {"train": lambda: step(images, labels), "answer": answer}.items():

        def once(without: Callable[[], AbstractContextManager], work: Callable[[], object] = work) -> None:
            with without():
                work()

        seconds = interleaved({name: partial(once, part) for name, part in WITHOUT.items()}, rounds)
        for name, found in ratios(seconds, "everything").items():
            if name != "everything":
                low, high = 1 / found["ratio_high"], 1 / found["ratio_low"]
                yield {"task": task, "part": name, "gain": 1 / found["ratio"], "low": low, "high": high}


@one_thread()
def main(rounds: int = 40, names: Sequence[str] = ("A", "B", "C", "CNN")) -> None:
    """Print the gains for the paper's networks, trained for two epochs, on one core."""
    corpus = data.default_corpus()
    for model in names:
        experiment = Experiment(corpus=corpus, model=model, epochs=2)
        inputs = load_data(experiment)
        images, labels = inputs.part(inputs.split.test)
        network = run(experiment).network().eval()
        table = pd.DataFrame(gains(network, images[:40], labels[:40], rounds))
        print(model, table.round(2).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
