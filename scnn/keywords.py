"""Your own keywords: record them, train and test a robust network, and export it for a device and a web page.

`record` asks for words and stores them as a folder of recordings; `learn` trains on such a folder (five
recordings per word or more; ten are good); `write` exports the network as a file, as C, as WebAssembly, and
as a page that recognises words in a browser.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

from scnn.augment import Augmentation, coloured_noise
from scnn.data import Corpus, Split, chosen_from, load_corpus, split
from scnn.experiment import PRESETS, Experiment, Record, learnt_of, run
from scnn.features import extract, image
from scnn.files import atomic_write
from scnn.listen import Gate
from scnn.models import Network
from scnn.text import listed
from scnn.training import answers, load_network, save_network

MODEL = "8C3s2p1-16C3s2p1-24C3s2p1-32C3s2p1"  # plus an output layer with one unit per word
RATE = 16_000  # Hz, sample rate of `record`
REFUSED = 0.9  # share of other words, and of noises, below the confidence threshold that `learn` sets
FEWEST = 5  # fewest recordings per word
_SPEAKERS = 3  # with at least this many speakers, `learn` holds one out; with fewer, some takes


def record(
    words: Sequence[str],
    folder: Path | str,
    heard: Iterator[np.ndarray],
    *,
    takes: int = 10,
    speaker: str = "me",
    prompt=print,
) -> list[Path]:
    """Ask for each of `words` in turn, `takes` times, and store the recordings as `FOLDER/word/*.wav`.

    Existing recordings of this speaker in `folder` count as done, so an interrupted session can be continued.

    Args:
        heard: blocks of float32 samples at `RATE`, as from `scnn.listen.microphone`.
        prompt: function that displays a line of text.

    Raises:
        ValueError: there are fewer than two words, a word twice, or a name that cannot be a folder's; or the
            sound ends before all words are recorded.
    """
    if len(words) < 2 or len(set(words)) < len(words):
        raise ValueError(f"words={' '.join(words)}: must be two or more different words")
    for name in (*words, speaker):
        if not re.fullmatch(r"\w[\w '-]*", name) or name.startswith("_"):
            raise ValueError(
                f"{name!r}: words and speakers' names consist of letters, digits, spaces, - and '"
            )
    written, gate = [], Gate(RATE)
    for take in range(takes):
        for number, word in enumerate(words, start=1):
            path = Path(folder) / word / f"{speaker}_nohash_{take}.wav"
            if path.exists():
                continue
            prompt(f"{take * len(words) + number} of {takes * len(words)}   say: {word}")
            samples = _next_word(gate, heard)
            with atomic_write(path) as temporary:
                soundfile.write(temporary, samples, RATE, subtype="PCM_16", format="WAV")
            written.append(path)
    return written


def _next_word(gate: Gate, heard: Iterator[np.ndarray]) -> np.ndarray:
    for block in heard:
        for segment in gate.feed(block):
            return segment.samples
    raise ValueError("the sound ended before the word was said")


def as_folder(corpus: Corpus, words: Sequence[str], folder: Path | str, takes: int | None = None) -> Path:
    """Write a corpus's recordings of some `words` in the layout of `record`, and return the folder.

    Args:
        takes: most recordings per word and speaker; None for all.

    >>> import tempfile
    >>> from scnn.data import load_corpus
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     words = as_folder(load_corpus("espeak"), ["3", "7"], folder, takes=1)
    ...     len(list(words.rglob("*.wav")))  # twelve voices
    24
    """
    for name in words:
        clips = np.flatnonzero(corpus.labels == corpus.classes.index(name))
        for speaker in np.unique(corpus.speakers[clips]):
            for number, clip in enumerate(clips[corpus.speakers[clips] == speaker][:takes]):
                path = Path(folder) / name / f"{speaker}_nohash_{number}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, corpus.waveforms[clip], corpus.sample_rate, subtype="PCM_16")
    return Path(folder)


@dataclass(frozen=True)
class Learnt:
    """A trained keyword network and its test results.

    Attributes:
        record: the record of its training.
        corpus: the recordings it was trained and tested on.
        held_out: a description of the recordings held out for testing.
        refuse: the confidence below which the answer is "not sure".
        words: a row for each word, and for "other words" (words and speakers not trained on) and "noise":
            the number `tested`, and the shares answered `right`, `wrong` and "not sure".
        confidences: the confidences of the same answers, float32 `[tested]`, by row of `words`.
        test: indices of the clips of `corpus` that were held out.
    """

    record: Record
    corpus: Corpus
    held_out: str
    refuse: float
    words: pd.DataFrame
    confidences: dict[str, np.ndarray]
    test: np.ndarray

    @property
    def about(self) -> dict[str, Any]:
        """The description to save with the network, including `refuse`."""
        about = load_network(self.record.folder / "network.safetensors")[1]
        return about | {"experiment": about["experiment"] | {"refuse": self.refuse}}


def learn(
    folder: Path | str, *, epochs: int = 30, copies: int = 6, seed: int = 0, others: str = "voices-words"
) -> Learnt:
    """Train on a folder of recordings, in any layout of `load_corpus`, and test on held-out recordings.

    If three or more speakers say every word, one speaker is held out; otherwise a fifth of all recordings.
    The training is a small version of the preset "robust": each recording has `copies` changed copies (other
    voices, rooms, microphones), and the network learns to reject other words, spoken by synthetic voices (the
    corpus `others`). The confidence threshold refuses `REFUSED` of other words and of noises; the result
    table uses different words and noises.

    Raises:
        ValueError: words have fewer than `FEWEST` recordings (the message names them); or as for
            `load_corpus`.
        ModuleNotFoundError: the extra [voices] is not installed.
    """
    corpus = load_corpus(folder)
    counts = np.bincount(corpus.labels, minlength=len(corpus.classes))
    few = [f"{name} ({count})" for name, count in zip(corpus.classes, counts, strict=True) if count < FEWEST]
    if few:
        raise ValueError(
            f"{folder}: each word needs at least {FEWEST} recordings, better ten; too few of {listed(few)}"
        )
    kind, seed = _split(corpus, seed)
    experiment = replace(
        PRESETS["robust"],
        corpus=str(folder),
        split=kind,
        seed=seed,
        model=f"{MODEL}-{len(corpus.classes)}FC",
        precision="fp32",
        pretrained=False,
        epochs=epochs,
        tune_epochs=max(1, epochs // 3),
        voices="",
        teacher="",
        others=others,
        augmentation=Augmentation(copies=copies),
    )
    trained = run(experiment)
    chosen = split(corpus, kind, test=experiment.test, seed=seed)
    if kind == "random":
        names = [corpus.names[clip] for clip in chosen.test]
        held_out = f"{len(names)} of {len(corpus)} recordings: {', '.join(names)}"
    else:
        held_out = f"all {len(chosen.test)} recordings of the speaker {kind.removeprefix('speaker:')}"
    results = _tested(trained.network(), experiment, corpus, chosen)
    return Learnt(trained, corpus, held_out, *results, chosen.test)


def _split(corpus: Corpus, seed: int) -> tuple[str, int]:
    """The kind of split, by the last speaker who says every word or "random", and the seed for it."""
    complete = [
        name
        for name in sorted(set(corpus.speakers.tolist()))
        if len(set(corpus.labels[corpus.speakers == name].tolist())) == len(corpus.classes)
    ]
    if len(complete) >= _SPEAKERS:
        return f"speaker:{complete[-1]}", seed

    def fair(seed: int) -> bool:  # every word is tested, with less than half of its recordings
        tested = np.bincount(corpus.labels[split(corpus, seed=seed).test], minlength=len(corpus.classes))
        return bool((tested > 0).all() and (2 * tested < np.bincount(corpus.labels)).all())

    return "random", next(each for each in range(seed, seed + 10_000) if fair(each))


def _tested(
    network: Network, experiment: Experiment, corpus: Corpus, chosen: Split
) -> tuple[float, pd.DataFrame, dict[str, np.ndarray]]:
    """The fields `refuse`, `words` and `confidences` of `Learnt`."""
    calibration, foreign = _foreign(experiment, corpus)
    scores = [answers(network, images, experiment.readout)[1] for images in calibration.values()]
    refuse = min(0.99, round(max(float(each.quantile(REFUSED)) for each in scores), 3))
    own, labels = extract(corpus, experiment.features).values[chosen.test], corpus.labels[chosen.test]
    groups: dict[str, tuple[torch.Tensor, int | None]] = {
        word: (own[labels == label], label) for label, word in enumerate(corpus.classes)
    }
    groups |= {name: (images, None) for name, images in foreign.items()}
    rows, confidences = {}, {}
    for name, (images, label) in groups.items():
        predicted, confidence = (each.numpy() for each in answers(network, images, experiment.readout))
        right, refused = predicted == label, confidence < refuse
        shares = (right & ~refused).mean(), (~right & ~refused).mean(), refused.mean()
        rows[name], confidences[name] = [len(predicted), *map(float, shares)], confidence
    columns = ["tested", "right", "wrong", "not sure"]
    return refuse, pd.DataFrame.from_dict(rows, orient="index", columns=columns), confidences


def _foreign(experiment: Experiment, corpus: Corpus) -> list[dict[str, torch.Tensor]]:
    """Two sets of images of other words and of noises: one to set the confidence threshold, one to test it.

    Their words and speakers are among those that `scnn.experiment.training_part` leaves out.
    """
    others = load_corpus(experiment.others)
    learnt_words, learnt_speakers = learnt_of(others)
    own = np.isin(np.array(others.classes)[others.labels], corpus.classes)
    free = ~learnt_words & ~learnt_speakers & ~own
    generator = np.random.default_rng(experiment.seed)
    parts = []
    for remainder in (1, 3):
        candidates = np.flatnonzero(free & (others.labels % 4 == remainder))
        clips = chosen_from(others, candidates[:: -(-len(candidates) // 300)])  # at most 300
        noises = [
            0.1
            * coloured_noise(int(generator.integers(2000, 8000)), generator.uniform(-0.5, 0.97), generator)
            for _ in range(40)
        ]
        noise_images = [image(noise, others.sample_rate, experiment.features).values for noise in noises]
        words = extract(clips, experiment.features).values
        parts.append({"other words": words, "noise": torch.cat(noise_images)})
    return parts


def write(learnt: Learnt, folder: Path | str) -> list[Path]:
    """Write the network, its C, its WebAssembly and a live page to `folder`; return the main files.

    The page includes about a dozen of the held-out recordings to try. Needs the extra [edge].
    """
    from scnn.deploy import compiler, live, load_program
    from scnn.deploy.frontend import pcm

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    network = folder / "network.safetensors"
    save_network(learnt.record.network(), network, learnt.about)
    program = load_program(network)
    compiler.export_c(program, folder / "c")
    _, wasm = compiler.export_wasm(program, folder / "wasm")
    corpus, samples = learnt.corpus, []
    for clip in learnt.test[:: -(-len(learnt.test) // 12)]:
        word = corpus.classes[corpus.labels[clip]]
        title = f"{word} ({corpus.speakers[clip]}, {corpus.takes[clip]})"
        samples.append(live.Sample(title, word, pcm(corpus.waveforms[clip])))
    live.write(network, folder / "page", samples, "Recordings that the network was not trained on.")
    summary = f"A spiking network that knows {', '.join(corpus.classes)}."
    page = live.write_page(folder / "page", "Your own words", summary)
    return [network, folder / "c" / "README.md", wasm, page]
