"""Adapt a network to a new voice: a new speaker says each word a few times, and the last layer learns.

Nothing is propagated back through the network. Where the last layer's answer to a recording is wrong, its
weights move along its input: the delta rule. This needs a spike counter per input, a table of exponentials,
and one multiply-add per weight, and can be done in integers.
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
    """The last layer's inputs for `images` `[N, C, H, W]`: the previous layer's spikes, `[T, N, inputs]`.

    In a ReLU network, or if there is no previous layer, they are constant over time: `[1, N, inputs]`.

    >>> from scnn.models import build
    >>> last_inputs(build("C", num_steps=4), torch.zeros(2, 1, 32, 32)).shape
    torch.Size([4, 2, 128])
    """
    batches = []
    for part in images.split(_BATCH):
        before = [trace.spikes for trace in network.trace(part)[:-1]] or [part[None]]
        batches.append(before[-1].flatten(2))
    return torch.cat(batches, dim=1)


def last_layer(network: Network, inputs: torch.Tensor) -> Output:
    """The output of the last layer for `inputs` `[T, N, inputs]`, as from `last_inputs`."""
    last = network.weights[-1]
    current = functional.linear(inputs, weight_of(last), last.bias)
    if not network.spiking:
        return Output(None, current)
    spikes, membrane = kernels.leaky(current, network.output_neuron, network.num_steps)
    assert membrane is not None  # requested by default
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
    """Copy `network` and train the copy's last layer on some `images`, one after another.

    The learning rule, for each class c::

        w_c += r (y_c - a_c) (x - z),    b_c -= r (y_c - a_c) (x - z) z
        a = softmax(u - margin y),    r = rate / mean |x - z|^2

    where `x` is the last layer's input averaged over the time steps, and `z` the mean of `x` over the images,
    so that what all words have in common moves no weight. `y` is 1 for the image's class and 0 for the
    others; `u` is the output membrane averaged over the time steps (the logits of a ReLU network), computed
    with the current weights. Each of the `passes` takes the first image of every class, then the second, and
    so on. Finally the weights, minus their mean over the classes, are scaled back to their original norm, so
    that outputs spike about as often as before.

    A class without an image keeps its weights. The copy has the precision of `network`: quantised weights are
    rounded during learning and afterwards. A layer without biases learns none.

    Args:
        network: the network to copy; it is left unchanged.
        images: `[N, C, H, W]`, the examples.
        labels: `[N]`, their classes.
        rate: how far one image moves the weights; above 0.
        passes: number of passes over the examples.
        margin: roughly how far the correct class must lead before the weights stop changing.

    Raises:
        ValueError: the images have fewer than two classes; there is not one label per image, or one is not a
            class of the network; `rate`, `margin` or `passes` is out of range; or all images give the last
            layer the same input.
    """
    for name, value, least in (("rate", rate, 1e-6), ("margin", margin, 0)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1e3:
            raise ValueError(f"{name} must be a number from {least:g} to 1000, not {value!r}")
    whole("passes", passes, 1, 1000)
    outputs = network.layers[-1].units
    if labels.shape != images.shape[:1] or not all(0 <= label < outputs for label in labels.tolist()):
        raise ValueError(f"labels must be a class from 0 to {outputs - 1} for each of {len(images)} images")
    if len(labels.unique()) < 2:
        raise ValueError("labels must have at least two classes: a voice is learnt by telling words apart")
    inputs = last_inputs(network, images)
    means, targets = inputs.mean(dim=0), functional.one_hot(labels, outputs).float()
    common = means.mean(dim=0)
    apart = means - common
    if not apart.any():
        raise ValueError(
            "all recordings give the last layer the same input, so there is nothing to learn; was the "
            "network trained for long enough?"
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
            last.weight.add_(torch.outer(error, apart[clip]))  # += would make Brevitas rebuild the layer
            if last.bias is not None:
                last.bias.sub_(error * (apart[clip] @ common))
        _resize(last, weight_of(network.weights[-1]), heard > 0, common)
    return learnt


def _resize(last: Synapse, before: torch.Tensor, heard: torch.Tensor, common: torch.Tensor) -> None:
    """Scale the weights of the classes `heard`, minus their mean, to the norm that they had `before`.

    The currents at the input `common` are scaled with them, so a ReLU network ranks these classes as before.
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
    """Indices in learning order: the first image of each class, then the second of each, and so on."""
    return np.lexsort((labels, _repetitions(labels))).tolist()


def _repetitions(labels: torch.Tensor) -> torch.Tensor:
    """The number of each image within its class, counted from 1."""
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
    """Accuracy of `network` on a stranger, and on the voices it knows, after some examples of each word.

    For each of the `counts`, the examples are drawn `draws` times from the stranger's clips, and the network
    returned by `learn` is tested on the remaining clips. For zero examples there is one row, for the network
    as it is.

    Returns:
        A row for each draw, with `examples` (per word), `draw`, and the accuracies `stranger` and `known` in
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
            for name, tested, targets in (
                ("stranger", inputs[:, rest], labels[rest]),
                ("known", known_inputs, known[1]),
            ):
                answers = scores(last_layer(learnt, tested), readout).argmax(dim=1)
                row[name] = (answers == targets).float().mean().item()
            rows.append(row)
    return pd.DataFrame(rows)


def labels_of(corpus: Corpus, classes: Sequence[str]) -> torch.Tensor:
    """For each clip of `corpus`, the index of its word in a network's `classes`: int64 `[N]`.

    Raises:
        ValueError: the corpus has words that the network does not know; the message names them.
    """
    if unknown := [word for word in corpus.classes if word not in classes]:
        raise ValueError(
            f"{corpus.name}: words that the network does not know ({listed(unknown, 10)}); it knows "
            f"{listed(classes, 20)}"
        )
    numbers = np.array([list(classes).index(word) for word in corpus.classes])
    return torch.from_numpy(numbers[corpus.labels])


def described(about: dict[str, Any], corpus: Corpus) -> dict[str, Any]:
    """The description to save with a network that has learnt `corpus`.

    Each enrolment adds an entry to `enrolled`: the corpus, and the number of examples of each word.
    `accuracy` is dropped, because it was measured with the old weights.

    Args:
        about: the description saved with the original network.
        corpus: the recordings it has learnt.
    """
    examples = {word: int((corpus.labels == label).sum()) for label, word in enumerate(corpus.classes)}
    kept = {name: value for name, value in about.items() if name != "accuracy"}
    return kept | {"enrolled": [*kept.get("enrolled", []), {"corpus": corpus.name, "examples": examples}]}
