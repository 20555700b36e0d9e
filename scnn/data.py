"""Corpora: waveforms with classes, speakers and takes; how to load and split them.

The named corpora are the Free Spoken Digit Dataset (found locally, or downloaded and verified), a packaged
one made with eSpeak NG, and two larger ones of synthetic voices (`scnn.voices`). Any folder with a sub-folder
of recordings per class can be loaded, too.
"""

import hashlib
import os
import shutil
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from scnn import voices
from scnn.audio import MAX_SECONDS, fit, read_audio
from scnn.download import fetch
from scnn.files import cache_dir
from scnn.folders import LISTS, OFFICIAL_TAKES, Clip, Found, parse_names, scan
from scnn.text import listed, printable

CORPORA = ("fsdd", "fsdd-1.0.8", "espeak", *voices.CORPORA)
FSDD_VERSION = "1.0.10"
FSDD_URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v{FSDD_VERSION}.tar.gz"
FSDD_MANIFEST = Path(__file__).parent / "fsdd.sha256"
FSDD_FOLDER = f"fsdd-{FSDD_VERSION}"  # FSDD's folder in the cache
ESPEAK_FOLDER = Path(__file__).parent / "espeak"

_SPEAKERS = {
    "fsdd": ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"),
    "fsdd-1.0.8": ("jackson", "nicolas", "theo"),
}
_SOURCES = {
    "fsdd": "Free Spoken Digit Dataset 1.0.10 (Z. Jackson et al., doi:10.5281/zenodo.1342401, CC BY-SA 4.0): "
    "six speakers, 50 takes of each digit.",
    "fsdd-1.0.8": "Free Spoken Digit Dataset 1.0.8 (Z. Jackson et al., doi:10.5281/zenodo.1342401, "
    "CC BY-SA 4.0): three speakers, 50 takes of each digit.",
    "espeak": "Synthetic digits from eSpeak NG, twelve voices, ten takes of each digit, packaged as a "
    "stand-in for smoke runs: results on it say nothing about speech.",
    "voices": f"Synthetic digits from eSpeak NG, {len(voices.VOICES)} voices, five takes of each digit: a "
    "training aid; results on it say nothing about people.",
    "voices-words": f"Synthetic words and syllables other than digits from eSpeak NG, {len(voices.VOICES)} "
    "voices: an aid for training and testing refusal; results on it say nothing about people.",
}
_WARNED: set[str] = set()  # warnings about folders that were already shown
_RETRY_AFTER = 15 * 60.0  # seconds before `default_corpus` repeats a failed download
_INSTEAD = (
    "Check the network and try again; or get the archive by other means, unpack it and set the environment "
    "variable SCNN_FSDD to its folder; or use the packaged corpus 'espeak'."
)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Recordings of words, in the order of class, speaker and take.

    Attributes:
        name: one of `CORPORA`, or the folder's name.
        waveforms: one float32 `[samples]` in [-1, 1] per clip.
        sample_rate: Hz.
        labels: int64 `[N]`, index into `classes`.
        classes: names of the classes, sorted.
        speakers: str `[N]`; "unknown" if the file name does not give one.
        takes: int64 `[N]`, number of the repetition.
        names: a name for each clip, such as "7_jackson_32".
        lists: official index sets by name: "test", "validation", "fold:1", "fold:2" and so on, where given.
        source: one sentence: what the corpus is, its licence and citation.
        left_out: other files in a folder, and list entries without a clip, each with the reason.
    """

    name: str
    waveforms: tuple[np.ndarray, ...]
    sample_rate: int
    labels: np.ndarray
    classes: tuple[str, ...]
    speakers: np.ndarray
    takes: np.ndarray
    names: tuple[str, ...]
    lists: dict[str, np.ndarray]
    source: str
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.waveforms)


@dataclass(frozen=True, eq=False)
class Split:
    """Index sets of a corpus, int64, sorted; they do not overlap, and together cover the whole corpus."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load_corpus(
    name: str | Path, *, sample_rate: int = 8000, max_seconds: float = MAX_SECONDS, download: bool = True
) -> Corpus:
    """Load a corpus by name, or from a folder.

    The names are "fsdd" (1.0.10: six speakers, 3,000 clips), "fsdd-1.0.8" (the paper's: jackson, nicolas and
    theo, 1,500 clips), "espeak" (packaged, synthetic, 1,200 clips), and "voices" and "voices-words"
    (synthetic training aids, made by `scnn.voices` on first use). Every recording of FSDD and espeak is
    checked against a SHA-256 manifest in this package.

    A folder contains

    - a sub-folder of recordings per class, as in Speech Commands: `validation_list.txt` and
      `testing_list.txt` become `lists`, and the part of a file name before `_nohash_` is the speaker.
      Sub-folders whose names begin with `_` or `.` are skipped;
    - or a sub-folder per speaker with files named `{class}_{speaker}_{take}`, as in AudioMNIST: its published
      folds of speakers become "fold:1" to "fold:5", and the first is also used as "test" and "validation";
    - or files named `{class}_{speaker}_{take}`, as in FSDD: takes 0 to 4 become the list "test".

    Recordings can be in any format that libsndfile reads: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF and more.
    Anything else in a folder is listed in `left_out`, and reported once by a warning.

    Args:
        name: one of these names, or the path of a folder.
        sample_rate: Hz; every clip is resampled to it, as in `read_audio`.
        max_seconds: longer clips are cropped to this length, as in `read_audio`.
        download: whether FSDD may be downloaded, if it is neither in the folder named by the environment
            variable `SCNN_FSDD` nor in the cache.

    Raises:
        FileNotFoundError: there is no such corpus or folder, or recordings of FSDD are missing.
        ValueError: a folder has fewer than two classes, or a class without a recording; a list overlaps
            another or cannot be used; `read_audio` refuses recordings, or they differ from the published
            ones. The message lists what was found, or names the files.
        ConnectionError: as for `fetch_fsdd`.
        ModuleNotFoundError: as for `scnn.voices.load`.
        OSError: as for `scnn.voices.load`.
    """
    found = hashes = None
    if name in voices.CORPORA:
        return _synthetic(name, sample_rate, max_seconds)
    if name in _SPEAKERS:
        folder = _find_fsdd(name)
        if folder is None and not download:
            raise FileNotFoundError(
                f"{name}: not in the cache ({cache_dir()}), and SCNN_FSDD is not set. Allow the download, "
                "or set SCNN_FSDD to the folder of a copy."
            )
        hashes = _manifest(name)
        clips = parse_names((folder or fetch_fsdd()) / file for file in hashes)
    elif name == "espeak":
        hashes = _manifest(name)
        clips = parse_names(ESPEAK_FOLDER / file for file in hashes)
    else:
        found = _scan(_folder(name))
        clips = found.clips
    waveforms = _read_all(clips, sample_rate, max_seconds, hashes)

    takes = np.array([clip.take for clip in clips], dtype=np.int64)
    classes = tuple(sorted({clip.label for clip in clips}))
    return Corpus(
        name=printable(_folder(name).resolve().name) if found else str(name),
        waveforms=waveforms,
        sample_rate=sample_rate,
        labels=np.array([classes.index(clip.label) for clip in clips], dtype=np.int64),
        classes=classes,
        speakers=np.array([clip.speaker for clip in clips]),
        takes=takes,
        names=tuple(clip.name for clip in clips),
        lists=found.lists if found else {"test": np.flatnonzero(takes < OFFICIAL_TAKES)},
        source=found.source if found else _SOURCES[str(name)],
        left_out=found.left_out if found else (),
    )


