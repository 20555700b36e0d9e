"""Train a network: loss, read-out, epochs, and checkpoints to resume an interrupted training from."""

import copy
import math
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from scnn.augment import Augmentation, jitter, mask, mixup
from scnn.checks import finite, whole
from scnn.features import MAX_RATE, Features
from scnn.files import load_tensors, save_tensors
from scnn.models import Network, Trace
from scnn.neurons import Neuron, Output
from scnn.quantization import Recipe

FORMAT = "scnn network 2"
READOUTS = ("spikes", "membrane")
SCHEDULES = ("constant", "cosine", "onecycle")
WARM_UP = 0.15  # share of the training in which the learning rate of "onecycle" rises
TEMPERATURE, FROM_TEACHER = 2.0, 0.7  # distillation: temperature, and the teacher's share of the loss
SEEDS = 2**63  # number of seeds that PyTorch's generators accept
_EVALUATION_BATCH = 50
_MOST = {"epochs": 10_000, "batch_size": 100_000, "seed": SEEDS - 1}
_LONGEST_NAME = 100  # most characters in the name of a class


class StateError(ValueError):
    """A training state cannot be resumed: it is damaged, or belongs to another training."""


class Diverged(ValueError):
    """The loss or the weights of a training are no longer finite numbers."""


@dataclass(frozen=True)
class Training:
    """How a network is trained; the defaults are the paper's.

    Attributes:
        epochs: passes over all recordings.
        batch_size: recordings per training step.
        learning_rate: Adam's step size.
        schedule: of the learning rate, one of `SCHEDULES`: "cosine" falls to 0 over the epochs; "onecycle"
            rises first, and changes at each step (Smith and Topin, 2019).
        seed: seed of the order of the recordings, and of dropout and augmentation.
        weight_decay: weight decay of AdamW; 0 uses Adam.
        dropout: share of the last layer's inputs that are zeroed in training.
        spike_penalty: weight of the spikes' operations in the loss, see `synaptic_operations`.

    Raises:
        ValueError: a parameter is not valid; the message names it.
    """

    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 1.0e-3
    schedule: str = "constant"
    seed: int = 0
    weight_decay: float = 0.0
    dropout: float = 0.0
    spike_penalty: float = 0.0

    def __post_init__(self):
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            whole(name, getattr(self, name), least, _MOST[name])
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be a positive number, not {self.learning_rate!r}")
        for name, most in (("weight_decay", 1.0), ("dropout", 0.95), ("spike_penalty", 100.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise ValueError(f"{name} must be a number in 0..{most}, not {value!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")

    def rate(self, epoch: int, done: float = 0.0) -> float:
        """The learning rate in `epoch` (from 0), after a share `done` of it."""
        if self.schedule == "constant":
            return self.learning_rate
        share = epoch / self.epochs
        if self.schedule == "onecycle":
            share = (epoch + done) / self.epochs
            if share < WARM_UP:
                return self.learning_rate * (0.04 + 0.96 * share / WARM_UP)
            share = (share - WARM_UP) / (1 - WARM_UP)
        return self.learning_rate * (1 + math.cos(math.pi * share)) / 2


def loss(output: Output, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the output membranes, summed over the time steps and averaged over the recordings.

    For a ReLU network it is the cross-entropy of the logits.

    Args:
        labels: int64 `[N]`, or class probabilities `[N, classes]`.
    """
    steps = output.membrane.shape[0]
    repeated = labels.repeat(steps, *[1] * (labels.dim() - 1))
    return steps * functional.cross_entropy(output.membrane.flatten(0, 1), repeated)


def distilled(output: Output, targets: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Distillation: `loss` combined with that for a teacher's `softened` answers (Hinton et al., 2015).

    Args:
        targets: as `labels` of `loss`.
        soft: the teacher's class probabilities, `[N, classes]`.
    """
    student = functional.log_softmax(output.membrane / TEMPERATURE, dim=-1).flatten(0, 1)
    steps = output.membrane.shape[0]
    taught = functional.kl_div(student, soft.repeat(steps, 1), reduction="batchmean")
    return (1 - FROM_TEACHER) * loss(output, targets) + FROM_TEACHER * steps * TEMPERATURE**2 * taught


def synaptic_operations(network: Network, traces: Sequence[Trace]) -> torch.Tensor:
    """Mean number of additions per recording that the spikes of a batch cause in the next layers; a scalar.

    Counted as in `scnn.metrics.activity`, except that neurons at a border count like those inside. Gradients
    flow to the weights through the surrogate. With a `spike_penalty` p, the loss becomes::

        T (CE + p S / S_0)

    where S is the number of operations, and S_0 that before the training.

    Args:
        traces: one per layer, for the batch.
    """
    fans = [
        after.units * (after.kernel / after.stride) ** 2 if after.kernel else after.units
        for after in network.layers[1:]
    ]
    sums = (trace.spikes.sum() * fan for trace, fan in zip(traces, fans, strict=False))
    return sum(sums, traces[0].spikes.new_zeros(())) / traces[0].spikes.shape[1]


def scores(output: Output, readout: str = "spikes") -> torch.Tensor:
    """Evidence for each class, `[N, classes]`: number of spikes, or sum of the membrane, over time.

    For a ReLU network these are always the logits.

    Raises:
        ValueError: the readout is not in `READOUTS`.

    >>> spikes = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]])  # two time steps, two classes
    >>> scores(Output(spikes, membrane=spikes))
    tensor([[1., 2.]])
    """
    if readout not in READOUTS:
        raise ValueError(f"readout must be one of {', '.join(READOUTS)}, not {readout!r}")
    return (output.membrane if readout == "membrane" or output.spikes is None else output.spikes).sum(dim=0)


def answer(output: Output, readout: str = "spikes") -> tuple[torch.Tensor, torch.Tensor]:
    """The class with the most evidence, and the confidence in it.

    The confidence is the class's softmax probability from the output membranes, averaged over the time steps.

    Returns:
        Classes, int64 `[N]`, and confidences, float32 `[N]` in 0..1.
    """
    best = scores(output, readout).argmax(dim=1)
    shares = torch.softmax(output.membrane, dim=-1).mean(dim=0)
    return best, shares.gather(1, best[:, None])[:, 0]


def answers(
    network: Network, images: torch.Tensor, readout: str = "spikes"
) -> tuple[torch.Tensor, torch.Tensor]:
    """`answer` for each of `images`: classes int64 and confidences float32, `[N]`."""
    with torch.no_grad():
        batches = [answer(network(part), readout) for part in images.split(_EVALUATION_BATCH)]
    classes, confidences = zip(*batches, strict=True)
    return torch.cat(classes), torch.cat(confidences)


def predict(network: Network, images: torch.Tensor, readout: str = "spikes") -> torch.Tensor:
    """The class of each image, int64 `[N]`: the one with the most evidence, on a tie the first."""
    return answers(network, images, readout)[0]


def evaluate(network: Network, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Loss over all `images`, and accuracy in 0..1 by spike count and by membrane."""
    sums = {"loss": 0.0, "accuracy": 0, "accuracy_membrane": 0}
    with torch.no_grad():
        for part, target in zip(
            images.split(_EVALUATION_BATCH), labels.split(_EVALUATION_BATCH), strict=True
        ):
            output = network(part)
            sums["loss"] += loss(output, target).item() * len(part)
            sums["accuracy"] += (scores(output).argmax(dim=1) == target).sum().item()
            sums["accuracy_membrane"] += (scores(output, "membrane").argmax(dim=1) == target).sum().item()
    return {name: value / len(images) for name, value in sums.items()}


def step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    soft: torch.Tensor | None = None,
    per_operation: float = 0.0,
) -> tuple[float, int]:
    """Update the weights with one batch.

    Args:
        labels: as in `loss`.
        soft: a teacher's answers; if given, the loss is that of `distilled`.
        per_operation: cost of each of the `synaptic_operations`, added to the loss for each time step.

    Returns:
        The batch's loss, and the number of correct answers before the update.
    """
    traces: list[Trace] | None = [] if per_operation else None
    output = network(images, traces)
    value = loss(output, labels) if soft is None else distilled(output, labels, soft)
    if traces:
        value = value + network.num_steps * per_operation * synaptic_operations(network, traces)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    classes = labels if labels.dim() == 1 else labels.argmax(dim=1)
    return value.item(), int((scores(output).argmax(dim=1) == classes).sum())


def _shares(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Labels `[N]` as class probabilities `[N, classes]`; -1 (none of them) as equal probabilities."""
    shares = functional.one_hot(labels.clamp(min=0), classes).float()
    shares[labels < 0] = 1 / classes
    return shares


def softened(teachers: Sequence[Network], images: torch.Tensor) -> torch.Tensor:
    """The teachers' class probabilities softened by `TEMPERATURE`, averaged: `[N, classes]`."""
    with torch.no_grad():
        answers = [teacher(images).membrane.mean(dim=0) / TEMPERATURE for teacher in teachers]
    return torch.stack([functional.softmax(answer, dim=-1) for answer in answers]).mean(dim=0)


def adam(network: Network, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Adam:
    """The optimiser of `fit`: Adam (AdamW with a weight decay), fused to update all weights in one pass."""
    weights = _trained(network).values()
    if weight_decay:
        return torch.optim.AdamW(weights, learning_rate, weight_decay=weight_decay, fused=True)
    return torch.optim.Adam(weights, lr=learning_rate, fused=True)


def _trained(network: Network) -> dict[str, torch.Tensor]:
    """The trainable weights by name: those that require a gradient."""
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


def fit(
    network: Network,
    images: torch.Tensor,
    labels: torch.Tensor,
    held_out: tuple[torch.Tensor, torch.Tensor],
    training: Training = Training(),
    state: Path | None = None,
    progress: str = "training",
    on_epoch: Callable[[Network, list[dict[str, float]]], None] | None = None,
    augmentation: Augmentation | None = None,
    teachers: Sequence[Network] = (),
) -> list[dict[str, float]]:
    """Train `network` in place.

    After each epoch the network is evaluated on `held_out`, and everything needed to resume is written to the
    file `state`. If that file exists, training resumes after its last epoch, and ends with the same weights
    as without an interruption. Weights that do not require a gradient stay fixed.

    Args:
        images: `[N, C, H, W]`; with an `augmentation` `[N, K, C, H, W]`, K versions of each.
        labels: `[N]`; with an `augmentation`, -1 means none of the classes.
        held_out: images and labels to evaluate on.
        state: file for the training state; None stores none.
        progress: label of the progress bar, which is shown on a terminal.
        on_epoch: called with the network and the history so far, after each epoch and on resuming.
        augmentation: each step draws one version of each image and changes it further.
        teachers: networks whose softened answers are learnt, too.

    Returns:
        The history, a row per epoch.

    Raises:
        Diverged: the loss or the weights are no longer finite; the message names epoch and learning rate.
        StateError: `state` is damaged, or belongs to another training.
    """
    optimizer = adam(network, training.learning_rate, training.weight_decay)
    network.dropout = training.dropout
    per_operation = training.spike_penalty
    if per_operation:
        per_operation /= _operations_at_first(network, images)
    history = _resume(state, network, optimizer, training) if state is not None and state.exists() else []
    if history and on_epoch is not None:
        on_epoch(network.eval(), history)
    bar = tqdm(
        range(training.epochs), desc=progress, initial=len(history), unit="epoch", disable=None, leave=False
    )
    for epoch in range(len(history), training.epochs):
        start = time.perf_counter()
        optimizer.param_groups[0]["lr"] = training.rate(epoch)
        network.train()
        order = torch.from_numpy(np.random.default_rng([training.seed, epoch]).permutation(len(images)))
        total, right = 0.0, 0
        with torch.random.fork_rng(devices=[]):
            drawn_seed = int(np.random.default_rng([training.seed, epoch, 1]).integers(2**63))
            torch.manual_seed(drawn_seed)  # for dropout
            generator = torch.Generator().manual_seed(drawn_seed)
            for number, batch in enumerate(order.split(training.batch_size)):
                if training.schedule == "onecycle":
                    done = number * training.batch_size / len(images)
                    optimizer.param_groups[0]["lr"] = training.rate(epoch, done)
                inputs, targets = images[batch], labels[batch]
                if augmentation is not None:
                    drawn = torch.randint(images.shape[1], (len(batch),), generator=generator)
                    targets = _shares(targets, network.layers[-1].units)
                    inputs = jitter(images[batch, drawn], augmentation, generator)
                    inputs = mask(inputs, augmentation, generator)
                    inputs, targets = mixup(inputs, targets, augmentation, generator)
                soft = softened(teachers, inputs) if teachers else None
                value, correct = step(network, optimizer, inputs, targets, soft, per_operation)
                if not math.isfinite(value):
                    raise _diverged(training, epoch)
                total += value * len(batch)
                right += correct
        network.eval()
        tested = {f"held_out_{name}": number for name, number in evaluate(network, *held_out).items()}
        finite_weights = all(weight.isfinite().all() for weight in network.state_dict().values())
        if not (finite_weights and all(map(math.isfinite, tested.values()))):
            raise _diverged(training, epoch)
        seconds = time.perf_counter() - start
        row = {
            "epoch": epoch + 1,
            "seconds": seconds,
            "loss": total / len(images),
            "accuracy": right / len(images),
        }
        history.append(row | tested)
        if state is not None:
            _suspend(state, network, optimizer, training, history)
        if on_epoch is not None:
            on_epoch(network, history)
        bar.update()
        bar.set_postfix(loss=f"{history[-1]['loss']:.3f}", accuracy=f"{history[-1]['held_out_accuracy']:.3f}")
    bar.close()
    return history


def _operations_at_first(network: Network, images: torch.Tensor) -> float:
    """`synaptic_operations` of the untrained network, over at most 100 of the training images."""
    sample = images[:: len(images) // 100 + 1]
    traces: list[Trace] = []
    with torch.no_grad():  # on a copy, as batch normalisation updates its statistics
        copy.deepcopy(network).train()(sample if sample.dim() == 4 else sample[:, 0], traces)
    return max(1.0, synaptic_operations(network, traces).item())


def _diverged(training: Training, epoch: int) -> Diverged:
    return Diverged(
        f"the loss or the weights are no longer finite in epoch {epoch + 1}, at a learning_rate of "
        f"{training.rate(epoch):g}; try a lower one"
    )


def save_network(network: Network, path: Path | str, about: dict[str, Any] | None = None) -> None:
    """Write a network's weights and description to a safetensors file.

    The file's header is plain JSON with everything that `load_network` needs, and a checksum of the whole.
    Equal networks give equal files.

    Args:
        about: any JSON to store with them; `check_about` checks the entries that `scnn predict` needs.

    Raises:
        ValueError: as for `check_about`.
    """
    check_about(about or {}, network)
    kept = {"network": _description(network), "about": about or {}}
    save_tensors(Path(path), FORMAT, kept, network.state_dict())


def load_network(path: Path | str) -> tuple[Network, dict[str, Any]]:
    """Read a network saved by `save_network`, in evaluation mode, and its `about`.

    Nothing in the file is ever executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or altered, was not written by `save_network`, or its weights do not
            fit its description or are not finite; the message gives the reason.
    """
    kept, weights = load_tensors(Path(path), FORMAT)
    try:
        saved, about = dict(kept["network"]), kept["about"]
        neuron, recipe = Neuron(**saved.pop("neuron")), Recipe(**saved.pop("recipe", {}))
        with torch.device("meta"):  # only shapes, so that a forged header cannot fill the memory
            network = Network(neuron=neuron, recipe=recipe, **saved)
        check_about(about, network)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: the network's description in the header is not valid ({error})") from error
    expected = network.state_dict()
    if _shapes(weights) != _shapes(expected):
        raise ValueError(
            f"{path}: its weights do not fit {network.architecture}: "
            f"{_shapes(weights)} instead of {_shapes(expected)}"
        )
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError(f"{path}: it has weights that are not finite numbers")
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(True)
    return network.eval(), about


def check_about(about: dict[str, Any], network: Network) -> None:
    """Check the description of a network's recordings; missing entries are valid.

    Args:
        about: a dictionary. `classes` must have a printable name for each output; `sample_rate` is in Hz;
            `normalization` is None, or mean and standard deviation; and `experiment` is a dictionary whose
            `features` fit the size of the network's images.
        network: the network that it describes.

    Raises:
        ValueError: an entry is not valid; the message names it.
    """
    if not isinstance(about, dict):
        raise ValueError(f"about must be a dictionary, not {about!r}")
    if "classes" in about:
        classes, outputs = about["classes"], network.layers[-1].units
        if not isinstance(classes, list | tuple) or {len(set(map(str, classes))), len(classes)} != {outputs}:
            raise ValueError(f"classes must be {outputs} different names, not {classes!r}")
        for name in classes:
            if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not _printable(name):
                raise ValueError(
                    f"classes must be names of 1 to {_LONGEST_NAME} characters without control characters, "
                    f"not {name!r}"
                )
    if "sample_rate" in about:
        whole("sample_rate", about["sample_rate"], 1, MAX_RATE)
    constants = about.get("normalization")
    if constants is not None:
        if not isinstance(constants, list | tuple) or len(constants) != 2:
            raise ValueError(f"normalization must be None, or mean and deviation, not {constants!r}")
        mean, deviation = (finite("normalization", value) for value in constants)
        if abs(mean) > 1e9 or not 1e-9 <= deviation <= 1e9:
            raise ValueError(f"normalization must be a mean and a deviation above 0, not {constants!r}")
    if "experiment" in about:
        features = Features(**about["experiment"]["features"])
        if (features.height, features.width) != network.input_shape[1:]:
            raise ValueError(
                f"features give images of {features.height} x {features.width}, "
                f"and the network takes {network.input_shape[1]} x {network.input_shape[2]}"
            )


def _printable(text: str) -> bool:
    """Whether `text` has no characters that control a terminal, end lines or change the text direction."""
    turning = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return not any(
        unicodedata.category(each) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(each) in turning
        for each in text
    )


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple]:
    """The shape of each tensor, with its dtype if that is not float32."""
    return {
        name: tuple(tensor.shape) if tensor.dtype == torch.float32 else (str(tensor.dtype), *tensor.shape)
        for name, tensor in sorted(tensors.items())
    }


def _description(network: Network) -> dict[str, Any]:
    return {
        "architecture": network.architecture,
        "num_steps": network.num_steps,
        "neuron": asdict(network.neuron),
        "recipe": asdict(network.recipe),
        "input_shape": list(network.input_shape),
        "spiking": network.spiking,
    }


_STATE = "scnn training state 2"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # Adam's state for each weight
_COLUMNS = ("seconds", "loss", "accuracy", "held_out_loss", "held_out_accuracy", "held_out_accuracy_membrane")


def _kept(network: Network) -> dict[str, torch.Tensor]:
    """A network's tensors in a training state: all but the unused batch counts of the normalisation."""
    return {name: each for name, each in network.state_dict().items() if each.is_floating_point()}


def _suspend(state, network, optimizer, training, history) -> None:
    tensors = {f"weight/{name}": weight for name, weight in _kept(network).items()}
    for name, moments in zip(_trained(network), optimizer.state_dict()["state"].values(), strict=True):
        tensors |= {f"{moment}/{name}": value for moment, value in moments.items()}
    about = {"training": asdict(training), "network": _description(network), "history": history}
    save_tensors(state, _STATE, about, tensors)


def _resume(state, network, optimizer, training) -> list[dict[str, float]]:
    try:
        about, tensors = load_tensors(state, _STATE)
        own = {"training": asdict(training), "network": _description(network)}
        history = about["history"]
        belongs = all(about[name] == value for name, value in own.items())
        whole("epochs of its history", len(history), 1, training.epochs)
        for number, row in enumerate(history, 1):
            if row["epoch"] != number or not row.keys() >= {*_COLUMNS}:
                raise ValueError(f"row {number} of its history is not valid")
            for name, value in row.items():
                finite(name, value)
    except (FileNotFoundError, ValueError) as error:
        raise StateError(str(error) if str(state) in str(error) else f"{state}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{state}: its header is not valid ({error})") from error
    if not belongs:
        raise StateError(f"{state}: belongs to another training; remove it, or choose another file")
    weights = _trained(network)
    expected = _shapes({f"weight/{name}": weight for name, weight in _kept(network).items()})
    for moment in _MOMENTS:
        shapes = {f"{moment}/{name}": tuple(weight.shape) for name, weight in weights.items()}
        expected |= shapes if moment != "step" else dict.fromkeys(shapes, ())
    if _shapes(tensors) != dict(sorted(expected.items())):
        raise StateError(f"{state}: its tensors are not those of this training")
    network.load_state_dict({name: tensors[f"weight/{name}"] for name in _kept(network)})
    moments = {i: {kind: tensors[f"{kind}/{name}"] for kind in _MOMENTS} for i, name in enumerate(weights)}
    settings = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": settings})
    return history
