"""Your own words: said to the terminal, learnt by a robust network, tested, written for a device and a page.

`record` asks for words and keeps them as a folder of recordings; `learn` trains on such a folder, of ten
recordings a word or more; `write` gives what has been learnt as a network file, as C, as WebAssembly, and as
a page that answers in a browser.
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

MODEL = "8C3s2p1-16C3s2p1-24C3s2p1-32C3s2p1"  # and an output for each word
RATE = 16_000  # Hz, of recordings that are made here
REFUSED = 0.9  # share of foreign words, and of noises, that `learn` has refused where it sets the confidence
FEWEST = 5  # recordings of a word
_SPEAKERS = 3  # from so many on one of them is held out, and of fewer some takes


def record(
    words: Sequence[str],
    folder: Path | str,
    heard: Iterator[np.ndarray],
    *,
    takes: int = 10,
    speaker: str = "me",
    prompt=print,
) -> list[Path]:
    """Ask for every one of `words` in turn, `takes` times, and keep what is said as `FOLDER/word/*.wav`.

    Recordings that `folder` has of this speaker are counted and left as they are, so a session may be broken
    off and taken up again.

    Args:
        heard: blocks of float32 samples at `RATE`, as `scnn.listen.microphone` gives them.
        prompt: shows a line.

    Raises:
        ValueError: for fewer than two words, the same one twice, or a name that cannot be a folder's.
    """
    if len(words) < 2 or len(set(words)) < len(words):
        raise ValueError(f"words={' '.join(words)}: must be two different ones or more")
    for name in (*words, speaker):
        if not re.fullmatch(r"\w[\w '-]*", name) or name.startswith("_"):
            raise ValueError(f"{name!r}: names of words and speakers are letters, digits, blanks, - and '")
    written, gate = [], Gate(RATE)
    for take in range(takes):
        for number, word in enumerate(words, start=1):
            path = Path(folder) / word / f"{speaker}_nohash_{take}.wav"
            if path.exists():
                continue
            prompt(f"{take * len(words) + number} of {takes * len(words)}   say: {word}")
            samples = _said(gate, heard)
            with atomic_write(path) as temporary:
                soundfile.write(temporary, samples, RATE, subtype="PCM_16", format="WAV")
            written.append(path)
    return written


def _said(gate: Gate, heard: Iterator[np.ndarray]) -> np.ndarray:
    for block in heard:
        for segment in gate.feed(block):
            return segment.samples
    raise ValueError("the sound ended before the word was said")


def as_folder(corpus: Corpus, words: Sequence[str], folder: Path | str, takes: int | None = None) -> Path:
    """The recordings that `corpus` has of some `words`, as a folder like those of `record`; the folder.

    Args:
        takes: at most so many of each word and speaker.

    >>> import tempfile
    >>> from scnn.data import load_corpus
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     words = as_folder(load_corpus("espeak"), ["3", "7"], folder, takes=1)
    ...     len(list(words.rglob("*.wav")))  # by twelve voices
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
    """A network that knows some words.

    Attributes:
        record: of its training.
        held_out: which speaker or recordings were not trained on.
        refuse: the confidence below which it is not sure.
        words: a row for each word and for what is none of them ("other words" and "noise", by speakers and
            words that were not trained on): how many were `tested`, and of them the share that was answered
            `right`, `wrong`, or by "not sure".
        confidences: of the same answers, float32 `[tested]` by row.
        test: indices of the clips of `corpus` held out.
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
        """What is kept beside the network: its training, with the confidence to refuse below."""
        about = load_network(self.record.folder / "network.safetensors")[1]
        return about | {"experiment": about["experiment"] | {"refuse": self.refuse}}


def learn(
    folder: Path | str, *, epochs: int = 30, copies: int = 6, seed: int = 0, others: str = "voices-words"
) -> Learnt:
    """Train on a folder of recordings, in a layout of `load_corpus`, and test on some that are held out.

    These are those of one speaker, where three or more say every word, or else a fifth of all takes. The
    training is the robust one at a small scale: recordings are changed `copies` times (other voices, rooms,
    microphones), and it learns not to know other words, which synthetic voices say (the corpus `others`). The
    confidence below which it is not sure refuses `REFUSED` of other words and of noises; the table counts
    others again.

    Raises:
        ValueError: naming them, for words of fewer than `FEWEST` recordings, and as `load_corpus`.
        ModuleNotFoundError: without the extra [voices].
    """
    corpus = load_corpus(folder)
    counts = np.bincount(corpus.labels, minlength=len(corpus.classes))
    few = [f"{name} ({count})" for name, count in zip(corpus.classes, counts, strict=True) if count < FEWEST]
    if few:
        raise ValueError(
            f"{folder}: a word needs {FEWEST} recordings or more, ten are good; too few of {listed(few)}"
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
    done = run(experiment)
    chosen = split(corpus, kind, test=experiment.test, seed=seed)
    if kind == "random":
        names = [corpus.names[clip] for clip in chosen.test]
        held_out = f"{len(names)} of {len(corpus)} recordings: {', '.join(names)}"
    else:
        held_out = f"all {len(chosen.test)} recordings of the speaker {kind.removeprefix('speaker:')}"
    return Learnt(done, corpus, held_out, *_tested(done.network(), experiment, corpus, chosen), chosen.test)


def _split(corpus: Corpus, seed: int) -> tuple[str, int]:
    """What is held out: the last speaker who says every word, or takes; and the seed that draws these."""
    every = [
        name
        for name in sorted(set(corpus.speakers.tolist()))
        if len(set(corpus.labels[corpus.speakers == name].tolist())) == len(corpus.classes)
    ]
    if len(every) >= _SPEAKERS:
        return f"speaker:{every[-1]}", seed

    def fair(seed: int) -> bool:  # some of every word on either side, and not the most of one to test on
        tested = np.bincount(corpus.labels[split(corpus, seed=seed).test], minlength=len(corpus.classes))
        return bool((tested > 0).all() and (2 * tested < np.bincount(corpus.labels)).all())

    return "random", next(each for each in range(seed, seed + 10_000) if fair(each))


def _tested(
    network: Network, experiment: Experiment, corpus: Corpus, chosen: Split
) -> tuple[float, pd.DataFrame, dict[str, np.ndarray]]:
    """The confidence below which `network` is not sure, and the table and confidences of `Learnt`."""
    set_by, foreign = _foreign(experiment, corpus)
    sure = [answers(network, images, experiment.readout)[1] for images in set_by.values()]
    refuse = min(0.99, round(max(float(each.quantile(REFUSED)) for each in sure), 3))
    own, labels = extract(corpus, experiment.features).values[chosen.test], corpus.labels[chosen.test]
    groups: dict[str, tuple[torch.Tensor, int | None]] = {
        word: (own[labels == label], label) for label, word in enumerate(corpus.classes)
    }
    groups |= {name: (images, None) for name, images in foreign.items()}
    rows, confidences = {}, {}
    for name, (images, label) in groups.items():
        found, confidence = (each.numpy() for each in answers(network, images, experiment.readout))
        known, refused = found == label, confidence < refuse
        shares = (known & ~refused).mean(), (~known & ~refused).mean(), refused.mean()
        rows[name], confidences[name] = [len(found), *map(float, shares)], confidence
    columns = ["tested", "right", "wrong", "not sure"]
    return refuse, pd.DataFrame.from_dict(rows, orient="index", columns=columns), confidences


def _foreign(experiment: Experiment, corpus: Corpus) -> list[dict[str, torch.Tensor]]:
    """Images of other words and of noises, twice: to set the confidence by, and to test it.

    The words and their speakers are such as `scnn.experiment.training_part` leaves out.
    """
    others = load_corpus(experiment.others)
    learnt_words, learnt_speakers = learnt_of(others)
    own = np.isin(np.array(others.classes)[others.labels], corpus.classes)
    free = ~learnt_words & ~learnt_speakers & ~own
    generator = np.random.default_rng(experiment.seed)
    parts = []
    for rest in (1, 3):
        left = np.flatnonzero(free & (others.labels % 4 == rest))
        clips = chosen_from(others, left[:: -(-len(left) // 300)])  # some hundred are enough
        noises = [
            0.1
            * coloured_noise(int(generator.integers(2000, 8000)), generator.uniform(-0.5, 0.97), generator)
            for _ in range(40)
        ]
        hissed = [image(noise, others.sample_rate, experiment.features).values for noise in noises]
        words = extract(clips, experiment.features).values
        parts.append({"other words": words, "noise": torch.cat(hissed)})
    return parts


def write(learnt: Learnt, folder: Path | str) -> list[Path]:
    """The network, its C, its WebAssembly and a page that answers, in `folder`; the most important files.

    The page has a dozen of the recordings held out to try. Needs the extra [edge].
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
    said = f"A spiking network that knows {', '.join(corpus.classes)}."
    page = live.write_page(folder / "page", "Your own words", said)
    return [network, folder / "c" / "README.md", wasm, page]