def fingerprint(name: str | Path) -> str:
    """A cheap identifier of the corpus that `load_corpus` would return, without reading audio.

    A named corpus is identified by its manifest, a folder by the names, sizes and times of its files.
    """
    if name in voices.CORPORA:
        return f"{name}-{voices.identity(name)}"
    if name in CORPORA:
        listing: list[tuple[str, Any]] = sorted(_manifest(name).items())
    else:
        found = _scan(_folder(name))
        files = [clip.path for clip in found.clips]
        files += [file for file in map(found.folder.joinpath, LISTS.values()) if file.is_file()]
        listing = [(str(file.relative_to(found.folder)), _stamp(file)) for file in files]
        name = printable(_folder(name).resolve().name)
    return f"{name}-{hashlib.sha256(repr(listing).encode()).hexdigest()[:16]}"


def default_corpus(preferred: str = "fsdd-1.0.8", fallback: str = "espeak", download: bool = True) -> str:
    """The name of the preferred corpus if it is available, else that of the fallback, with a warning.

    This function does not repeat a failed download for 15 minutes, so that a book of many pages tries the
    network only once.

    Raises:
        FileNotFoundError: `SCNN_FSDD` is set to a wrong folder; it is not ignored, as the user asked for it.
    """
    if preferred not in _SPEAKERS or _find_fsdd(preferred) is not None:
        return preferred
    reason = "it is not in the cache, and SCNN_FSDD is not set"
    if download:
        failed = cache_dir() / "fsdd.failed"
        if failed.is_file() and time.time() - failed.stat().st_mtime < _RETRY_AFTER:
            reason = f"{failed.read_text()} (a moment ago; delete {failed} to try again)"
        else:
            try:
                fetch_fsdd()
                return preferred
            except (ConnectionError, ValueError) as error:
                reason = str(error)
                failed.write_text(reason)
    warnings.warn(f"{preferred} is not available, using {fallback} instead: {reason}", stacklevel=2)
    return fallback


