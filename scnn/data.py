"""A corpus: waveforms with their classes, speakers and takes; where it comes from, and how it is split.

The named corpora are the Free Spoken Digit Dataset (found locally, or downloaded and verified), a packaged
one made with eSpeak NG, and two larger ones of synthetic voices (`scnn.voices`); any folder with a
sub-folder of recordings per class is one too.
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
FSDD_FOLDER = f"fsdd-{FSDD_VERSION}"  # its name in the cache
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
    "stand-in for smoke runs: what it gives says nothing about speech.",
    "voices": f"Synthetic digits from eSpeak NG, {len(voices.VOICES)} voices, five takes of each digit: a "
    "training aid, and results on it say nothing about people.",
    "voices-words": f"Words and syllables that are no digits from eSpeak NG, {len(voices.VOICES)} voices, "
    "synthetic: an aid for training and testing refusal, and results on it say nothing about people.",
}
_TOLD: set[str] = set()  # of the folders that were read
_RETRY_AFTER = 15 * 60.0  # seconds for which `default_corpus` takes a failed download for an answer
_INSTEAD = (
    "Check the network and try again; or get the archive by other means, unpack it and set the environment "
    "variable SCNN_FSDD to its folder; or use the packaged corpus 'espeak'."
)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Recordings of words, in the order of class, speaker and take.

    Attributes:
        name: "fsdd", "fsdd-1.0.8", "espeak" or the folder's name.
        waveforms: one float32 `[samples]` in [-1, 1] per clip.
        sample_rate: Hz.
        labels: int64 `[N]`, index into `classes`.
        classes: names of the classes, sorted.
        speakers: str `[N]`; "unknown" where the file's name does not say.
        takes: int64 `[N]`, number of the repetition.
        names: what to call each clip, as "7_jackson_32".
        lists: official index sets by name, among "test", "validation" and "fold:1", "fold:2" and so on.
        source: one sentence: what it is, licence, citation.
        left_out: what a folder holds beside the clips, and list entries without one, each with the reason.
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
    """Index sets of a corpus, int64, sorted: they never overlap, and together they are the whole corpus."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load_corpus(
    name: str | Path, *, sample_rate: int = 8000, max_seconds: float = MAX_SECONDS, download: bool = True
) -> Corpus:
    """Load a corpus by name, or from a folder.

    The names are "fsdd" (1.0.10: six speakers, 3,000 clips), "fsdd-1.0.8" (the paper's: jackson, nicolas and
    theo, 1,500 clips), "espeak" (packaged, synthetic, 1,200 clips), and "voices" and "voices-words"
    (synthetic training aids, made by `scnn.voices` the first time). Wherever a named corpus comes from, each
    of its recordings is compared with the SHA-256 manifest in this package.

    A folder holds

    - a sub-folder of recordings per class. Speech Commands is such a folder: its `validation_list.txt` and
      `testing_list.txt` become `lists`, the speaker is what stands before `_nohash_`. Sub-folders whose name
      begins with `_` or `.` are no classes;
    - or a sub-folder per speaker with files named `{class}_{speaker}_{take}`, as AudioMNIST; its published
      folds of speakers become "fold:1" to "fold:5", and the first also "test" and "validation";
    - or files named `{class}_{speaker}_{take}`, as FSDD's; their takes 0 to 4 become the list "test".

    Its recordings may be of any format that libsndfile reads: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF...
    What of a folder is not taken stands in `left_out`, and a warning tells of it once.

    Args:
        name: one of these names, or the path of a folder.
        sample_rate: Hz, to which every clip is brought as `read_audio` does.
        max_seconds: to which longer clips are cropped as `read_audio` does.
        download: whether FSDD may be downloaded. It is looked for in the folder that the environment variable
            `SCNN_FSDD` names and in the cache first.

    Raises:
        FileNotFoundError: where there is no such corpus or folder, or recordings of FSDD are missing.
        ValueError: with what was found, for a folder with fewer than two classes or a class without a
            recording, and for lists that overlap or cannot be used; naming the files, for what `read_audio`
            refuses and for recordings that are not the published ones.
        ConnectionError: as `fetch_fsdd`.
        ModuleNotFoundError: as `scnn.voices.load`.
        OSError: as `scnn.voices.load`.
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
    """A cheap identity of what `load_corpus` would give, without reading audio.

    A named corpus is known by its manifest; a folder by the names, sizes and times of its files.
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
    """The name of the preferred corpus where it can be had, else of the fallback, with a warning.

    A download that fails is not tried again by this function for 15 minutes, so that a book of many pages
    asks the network once.

    Raises:
        FileNotFoundError: for a wrong `SCNN_FSDD`, for whoever sets it wants that copy.
    """
    if preferred not in _SPEAKERS or _find_fsdd(preferred) is not None:
        return preferred
    reason = "it is not in the cache, and SCNN_FSDD is not set"
    if download:
        failed = cache_dir() / "fsdd.failed"
        if failed.is_file() and time.time() - failed.stat().st_mtime < _RETRY_AFTER:
            reason = f"{failed.read_text()} (a moment ago; delete {failed} to have it tried again)"
        else:
            try:
                fetch_fsdd()
                return preferred
            except (ConnectionError, ValueError) as error:
                reason = str(error)
                failed.write_text(reason)
    warnings.warn(f"{preferred} cannot be had, {fallback} takes its place: {reason}", stacklevel=2)
    return fallback


