"""Learning a new voice: one stranger says the words a few times, and the last layer alone learns from it.

Nothing is propagated back through the network. The last layer hears each recording, and where its answer
differs from what was said, its weights move by what it has just received: the delta rule. That takes a
counter of spikes for each input, a table of exponentials, and one multiply-add for each weight, in whole
numbers if need be.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from scnn import kernels
from scnn.checks import whole
from scnn.data import Corpus
from scnn.features import one_thread
from scnn.models import Network
from scnn.neurons import Output
from scnn.quantization import Synapse, weight_of
from scnn.text import listed
from scnn.training import scores

RATE, PASSES, MARGIN = 0.3, 10, 3.0
_BATCH = 50  # clips


def last_inputs(network: Network, images: torch.Tensor) -> torch.Tensor:
    """What the last layer receives for `images` `[N, C, H, W]`: `[T, N, inputs]`, the spikes before it.

    In a ReLU network, and where there is no layer before, it is `[1, N, inputs]` and constant over time.

    >>> from scnn.models import build
    >>> last_inputs(build("C", num_steps=4), torch.zeros(2, 1, 32, 32)).shape
    torch.Size([4, 2, 128])
    """
    found = []
    for part in images.split(_BATCH):
        before = [trace.spikes for trace in network.trace(part)[:-1]] or [part[None]]
        found.append(before[-1].flatten(2))
    return torch.cat(found, dim=1)


def last_layer(network: Network, inputs: torch.Tensor) -> Output:
    """The answer of the last layer to `inputs` `[T, N, inputs]`, as `last_inputs` gives them."""
    last = network.weights[-1]
    current = functional.linear(inputs, weight_of(last), last.bias)
    if not network.spiking:
        return Output(None, current)
    spikes, membrane = kernels.leaky(current, network.output_neuron, network.num_steps)
    assert membrane is not None  # it was asked for
    return Output(spikes, membrane)


@one_thread()
def enrol(
    network: Network,
    images: torch.Tensor,
    labels: torch.Tensor,
    rate: float = RATE,
    passes: int = PASSES,
    margin: float = MARGIN,
) -> Network:
    """A copy of `network` whose last layer has learnt some `images`, one after another.

    The rule, for each class c::

        w_c += r (y_c - a_c) (x - z),    b_c -= r (y_c - a_c) (x - z) z
        a = softmax(u - margin y),    r = rate / mean |x - z|^2

    where `x` is what the last layer receives, its mean over the time steps, and `z` the mean of `x` over the
    images: what all words have in common moves nothing. `y` is 1 for the class of the image and 0 for the
    others; `u` is the mean of the output membranes over the time steps (the logits of a ReLU network), as the
    layer gives it with the weights that it has by then. The order is always the same: in each of the `passes`
    the first image of every class, then the second. In the end the weights, less their mean over the classes,
    are scaled to the size that they had, so that outputs spike about as often as before.

    A class without an image keeps its weights. The copy has the precision of `network`: it answers, while
    learning as later, with rounded weights where they are quantised. A layer without biases learns none.

    Args:
        network: it stays as it is.
        images: `[N, C, H, W]`, the examples.
        labels: `[N]`, their classes.
        rate: above 0, how far one image moves the weights.
        passes: how often the examples are gone through.
        margin: by about how much the class has to be ahead before the weights rest.

    Raises:
        ValueError: for images of fewer than two classes, for labels that are none of the network's or not as
            many as the images, for a `rate` not above 0, a `margin` below 0 or `passes` below 1, and where
            all images cause the same in the last layer.
    """
    for name, value, least in (("rate", rate, 1e-6), ("margin", margin, 0)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1e3:
            raise ValueError(f"{name} must be a number from {least:g} to 1000, not {value!r}")
    whole("passes", passes, 1, 1000)
    outputs = network.layers[-1].units
    if labels.shape != images.shape[:1] or not all(0 <= label < outputs for label in labels.tolist()):
        raise ValueError(f"labels must be a class of 0 to {outputs - 1} for each of the {len(images)} images")
    if len(labels.unique()) < 2:
        raise ValueError("a voice is learnt from two words or more, which are told apart")
    inputs = last_inputs(network, images)
    means, targets = inputs.mean(dim=0), functional.one_hot(labels, outputs).float()
    common = means.mean(dim=0)
    apart = means - common
    if not apart.any():
        raise ValueError(
            "all recordings cause the same in the last layer, so there is nothing to learn; was the network "
            "trained for long enough?"
        )
    step = rate / apart.square().sum(dim=1).mean()
    heard = targets.amax(dim=0)
    learnt = deepcopy(network)
    last = learnt.weights[-1]
    with torch.no_grad():
        last.weight.copy_(weight_of(last))
        for clip in passes * _in_turn(labels):
            membrane = last_layer(learnt, inputs[:, [clip]]).membrane.mean(dim=(0, 1))
            answer = torch.softmax(membrane - margin * targets[clip], dim=0)
            error = step * heard * (targets[clip] - answer)
            last.weight.add_(torch.outer(error, apart[clip]))  # += sets Brevitas' layer up again
            if last.bias is not None:
                last.bias.sub_(error * (apart[clip] @ common))
        _resize(last, weight_of(network.weights[-1]), heard > 0, common)
    return learnt


def _resize(last: Synapse, before: torch.Tensor, heard: torch.Tensor, common: torch.Tensor) -> None:
    """Scale the weights of the classes `heard`, less their mean, to the size that they had `before`.

    Their currents at the input `common` are scaled alike, so a ReLU network's answers among them stay.
    """
    weight = last.weight[heard]
    middle = weight.mean(dim=0)
    factor = (before[heard] - before[heard].mean(dim=0)).norm() / (weight - middle).norm()
    change = (factor - 1) * (weight - middle)
    last.weight[heard] += change
    if last.bias is not None:
        current = weight @ common + last.bias[heard]
        last.bias[heard] += (factor - 1) * (current - current.mean()) - change @ common


def _in_turn(labels: torch.Tensor) -> list[int]:
    """The first image of each class, then the second of each, and so on."""
    return np.lexsort((labels, _repetitions(labels))).tolist()


def _repetitions(labels: torch.Tensor) -> torch.Tensor:
    """Which image of its class each one is, counted from 1."""
    return functional.one_hot(labels).cumsum(dim=0)[range(len(labels)), labels]


Clips = tuple[torch.Tensor, torch.Tensor]  # images [N, C, H, W] and labels [N]


def curve(
    network: Network,
    stranger: Clips,
    known: Clips,
    counts: Sequence[int],
    draws: int,
    learn: Callable[[Network, torch.Tensor, torch.Tensor], Network] = enrol,
    readout: str = "membrane",
) -> pd.DataFrame:
    """How well `network` hears a stranger, and the voices it knows, after some examples of each word.

    For each of the `counts` the examples are drawn `draws` times from the clips of the stranger, and what
    `learn` makes of the network answers for the other clips. Zero examples have one row, of the network as it
    is.

    Returns:
        A row for each draw, with `examples` (of a word), `draw`, and the accuracies `stranger` and `known` in
        0..1.
    """
    images, labels = stranger
    inputs, known_inputs = (last_inputs(network, each) for each, _ in (stranger, known))
    rows = []
    for count in counts:
        for draw in range(draws if count else 1):
            order = torch.from_numpy(np.random.default_rng(draw).permutation(len(labels)))
            repetitions = _repetitions(labels[order])
            chosen, rest = order[repetitions <= count], order[repetitions > count]
            learnt = learn(network, images[chosen], labels[chosen]) if count else network
            row: dict[str, float] = {"examples": count, "draw": draw}
            for name, heard, said in (
                ("stranger", inputs[:, rest], labels[rest]),
                ("known", known_inputs, known[1]),
            ):
                answers = scores(last_layer(learnt, heard), readout).argmax(dim=1)
                row[name] = (answers == said).float().mean().item()
            rows.append(row)
    return pd.DataFrame(rows)


def labels_of(corpus: Corpus, classes: Sequence[str]) -> torch.Tensor:
    """For each clip of `corpus`, the number of its word among the `classes` of a network: int64 `[N]`.

    Raises:
        ValueError: naming them, for words that the network does not know.
    """
    if unknown := [word for word in corpus.classes if word not in classes]:
        raise ValueError(
            f"{corpus.name}: words that the network does not know ({listed(unknown, 10)}); it knows "
            f"{listed(classes, 20)}"
        )
    numbers = np.array([list(classes).index(word) for word in corpus.classes])
    return torch.from_numpy(numbers[corpus.labels])


def described(about: dict[str, Any], corpus: Corpus) -> dict[str, Any]:
    """What is kept beside a network that has learnt `corpus`.

    Each learning adds an entry to `enrolled`: the corpus, and the examples of each word. `accuracy` is left
    out, for it was measured with other weights.

    Args:
        about: what was kept beside the network before.
        corpus: what it has learnt.
    """
    examples = {word: int((corpus.labels == label).sum()) for label, word in enumerate(corpus.classes)}
    kept = {name: value for name, value in about.items() if name != "accuracy"}
    return kept | {"enrolled": [*kept.get("enrolled", []), {"corpus": corpus.name, "examples": examples}]}