def chosen_from(corpus: Corpus, indices: np.ndarray) -> Corpus:
    """A corpus of only the clips `indices`, with all classes and no lists.

    >>> corpus = load_corpus("espeak")
    >>> corpus.classes[:3], len(chosen_from(corpus, np.flatnonzero(corpus.labels == 7)))
    (('0', '1', '2'), 120)
    """
    return replace(
        corpus,
        waveforms=tuple(corpus.waveforms[i] for i in indices),
        labels=corpus.labels[indices],
        speakers=corpus.speakers[indices],
        takes=corpus.takes[indices],
        names=tuple(corpus.names[i] for i in indices),
        lists={},
    )


def split(
    corpus: Corpus,
    kind: str = "random",
    *,
    test: float = 0.2,
    validation: float = 0.0,
    seed: int = 0,
    stratified: bool = False,
) -> Split:
    """Split a corpus into training, validation and test clips.

    Args:
        kind: how the test clips are chosen. "random" draws them (the paper's protocol: 80/20). "official"
            takes the corpus's own list (takes 0 to 4 of FSDD and espeak, the lists of a folder). "fold:K"
            takes the K-th fold, and the one before it (for the first, the last) for validation.
            "speaker:NAME" takes all clips of one speaker, "speaker:NAME,OTHER" those of one speaker for
            testing and those of another for validation.
        test: share of the corpus to draw for testing; used only by "random".
        validation: share of the corpus to draw for validation from the remaining clips. Not used if `kind`
            already gives validation clips (an official list, a fold or a second speaker).
        seed: the same seed gives the same split.
        stratified: draw the same share of every class, to within one clip.

    Raises:
        ValueError: an unknown kind, fold or speaker, an invalid share, or no clip left to train or test on.
    """
    if not (0 <= test < 1 and 0 <= validation < 1):
        raise ValueError(f"test={test} and validation={validation} must be shares from 0 to below 1")
    order = _draw(corpus.labels, np.random.default_rng(seed), stratified)
    tested = np.zeros(len(corpus), dtype=bool)
    validated = np.zeros(len(corpus), dtype=bool)
    if kind == "random":
        tested[order[: round(test * len(corpus))]] = True
    elif kind == "official":
        if "test" not in corpus.lists:
            raise ValueError(
                f"kind='official': {corpus.name} has no test list; split it by 'random' or 'speaker:NAME'"
            )
        tested[corpus.lists["test"]] = True
        validated[corpus.lists.get("validation", [])] = True
    elif kind.startswith("fold:"):
        folds = [name for name in corpus.lists if name.startswith("fold:")]
        if kind not in folds:
            raise ValueError(f"kind={kind!r}: {corpus.name} has {', '.join(folds) or 'no folds'}")
        tested[corpus.lists[kind]] = True
        validated[corpus.lists[folds[folds.index(kind) - 1]]] = True
    elif kind.startswith("speaker:"):
        speakers = sorted(set(corpus.speakers.tolist()))
        named = [kind.removeprefix("speaker:")]
        if named[0] not in speakers:
            named = named[0].split(",")
        if len(named) > 2 or not set(named) <= set(speakers):
            valid = ", ".join(speakers[:20]) + (", ..." if len(speakers) > 20 else "")
            raise ValueError(f"kind={kind!r}: no such speaker in {corpus.name}; valid: {valid}")
        tested = corpus.speakers == named[0]
        validated = np.isin(corpus.speakers, named[1:]) & ~tested
    else:
        raise ValueError(f"kind={kind!r}: valid are 'random', 'official', 'fold:K' and 'speaker:NAME'")
    if not validated.any():
        # A new draw from the remaining clips, so that this part is stratified like the test part.
        rest = np.flatnonzero(~tested)
        drawn = _draw(corpus.labels[rest], np.random.default_rng([seed, 1]), stratified)
        validated[rest[drawn[: round(validation * len(corpus))]]] = True
    trained = ~tested & ~validated
    if not tested.any() or not trained.any():
        raise ValueError(
            f"kind={kind!r}, test={test}, validation={validation}: of the {len(corpus)} clips of "
            f"{corpus.name}, {tested.sum()} would be left for testing and {trained.sum()} for training"
        )
    return Split(*(np.flatnonzero(part) for part in (trained, validated, tested)))