def chosen_from(corpus: Corpus, indices: np.ndarray) -> Corpus:
    """A corpus of the clips `indices` alone, with all classes and no lists.

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
        kind: "random" draws the test clips (the paper's protocol: 80/20), "official" takes the corpus's own
            list (takes 0 to 4 of FSDD and espeak, the lists of a folder), "fold:K" the K-th of its folds,
            with the one before it (before the first, the last) for validation, "speaker:NAME" all clips of
            one speaker, "speaker:NAME,OTHER" those of one for the test and those of another for validation.
        test: share of the corpus that is drawn for testing; counts for "random" alone.
        validation: share of the corpus that is drawn for validation from the clips not tested. A corpus with
            a validation list or fold of its own gives that one to "official" and "fold:K" instead.
        seed: the same seed gives the same split.
        stratified: draw the same share of every class, to a clip.

    Raises:
        ValueError: for an unknown kind, fold, speaker or share, and where no clip is left to train or test
            on.
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
            shown = ", ".join(speakers[:20]) + (", ..." if len(speakers) > 20 else "")
            raise ValueError(f"kind={kind!r}: no such speaker in {corpus.name}; valid are {shown}")
        tested = corpus.speakers == named[0]
        validated = np.isin(corpus.speakers, named[1:]) & ~tested
    else:
        raise ValueError(f"kind={kind!r}: valid are 'random', 'official', 'fold:K' and 'speaker:NAME'")
    if not validated.any():
        # Drawn again from what is left, so that this part is as stratified as the test part.
        rest = np.flatnonzero(~tested)
        drawn = _draw(corpus.labels[rest], np.random.default_rng([seed, 1]), stratified)
        validated[rest[drawn[: round(validation * len(corpus))]]] = True
    trained = ~tested & ~validated
    if not tested.any() or not trained.any():
        raise ValueError(
            f"kind={kind!r}, test={test}, validation={validation}: of the {len(corpus)} clips of "
            f"{corpus.name} {tested.sum()} would be left to test and {trained.sum()} to train on"
        )
    return Split(*(np.flatnonzero(part) for part in (trained, validated, tested)))


def fetch_fsdd() -> Path:
    """Download the Free Spoken Digit Dataset into the cache, and return the folder of its recordings.

    The archive of the tag v1.0.10 is unpacked beside its final place, every recording compared with the
    manifest, and the folder renamed when it is complete; until then, and after a failure, there is none. Of
    two processes at once, one waits for the other.

    Raises:
        ConnectionError: as `scnn.download.fetch`.
        ValueError: as `scnn.download.fetch`.
    """
    home = cache_dir()
    target, scratch = home / FSDD_FOLDER, home / "fsdd.partial"
    with FileLock(home / "fsdd.lock"):
        if target.is_dir():
            return target
        # Only the holder of the lock writes here: what is left was left by a process that was killed.
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
    """SHA-256 by file name of a named corpus."""
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
    """The folder of FSDD's recordings, complete for the corpus `name`; None where there is no copy yet."""
    given = os.environ.get("SCNN_FSDD")
    if given:
        folder = Path(given).expanduser()
        folder = folder / "recordings" if (folder / "recordings").is_dir() else folder
        found = f"SCNN_FSDD={given}"
        instead = "Set it to the folder that holds recordings/, or to that one itself, or unset it."
    else:
        folder = cache_dir() / FSDD_FOLDER
        if not folder.is_dir():
            return None
        found, instead = str(folder), "Delete this folder to have it downloaded again."
    files = set(os.listdir(folder)) if folder.is_dir() else set()
    wanted = _manifest(name)
    missing = [file for file in wanted if file not in files]
    if missing:
        raise FileNotFoundError(
            f"{found}: {len(missing)} of the {len(wanted)} recordings of {name} are not there, the first is "
            f"{missing[0]}. {instead}"
        )
    return folder


def _folder(name: str | Path) -> Path:
    """The folder that is meant by a name which is no corpus'."""
    try:
        folder = Path(name).expanduser()
        if str(name) and folder.is_dir():
            return folder
    except RuntimeError:  # a home of nobody's
        pass
    raise FileNotFoundError(
        f"{printable(name) or 'an empty name'}: no such corpus or folder; valid are {', '.join(CORPORA)} and "
        "the path of a folder with a sub-folder of recordings for each class"
    )


def _scan(folder: Path) -> Found:
    """What the folder holds. What may surprise of how it was read, and what is left out, are told once."""
    found = scan(folder)
    left = f"left out {listed(found.left_out)}" if found.left_out else ""
    for told in filter(None, (found.note, left)):
        message = f"{printable(folder)}: {told}"
        if message not in _TOLD:
            _TOLD.add(message)
            warnings.warn(message, stacklevel=3)
    return found


def _read_all(
    clips: list[Clip], sample_rate: int, max_seconds: float, hashes: dict[str, str] | None
) -> tuple[np.ndarray, ...]:
    """Read all clips; where some cannot be used, one error names them all (the first ten)."""
    waveforms, refused = [], []
    for clip in tqdm(clips, unit="clip", delay=2, disable=None):
        try:
            if hashes and hashlib.sha256(clip.path.read_bytes()).hexdigest() != hashes[clip.path.name]:
                raise ValueError(f"{printable(clip.path)}: not the published recording, its SHA-256 differs")
            waveforms.append(read_audio(clip.path, sample_rate, max_seconds))
        except ValueError as error:
            refused.append(str(error))
    if refused:
        shown = "\n  ".join(refused[:10] + ["..."] * (len(refused) > 10))
        raise ValueError(f"{len(refused)} of {len(clips)} recordings cannot be used:\n  {shown}")
    return tuple(waveforms)


def _draw(labels: np.ndarray, generator: np.random.Generator, stratified: bool) -> np.ndarray:
    """All indices in random order; stratified: any first part of it holds its share of each class."""
    order = generator.permutation(len(labels))
    if not stratified:
        return order
    place = np.empty(len(labels))  # where each clip stands within its class, from 0 to 1
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place, kind="stable")]


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
