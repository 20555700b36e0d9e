"""`Experiment`, the complete description of one training, and `run`, which trains it once and stores it."""

import dataclasses
import functools
import hashlib
import json
import math
import multiprocessing
import os
import platform
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from scnn import metrics
from scnn.augment import Augmentation, copies
from scnn.data import Corpus, Split, chosen_from, fingerprint, load_corpus, split
from scnn.features import NORMALIZATIONS, Features, Images, extract, normalize, one_thread, statistics
from scnn.files import atomic_write, cache_dir, canonical, locked, read_json, sweep, write_json
from scnn.models import ZOO, Network, build, fold, parse, unfold
from scnn.quantization import packed_bytes
from scnn.training import (
    READOUTS,
    StateError,
    Training,
    check_about,
    evaluate,
    fit,
    load_network,
    save_network,
)

VERSIONS = ("scnn-audio", "torch", "numpy", "numba", "librosa", "brevitas")
FORMAT = 1  # increase when the same experiment gives other results
_RECORD = 2  # increase when the files of a record change
_FILES = ("experiment.json", "metrics.json", "history.csv", "network.safetensors")  # beside made.json


@dataclass(frozen=True)
class Experiment:
    """All settings that determine the result of one training; the defaults are the paper's Model B.

    >>> Experiment(corpus="espeak", model="C", seed=1).digest == Experiment(corpus="espeak", model="C").digest
    False

    `split`, `test` and `validation` are as in `scnn.data.split`; `beta`, `threshold`, `reset` and `slope` as
    in `scnn.neurons.Neuron`; `epochs`, `batch_size`, `learning_rate`, `schedule`, `weight_decay` and
    `dropout` as in `scnn.training.Training`. The fields from `spiking` on go beyond the paper.

    Attributes:
        corpus: a name or folder for `scnn.data.load_corpus`.
        model: a name in `scnn.models.ZOO` or a notation.
        precision: a name in `scnn.quantization.RECIPES`.
        pretrained: first run the same experiment in full precision, and start the quantised training from its
            weights, for `tune_epochs` at a tenth of the learning rate (0: for the same number of epochs, at
            the same rate).
        seed: seed of the split, the initial weights, the order of the recordings and all random draws.
        spiking: True for a spiking network, False for its ReLU twin; None as the zoo says, and spiking for
            a notation.
        batch_norm: use batch normalisation while training in full precision; it is folded into the network
            that is stored.
        voices: an additional corpus to train on, such as "voices"; it is never tested on.
        augmentation: how the training clips are changed.
        teacher: notation of a ReLU network that the same experiment trains first; the network then learns its
            answers, too.
        others: a corpus of other words, for which no class should be likely.
        from_twin: first train the ReLU twin by the same experiment, and start the spiking network from it,
            for `tune_epochs` at half the learning rate.
        tune_epochs: epochs of a training that starts from another network's weights.
        readout: how the network's answer is read, "spikes" or "membrane".
        refuse: the confidence, 0..1, below which the answer is "not sure".
        frozen: number of first layers whose weights stay fixed.
        spike_penalty: weight of a spiking network's operations in the loss, see
            `scnn.training.synaptic_operations`.

    Raises:
        ValueError: a parameter is not valid; the message names it and lists what is valid.
    """

    corpus: str = "fsdd-1.0.8"
    split: str = "random"
    test: float = 0.2
    validation: float = 0.0
    features: Features = field(default_factory=Features)
    model: str = "B"
    num_steps: int = 10
    beta: float = 0.5
    threshold: float = 1.0
    reset: str = "subtract"
    slope: float = 25.0
    precision: str = "fp32"
    pretrained: bool = False
    epochs: int = 20
    batch_size: int = 16
    learning_rate: float = 1.0e-3
    schedule: str = "constant"
    seed: int = 0
    spiking: bool | None = None
    batch_norm: bool = False
    weight_decay: float = 0.0
    dropout: float = 0.0
    voices: str = ""
    augmentation: Augmentation | None = None
    teacher: str = ""
    others: str = ""
    from_twin: bool = False
    tune_epochs: int = 0
    readout: str = "spikes"
    refuse: float = 0.0
    frozen: int = 0
    spike_penalty: float = 0.0

    def __post_init__(self):
        # Normalise types (1 becomes 1.0, a path its text), so that equal experiments have equal digests.
        object.__setattr__(self, "corpus", str(self.corpus))
        for each in dataclasses.fields(self):
            if each.type is float:
                value = getattr(self, each.name)
                if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                    raise ValueError(f"{each.name} must be a number, not {value!r}")
                object.__setattr__(self, each.name, float(value))
        for name in ("pretrained", "batch_norm", "from_twin"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.spiking not in (None, True, False):
            raise ValueError(f"spiking must be True, False or None, not {self.spiking!r}")
        if self.pretrained and self.precision == "fp32":
            raise ValueError("pretrained must be False for precision 'fp32': it needs a quantised one")
        if self.batch_norm and self.precision != "fp32" and not self.pretrained:
            raise ValueError("batch_norm works in full precision only: set pretrained for another precision")
        if not isinstance(self.augmentation, Augmentation | None):
            raise ValueError(f"augmentation must be an Augmentation or None, not {self.augmentation!r}")
        if self.from_twin and (self.spiking is False or not self.batch_norm):
            raise ValueError("from_twin needs a spiking network with batch_norm")
        if self.tune_epochs and not (self.pretrained or self.from_twin):
            raise ValueError("tune_epochs needs pretrained or from_twin")
        if self.others and self.augmentation is None:
            raise ValueError("others needs an augmentation")
        if not 0 <= self.refuse < 1:
            raise ValueError(f"refuse must be a confidence of at least 0 and below 1, not {self.refuse!r}")
        if self.spike_penalty and self.spiking is False:
            raise ValueError("spike_penalty needs a spiking network")
        if self.readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, not {self.readout!r}")
        self.training()
        layers = len(self.build(classes=None).layers)
        if isinstance(self.frozen, bool) or self.frozen not in range(layers):
            raise ValueError(f"frozen must be a whole number in 0..{layers - 1}, not {self.frozen!r}")
        if self.frozen and self.batch_norm:
            raise ValueError("frozen cannot be used with batch_norm, which would scale the weights")
        if self.teacher:
            parse(ZOO[self.teacher][0] if self.teacher in ZOO else self.teacher)

    def training(self) -> Training:
        epochs, rate = self.epochs, self.learning_rate
        if self.tune_epochs:
            epochs, rate = self.tune_epochs, (0.1 if self.pretrained else 0.5) * rate
        rest = self.schedule, self.seed, self.weight_decay, self.dropout, self.spike_penalty
        return Training(epochs, self.batch_size, rate, *rest)

    def build(self, classes: int | None) -> Network:
        """The untrained network with `classes` outputs, or with those of its notation for None.

        Only a network of the zoo is adapted to the number of classes.

        Raises:
            ValueError: a notation has another number of outputs.
        """
        return build(
            self.model,
            num_steps=self.num_steps,
            beta=self.beta,
            threshold=self.threshold,
            reset=self.reset,
            slope=self.slope,
            precision=self.precision,
            input_shape=(1, self.features.height, self.features.width),
            spiking=self.spiking,
            seed=self.seed,
            classes=classes,
            batch_norm=self.batch_norm and self.precision == "fp32",
        )

    def of_teacher(self) -> "Experiment":
        """The teacher's training: a ReLU network in full precision on the same recordings."""
        return replace(self.of_twin(), model=self.teacher, teacher="")

    def of_twin(self) -> "Experiment":
        """The training of the ReLU twin: the same notation in full precision."""
        return replace(self.of_unrounded(), spiking=False, from_twin=False, tune_epochs=0, spike_penalty=0.0)

    def of_unrounded(self) -> "Experiment":
        """The full-precision training that a `pretrained` one starts from."""
        tune_epochs = self.tune_epochs if self.from_twin else 0
        return replace(self, precision="fp32", pretrained=False, tune_epochs=tune_epochs, refuse=0.0)

    @property
    def digest(self) -> str:
        """Identifier of the experiment, including the contents of its corpora."""
        contents = " ".join(fingerprint(name) for name in (self.corpus, self.voices, self.others) if name)
        return hashlib.sha256(f"{FORMAT} {self.to_json()} {contents}".encode()).hexdigest()[:20]

    def to_json(self) -> str:
        """All fields as JSON; later additions only if they differ from the defaults, to keep old digests."""
        fields = dataclasses.asdict(self)
        for section, later in ((fields, _LATER), (fields["features"], _LATER_FEATURES)):
            for name, default in later.items():
                if section[name] == default:
                    del section[name]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Experiment":
        fields = json.loads(text)
        fields["features"] = Features(**fields["features"])
        if fields.get("augmentation") is not None:
            fields["augmentation"] = Augmentation(**fields["augmentation"])
        return cls(**fields)


# Fields added after the first records were stored, with their defaults.
_LATER = {
    **{"spiking": None, "batch_norm": False, "weight_decay": 0.0, "dropout": 0.0},
    **{"voices": "", "augmentation": None, "teacher": "", "others": "", "from_twin": False},
    **{"tune_epochs": 0, "readout": "spikes", "refuse": 0.0, "frozen": 0, "spike_penalty": 0.0},
}
_LATER_FEATURES = {
    **{"preemphasis": 0.0, "trim_frame": 2048, "crop": "middle", "range_db": 55.0, "equalize": 0.0}
}


PRETRAINED = Path(__file__).parent / "pretrained" / "digits.safetensors"  # the packaged network
# What `scnn train --preset` starts from: the paper's Model B, and the packaged network.
PRESETS = {
    "paper": Experiment(),
    "robust": Experiment(
        corpus="fsdd",
        split="official",
        features=Features(
            "logmel",
            bands=40,
            height=40,
            width=56,
            frame=256,
            hop=128,
            trim_db=30.0,
            trim_frame=512,
            preemphasis=0.97,
            crop="loudest",
            normalization="peak",
            equalize=0.5,
        ),
        model="R",
        num_steps=4,
        slope=5.0,
        precision="int8-weights",
        pretrained=True,
        epochs=40,
        tune_epochs=10,
        batch_size=64,
        learning_rate=2.0e-3,
        schedule="onecycle",
        batch_norm=True,
        weight_decay=0.01,
        dropout=0.1,
        voices="voices",
        others="voices-words",
        augmentation=Augmentation(),
        teacher="RTeacher",
        from_twin=True,
        readout="membrane",
        refuse=0.4,  # 95 % of the correct answers to held-out speakers reach it (page 10)
    ),
}


@dataclass(frozen=True)
class Data:
    """An experiment's data: the corpus, its split, and all images, normalised."""

    corpus: Corpus
    split: Split
    images: Images
    labels: torch.Tensor
    normalization: tuple[float, float] | None  # mean and standard deviation of the training clips, if used

    def part(self, indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `[N, 1, H, W]` and labels `[N]` of `indices`."""
        return self.images.values[indices], self.labels[indices]


@dataclass(frozen=True)
class Record:
    """The stored results of one experiment, in a folder of its own.

    Attributes:
        metrics: `accuracy` and `accuracy_membrane` on the test split (0..1), `sparsity_first` (the paper's:
            share of zeros in the first layer's spikes), `sparsity_window` (the same where the layer sees
            data), `sparsity_all` (all layers), `parameters`, their `packed_bytes`, and per recording the
            dense `macs` and the synaptic operations `synops`.
        made: how the record was made: versions, commit, machine, seconds.
    """

    folder: Path
    experiment: Experiment
    metrics: dict[str, float]
    made: dict[str, Any]

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch: loss and accuracy during the epoch, and after it on held-out clips.

        These are the validation clips, or the test clips if there are none.
        """
        return pd.read_csv(self.folder / "history.csv")

    def network(self) -> Network:
        """The trained network."""
        return load_network(self.folder / "network.safetensors")[0]


@functools.lru_cache(maxsize=4)
def _images(corpus: str, contents: str, features: Features) -> tuple[Corpus, Images]:
    """A corpus and its images; `contents` is its fingerprint, so that changed files are read again."""
    loaded = load_corpus(corpus)
    return loaded, extract(loaded, features)


def load_data(experiment: Experiment) -> Data:
    """Load the corpus, split and images of `experiment`."""
    corpus, images = _images(experiment.corpus, fingerprint(experiment.corpus), experiment.features)
    parts = split(
        corpus, experiment.split, test=experiment.test, validation=experiment.validation, seed=experiment.seed
    )
    constants = None
    if experiment.features.normalization == "train":
        constants = statistics(images, parts.train)
        images = normalize(images, *constants)
    return Data(corpus, parts, images, torch.from_numpy(corpus.labels), constants)


def learnt_of(others: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Whether each clip's word, and whether its speaker, is used for training: two bool `[N]`.

    In a corpus of other words, every second word and every third speaker is used for training, the rest for
    testing.
    """
    return others.labels % 2 == 0, np.unique(others.speakers, return_inverse=True)[1] % 3 == 0


def training_part(experiment: Experiment, data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels to train on: the training clips and those of `voices` and `others`.

    Clips of `others` have the label -1; some of their words and speakers are kept for testing (`learnt_of`).

    Returns:
        Images `[N, 1, H, W]`, or `[N, K, 1, H, W]` with K versions of each under an augmentation, and their
        labels.

    Raises:
        ValueError: `voices` has words that are not classes of the corpus, or the normalisation is "train".
    """
    if data.normalization is not None:
        valid = ", ".join(each for each in NORMALIZATIONS if each != "train")
        raise ValueError(f"normalization='train' cannot be used with voices or augmentation; valid: {valid}")
    sources = []
    if experiment.voices:
        voices = _images(experiment.voices, fingerprint(experiment.voices), experiment.features)[0]
        if missing := sorted(set(voices.classes) - set(data.corpus.classes)):
            raise ValueError(
                f"voices={experiment.voices!r} has words that are not in {data.corpus.name}: "
                f"{', '.join(missing[:10])}"
            )
        sources.append((voices, np.arange(len(voices))))
    chosen = np.zeros(0, np.int64)
    if experiment.others:
        others = _images(experiment.others, fingerprint(experiment.others), experiment.features)[0]
        words, speakers = learnt_of(others)
        chosen = np.flatnonzero(words & speakers & (others.takes == others.takes.min()))
        sources.append((chosen_from(others, chosen), np.arange(len(chosen))))
    # There are many synthetic clips. So each clip of a person is repeated: twice an epoch with `voices`, and
    # often enough that there are at least as many as clips of `others`.
    times = max(2 if experiment.voices else 1, -(-len(chosen) // len(data.split.train)))
    sources.insert(0, (data.corpus, np.tile(data.split.train, times)))
    images, labels = [], []
    for corpus, indices in sources:
        if experiment.augmentation is None:
            images.append(extract(corpus, experiment.features).values[indices])
        else:
            images.append(copies(corpus, experiment.features, experiment.augmentation, indices))
        numbers = {word: number for number, word in enumerate(data.corpus.classes)}
        classes = np.array([numbers.get(word, -1) for word in corpus.classes])
        labels.append(torch.from_numpy(classes[corpus.labels[indices]]))
    return torch.cat(images), torch.cat(labels)


def run(
    experiment: Experiment, on_epoch: Callable[[Network, list[dict[str, float]]], None] | None = None
) -> Record:
    """Train `experiment`, or read its record if an earlier call stored it.

    The record is the folder `cache_dir()/runs/<digest>`. An interrupted training resumes after its last
    finished epoch. If two processes run the same experiment, the second one waits and reads the record. A
    damaged or outdated record is trained again, with a warning.

    Args:
        experiment: the training to run.
        on_epoch: passed to `scnn.training.fit`.

    Raises:
        scnn.training.Diverged: the loss or the weights become infinite or NaN; no record is stored.
    """
    folder = _folder(experiment)
    with suppress(
        OSError, ValueError
    ):  # an existing record needs no lock, which a read-only home cannot have
        return _read(folder, experiment)
    with locked(folder):
        if os.path.lexists(folder):
            try:
                return _read(folder, experiment)
            except (OSError, ValueError) as error:
                warnings.warn(f"{folder} is damaged ({error}): training again", stacklevel=2)
                _remove(folder)
        unfinished = folder.with_suffix(".unfinished")
        if not unfinished.is_dir():
            _remove(unfinished)
        try:
            _train(experiment, unfinished, on_epoch)
        except StateError as error:
            warnings.warn(f"{error}: training from the beginning", stacklevel=2)
            _remove(unfinished)
            _train(experiment, unfinished, on_epoch)
        sweep(unfinished, seconds=0)  # temporary files of a process killed while writing
        unfinished.rename(folder)
        return _read(folder, experiment)


def _remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its contents."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


COLUMNS = [
    *("model", "architecture", "num_steps", "beta", "threshold", "reset", "precision", "pretrained"),
    *("corpus", "split", "validation", "features", "normalization", "epochs", "batch_size", "learning_rate"),
    *("schedule", "seed", "accuracy", "accuracy_membrane", "sparsity_first", "sparsity_window"),
    *("sparsity_all", "parameters", "packed_bytes", "macs", "synops", "seconds", "versions", "commit"),
    *("beyond", "digest"),
]


def table(records: Sequence[Record]) -> pd.DataFrame:
    """The records as a table, one row per training, in the given order and without duplicates.

    Returns:
        Columns for the settings (as in `Experiment`; `architecture` in the paper's notation, `features` and
        `normalization` from its features), the results (`Record.metrics`), `seconds`, `versions`, `commit`,
        `beyond` (JSON of settings beyond the paper: fields without a column that differ from their defaults),
        and the experiment's `digest`.
    """
    rows = []
    for record in {each.folder: each for each in records}.values():
        row = dataclasses.asdict(record.experiment) | record.metrics | record.made
        row["features"], row["normalization"] = (row["features"][key] for key in ("kind", "normalization"))
        row["architecture"] = record.network().architecture
        row["digest"] = record.folder.name
        row["versions"] = " ".join(f"{name} {number}" for name, number in record.made["versions"].items())
        row["beyond"] = _beyond(record.experiment)
        rows.append({name: row.get(name) for name in COLUMNS})
    return pd.DataFrame(rows, columns=COLUMNS)


def _beyond(experiment: Experiment) -> str | None:
    settings, defaults = (json.loads(each.to_json()) for each in (experiment, Experiment()))
    features, default_features = settings.pop("features"), defaults.pop("features")
    columns = "kind", "normalization"
    changed = {name: value for name, value in features.items() if value != default_features.get(name)}
    changed = {name: value for name, value in changed.items() if name not in columns}
    beyond = {
        name: value for name, value in settings.items() if name not in COLUMNS and value != defaults.get(name)
    }
    beyond |= {"features": changed} if changed else {}
    return json.dumps(beyond, sort_keys=True) if beyond else None


def _folder(experiment: Experiment) -> Path:
    return cache_dir() / "runs" / experiment.digest


def state_file(experiment: Experiment) -> Path:
    """Where `run` stores the state of an unfinished training."""
    return _folder(experiment).with_suffix(".unfinished") / "state.safetensors"


def run_all(experiments: Sequence[Experiment], workers: int | None = None) -> list[Record]:
    """`run` each of `experiments`, several at once in separate processes: by default one per core.

    The longest start first, so that no core waits long for the last one; those that need another training
    (its weights, or a teacher) come after all others. On a terminal, the progress and the remaining time are
    shown. If the call is interrupted, finished trainings stay stored.
    """
    todo = [each for each in dict.fromkeys(experiments) if not _folder(each).exists()]
    todo.sort(key=lambda each: (each.pretrained + each.from_twin + bool(each.teacher), -_effort(each)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, len(todo))
    if workers > 1:
        context = multiprocessing.get_context("spawn")  # PyTorch's threads may hang after a fork
        with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
            try:
                jobs = {pool.submit(run, each): each for each in todo}
                with tqdm(total=sum(map(_effort, todo)), **_PROGRESS) as progress:
                    for done, job in enumerate(as_completed(jobs), 1):
                        job.result()
                        progress.set_postfix_str(f"{done} of {len(jobs)}", refresh=False)
                        progress.update(_effort(jobs[job]))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [run(each) for each in experiments]


def _end_with_parent() -> None:
    """End this process as soon as its parent ends, for whatever reason."""

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)  # safe: unfinished files have temporary names

    parent = multiprocessing.parent_process()
    assert parent is not None  # only called in child processes
    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


_PROGRESS = {
    "desc": "trainings",
    "bar_format": "{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
    "disable": None,
    "leave": False,
}


@functools.cache
def _macs(model: str, size: tuple[int, int]) -> int:
    return metrics.macs(build(model, num_steps=1, input_shape=(1, *size)))


def _effort(experiment: Experiment) -> int:
    """Rough relative duration of a training. The 10 stands for the cost that does not grow with the steps."""
    macs = _macs(experiment.model, (experiment.features.height, experiment.features.width))
    return experiment.epochs * (experiment.num_steps + 10) * macs


@one_thread()  # the other cores may be busy with other trainings
def _train(experiment: Experiment, folder: Path, on_epoch) -> None:
    """Train, resuming from any state in `folder`, and write the complete record there."""
    data = load_data(experiment)
    network = experiment.build(len(data.corpus.classes))
    about = {
        "experiment": json.loads(experiment.to_json()),
        "classes": data.corpus.classes,
        "sample_rate": data.corpus.sample_rate,
        "normalization": data.normalization,
    }
    check_about(about, network)  # fail now, not after the training
    test = data.part(data.split.test)
    watched = data.part(data.split.validation) if len(data.split.validation) else test
    state = folder / "state.safetensors"
    name = f"{experiment.model} on {data.corpus.name}, seed {experiment.seed}"
    plan = experiment.training()
    teachers = [run(experiment.of_teacher()).network()] if experiment.teacher else []
    train = data.part(data.split.train)
    if experiment.voices or experiment.others or experiment.augmentation:
        train = training_part(experiment, data)
    if experiment.pretrained:
        weights = run(experiment.of_unrounded()).network().state_dict()
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
    elif experiment.from_twin:
        samples = train[0] if train[0].dim() == 4 else train[0][:, -1]
        twin = run(experiment.of_twin()).network()
        network.load_state_dict(unfold(twin, True, samples[:: len(samples) // 500 + 1]).state_dict())
    for layer in network.weights[: experiment.frozen]:
        layer.requires_grad_(False)
    history = fit(network, *train, watched, plan, state, name, on_epoch, experiment.augmentation, teachers)
    if len(network.norms):
        network = fold(network)
    window = data.images.window[data.split.test] if network.layers[0].kernel else None
    active = metrics.activity(network, test[0], window)
    result = evaluate(network, *test) | {
        "sparsity_first": float(active["sparsity"].iloc[0]),
        "sparsity_window": active["sparsity"].get("window"),
        "sparsity_all": metrics.sparsity(active),
        "parameters": network.num_parameters,
        "packed_bytes": packed_bytes(network),
        "macs": metrics.macs(network),
        "synops": float(active["synops"].sum()),
    }
    accuracy = result["accuracy_membrane" if experiment.readout == "membrane" else "accuracy"]
    save_network(network, folder / "network.safetensors", about | {"accuracy": accuracy})
    with atomic_write(folder / "history.csv") as file:
        pd.DataFrame(history).to_csv(file, index=False)
    write_json(folder / "experiment.json", about["experiment"])
    write_json(folder / "metrics.json", result)
    seconds = round(sum(epoch["seconds"] for epoch in history), 2)
    made = {"format": _RECORD, "seconds": seconds} | _circumstances()
    write_json(folder / "made.json", made | {"checksum": _checksum(folder, made)})
    state.unlink()


def _read(folder: Path, experiment: Experiment) -> Record:
    """Read the record in `folder`; an error if a file is missing, altered or from another experiment."""
    settings, results, made = (
        read_json(folder / f"{name}.json") for name in ("experiment", "metrics", "made")
    )
    known = isinstance(made, dict) and made.get("format") == _RECORD
    if not known or settings != json.loads(experiment.to_json()):
        raise ValueError("it belongs to another experiment or has another format")
    written = {name: value for name, value in made.items() if name != "checksum"}
    if made.get("checksum") != _checksum(folder, written):
        raise ValueError("its contents have changed since they were written: the checksum differs")
    return Record(folder, experiment, results, made)


def _checksum(folder: Path, made: dict[str, Any]) -> str:
    """SHA-256 of the record in `folder`; `made` is the content of made.json without the checksum."""
    digest = hashlib.sha256(canonical(made).encode())
    for name in _FILES:
        digest.update(f"{name}\0".encode() + hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def _circumstances() -> dict[str, Any]:
    """Versions, commit and machine of this run."""
    root = Path(__file__).parent.parent
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    inside = (root / ".git").exists() and shutil.which("git")
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() if inside else None
    return {
        "versions": {name: version(name) for name in VERSIONS},
        "python": platform.python_version(),
        "commit": commit,
        "machine": f"{platform.system()} {platform.machine()}",
    }