def fetch_fsdd() -> Path:
    """Download the Free Spoken Digit Dataset into the cache, and return the folder of its recordings.

    The archive of tag v1.0.10 is unpacked into a temporary folder, and every recording is checked against the
    manifest. The folder gets its final name only when it is complete. If two processes call this at once, one
    waits for the other.

    Raises:
        ConnectionError: as for `scnn.download.fetch`.
        ValueError: as for `scnn.download.fetch`.
    """
    home = cache_dir()
    target, scratch = home / FSDD_FOLDER, home / "fsdd.partial"
    with FileLock(home / "fsdd.lock"):
        if target.is_dir():
            return target
        # Only the holder of the lock writes here, so any leftovers are from a killed process.
        shutil.rmtree(scratch, ignore_errors=True)
        recordings = scratch / "recordings"
        recordings.mkdir(parents=True)
        try:
            fetch(FSDD_URL, recordings, _manifest("fsdd"), _INSTEAD)
            recordings.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    (home / "fsdd.failed").unlink(missing_ok=True)
    return target


def _manifest(name: str) -> dict[str, str]:
    """The SHA-256 of each file of a named corpus, by file name."""
    path = ESPEAK_FOLDER / "manifest.sha256" if name == "espeak" else FSDD_MANIFEST
    hashes = {file: digest for digest, file in map(str.split, path.read_text().splitlines())}
    if name == "espeak":
        return hashes
    return {file: digest for file, digest in hashes.items() if file.split("_")[1] in _SPEAKERS[name]}


def _synthetic(name: str, sample_rate: int, max_seconds: float) -> Corpus:
    clips = sorted(voices.load(name), key=lambda clip: clip[:3])
    classes = tuple(sorted({clip.label for clip in clips}))
    return Corpus(
        name=name,
        waveforms=tuple(
            fit(clip.samples.astype(np.float32) / 32768, voices.SAMPLE_RATE, sample_rate, max_seconds)
            for clip in clips
        ),
        sample_rate=sample_rate,
        labels=np.array([classes.index(clip.label) for clip in clips], dtype=np.int64),
        classes=classes,
        speakers=np.array([clip.voice for clip in clips]),
        takes=np.array([clip.take for clip in clips], dtype=np.int64),
        names=tuple(f"{clip.label}_{clip.voice}_{clip.take}" for clip in clips),
        lists={},
        source=_SOURCES[name],
    )


def _find_fsdd(name: str) -> Path | None:
    """The folder of FSDD's recordings, complete for the corpus `name`; None if there is no copy yet."""
    given = os.environ.get("SCNN_FSDD")
    if given:
        folder = Path(given).expanduser()
        folder = folder / "recordings" if (folder / "recordings").is_dir() else folder
        origin = f"SCNN_FSDD={given}"
        advice = "Set it to the folder that contains recordings/, or to recordings/ itself, or unset it."
    else:
        folder = cache_dir() / FSDD_FOLDER
        if not folder.is_dir():
            return None
        origin, advice = str(folder), "Delete this folder to download it again."
    files = set(os.listdir(folder)) if folder.is_dir() else set()
    wanted = _manifest(name)
    missing = [file for file in wanted if file not in files]
    if missing:
        raise FileNotFoundError(
            f"{origin}: {len(missing)} of the {len(wanted)} recordings of {name} are missing, the first is "
            f"{missing[0]}. {advice}"
        )
    return folder


def _folder(name: str | Path) -> Path:
    """The folder meant by a name that is not a named corpus."""
    try:
        folder = Path(name).expanduser()
        if str(name) and folder.is_dir():
            return folder
    except RuntimeError:  # ~user of an unknown user
        pass
    raise FileNotFoundError(
        f"{printable(name) or 'an empty name'}: no such corpus or folder; valid are {', '.join(CORPORA)} and "
        "the path of a folder with a sub-folder of recordings for each class"
    )


def _scan(folder: Path) -> Found:
    """Scan a folder, and warn once about a surprising layout and about what was left out."""
    found = scan(folder)
    left_out = f"left out {listed(found.left_out)}" if found.left_out else ""
    for remark in filter(None, (found.note, left_out)):
        message = f"{printable(folder)}: {remark}"
        if message not in _WARNED:
            _WARNED.add(message)
            warnings.warn(message, stacklevel=3)
    return found


def _read_all(
    clips: list[Clip], sample_rate: int, max_seconds: float, hashes: dict[str, str] | None
) -> tuple[np.ndarray, ...]:
    """Read all clips; a single error names those that cannot be used (the first ten)."""
    waveforms, refused = [], []
    for clip in tqdm(clips, unit="clip", delay=2, disable=None):
        try:
            if hashes and hashlib.sha256(clip.path.read_bytes()).hexdigest() != hashes[clip.path.name]:
                raise ValueError(f"{printable(clip.path)}: not the published recording, its SHA-256 differs")
            waveforms.append(read_audio(clip.path, sample_rate, max_seconds))
        except ValueError as error:
            refused.append(str(error))
    if refused:
        first = "\n  ".join(refused[:10] + ["..."] * (len(refused) > 10))
        raise ValueError(f"{len(refused)} of {len(clips)} recordings cannot be used:\n  {first}")
    return tuple(waveforms)


def _draw(labels: np.ndarray, generator: np.random.Generator, stratified: bool) -> np.ndarray:
    """All indices in random order; if stratified, any leading part has its share of every class."""
    order = generator.permutation(len(labels))
    if not stratified:
        return order
    place = np.empty(len(labels))  # each clip's position within its class, from 0 to 1
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place, kind="stable")]


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
