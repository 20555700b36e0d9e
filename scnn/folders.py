"""Scan a folder of recordings: its clips, what their file names say, its lists, and what is left out.

Hidden entries (names that begin with a dot) are skipped without mention.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from scnn.audio import ENDINGS
from scnn.text import listed, printable

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}  # file names of Speech Commands
OFFICIAL_TAKES = 5  # takes 0 to 4 are FSDD's own test split

_CLIP = re.compile(r"([^_]+)_(.+)_(\d{1,9})")  # {class}_{speaker}_{take}
_COMMAND = re.compile(r"(.+)_nohash_(\d{1,9})")  # Speech Commands: {speaker}_nohash_{take}
_META = "audioMNIST_meta.txt"
# The test speakers of each AudioMNIST fold, from audiomnist/train/splits.py in its repository (digits). A
# fold is validated on the speakers of the previous fold, and trained on those of the other three.
_FOLDS = (
    (26, 52, 60, 18, 32, 42, 5, 13, 22, 33, 45, 51),
    (28, 56, 7, 19, 35, 1, 6, 16, 23, 34, 46, 53),
    (36, 57, 9, 24, 37, 2, 8, 17, 29, 39, 48, 54),
    (43, 58, 14, 25, 38, 3, 10, 20, 30, 40, 49, 55),
    (12, 47, 59, 15, 27, 41, 4, 11, 21, 31, 44, 50),
)
_AUDIOMNIST = (
    "AudioMNIST (S. Becker et al., arXiv:1807.03418, MIT licence): the ten digits by 60 speakers, with "
    "the five folds of speakers that were published with it"
)


class Clip(NamedTuple):
    """A clip's path and what it says about the clip; sorts in the order of a corpus."""

    label: str
    speaker: str
    take: int
    name: str
    path: Path


@dataclass(frozen=True)
class Found:
    """The contents of a folder of recordings.

    Attributes:
        lists: index sets, by name.
        left_out: the entries left out, with reasons.
        source: a description of the corpus.
        note: anything surprising about how the folder was read.
    """

    folder: Path
    clips: list[Clip]
    lists: dict[str, np.ndarray]
    left_out: tuple[str, ...]
    source: str
    note: str = ""


def scan(folder: Path) -> Found:
    """The clips and lists of a folder of recordings, in one of three layouts.

    - class folders: a sub-folder of recordings per class; the part of a file name before `_nohash_` is the
      speaker;
    - speaker folders: a sub-folder per speaker in which every recording is named `{class}_{speaker}_{take}`,
      as in AudioMNIST (its clone, or the `data` in it). AudioMNIST's own folds become "fold:1" to "fold:5",
      and the first also gives "test" and "validation";
    - no sub-folders, and recordings named `{class}_{speaker}_{take}`, as in FSDD: takes 0 to 4 become "test".

    If the folder has `validation_list.txt` or `testing_list.txt`, these become "validation" and "test"
    instead.

    Raises:
        ValueError: the folder has fewer than two classes, a class folder without a recording, recordings both
            in sub-folders and loose, or loose ones with other names; or a list cannot be read, names no
            recording, or names one that another list names, too.
    """
    if (folder / "data" / _META).is_file():
        folder = folder / "data"
    left_out: list[str] = []
    loose: list[Path] = []
    inside: dict[str, list[Path]] = {}
    for entry in _visible(folder):
        if not entry.is_dir():
            _sort_in(entry, "", loose, left_out)
        elif entry.name.startswith("_"):
            left_out.append(f"{printable(entry.name)}/ (its name begins with _)")
        else:
            inside[entry.name] = []
            for each in _visible(entry):
                _sort_in(each, f"{entry.name}/", inside[entry.name], left_out)
    if loose and any(inside.values()):
        raise ValueError(
            f"{printable(folder)}: contains folders of recordings and also loose recordings, such as "
            f"{printable(loose[0].name)}"
        )
    by_class = not loose and not _are_speakers(inside)
    empty = [label for label, paths in inside.items() if not paths]
    note, default_lists = "", {}
    source = f"Recordings in the folder {printable(folder.resolve().name)}"
    if loose:
        clips = parse_names(loose)
        first = [index for index, clip in enumerate(clips) if clip.take < OFFICIAL_TAKES]
        default_lists = {"test": np.array(first, dtype=np.int64)}
    elif not by_class:
        clips = parse_names(path for paths in inside.values() for path in paths)
        default_lists = _folds(clips)
        source = _AUDIOMNIST if default_lists else f"{source}, a sub-folder per speaker"
        if not default_lists:
            note = (
                "as all recordings are named {class}_{speaker}_{take}, sub-folders are read as "
                f"speakers; the classes are {listed(sorted({clip.label for clip in clips}))}"
            )
    else:
        clips = sorted(
            _parse_command(path, label, number)
            for label, paths in inside.items()
            for number, path in enumerate(paths)
        )
        source += ", a sub-folder per class"
    _check_classes(folder, clips, inside, left_out)
    if empty and by_class:
        contents = [entry for entry in left_out if entry.startswith(f"{printable(empty[0])}/")]
        raise ValueError(
            f"{printable(folder / empty[0])}: a class folder without a recording (such as .wav, .flac, .ogg, "
            f".mp3); let its name begin with _ to leave it out. It contains {listed(contents)}"
        )
    lists = _read_lists(folder, clips, left_out, depth=1 if loose else 2) or default_lists
    left_out += [f"{printable(label)}/ (contains no recording)" for label in empty]
    return Found(folder, clips, lists, tuple(left_out), f"{source}.", note)


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _sort_in(path: Path, within: str, recordings: list[Path], left_out: list[str]) -> None:
    """Add a path to the recordings, or to the entries left out, with the reason."""
    if path.is_dir():
        left_out.append(f"{printable(within + path.name)}/ (a folder inside a folder of recordings)")
    elif not path.is_file():
        left_out.append(f"{printable(within + path.name)} (not a file, or a broken link)")
    elif path.suffix.lower() in ENDINGS:
        recordings.append(path)
    elif within or path.name not in LISTS.values():
        left_out.append(f"{printable(within + path.name)} (not a recording by its ending)")


def _are_speakers(inside: dict[str, list[Path]]) -> bool:
    """Whether all recordings are named {class}_{speaker}_{take} after their folder, with several classes."""
    named = [(speaker, _CLIP.fullmatch(path.stem)) for speaker, paths in inside.items() for path in paths]
    classes = {parts[1] for speaker, parts in named if parts is not None and parts[2] == speaker}
    return len(classes) > 1 and all(parts is not None and parts[2] == speaker for speaker, parts in named)


def _check_classes(
    folder: Path, clips: list[Clip], inside: dict[str, list[Path]], left_out: list[str]
) -> None:
    if len({clip.label for clip in clips}) < 2:
        counts = ", ".join(
            f"{printable(label)}/ ({len(paths)})" for label, paths in list(inside.items())[:20]
        )
        raise ValueError(
            f"{printable(folder)}: a corpus needs recordings (such as .wav, .flac, .ogg, .mp3) of two "
            f"classes or more, in a sub-folder each; found {0 if any(inside.values()) else len(clips)} loose "
            f"recordings, and in sub-folders: {counts or 'none'}; left out {listed(left_out)}"
        )


def parse_names(paths: Iterable[Path]) -> list[Clip]:
    """The clips of files named `{class}_{speaker}_{take}`, sorted.

    Raises:
        ValueError: a file has another name.

    >>> [clip] = parse_names([Path("7_jackson_32.wav")])
    >>> clip.label, clip.speaker, clip.take
    ('7', 'jackson', 32)
    """
    return sorted(map(_parse_name, paths))


def _parse_name(path: Path) -> Clip:
    parts = _CLIP.fullmatch(path.stem)
    if parts is None:
        raise ValueError(
            f"{printable(path)}: a recording must be in a class folder, or be named "
            "{class}_{speaker}_{take}"
        )
    label, speaker, stem = map(printable, (parts[1], parts[2], path.stem))
    return Clip(label, speaker, int(parts[3]), stem, path)


def _parse_command(path: Path, label: str, number: int) -> Clip:
    parts = _COMMAND.fullmatch(path.stem)
    speaker, take = (parts[1], int(parts[2])) if parts else ("unknown", number)
    return Clip(printable(label), printable(speaker), take, printable(f"{label}/{path.stem}"), path)


def _read_lists(folder: Path, clips: list[Clip], left_out: list[str], depth: int) -> dict[str, np.ndarray]:
    """The index sets of the list files; entries that match no clip are counted in `left_out`.

    An entry matches a clip if the last `depth` parts of their paths are equal.
    """
    index = {clip.path.parts[-depth:]: position for position, clip in enumerate(clips)}
    lists = {}
    for name, file in LISTS.items():
        if not (folder / file).is_file():
            continue
        entries = _entries(folder / file)
        positions = [index.get(PurePosixPath(entry.replace("\\", "/")).parts[-depth:]) for entry in entries]
        lists[name] = np.array(sorted({position for position in positions if position is not None}), np.int64)
        unknown = [entry for entry, position in zip(entries, positions, strict=True) if position is None]
        count = f"{len(unknown)} of its {len(entries)} entries name no recording here"
        if unknown:
            count += f", the first is {printable(unknown[0])}"
        if not len(lists[name]):
            raise ValueError(
                f"{printable(folder / file)}: {count}; write one entry per line, such as "
                f"{printable('/'.join(next(iter(index))))}"
            )
        if unknown:
            left_out.append(f"{file} ({count})")
    twice = sorted(set.intersection(*map(set, lists.values()))) if len(lists) == 2 else []
    if twice:
        names = [clips[index].name for index in twice]
        raise ValueError(f"{printable(folder)}: both {' and '.join(LISTS.values())} contain {listed(names)}")
    return lists


def _entries(file: Path) -> list[str]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{printable(file)}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{printable(file)}: not UTF-8 but probably UTF-16; save it as UTF-8")
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def _folds(clips: list[Clip]) -> dict[str, np.ndarray]:
    """The folds of AudioMNIST, if these are its clips; else nothing."""
    everyone = {f"{number:02}" for fold in _FOLDS for number in fold}
    if {clip.speaker for clip in clips} != everyone or {clip.label for clip in clips} != set("0123456789"):
        return {}
    speakers = np.array([int(clip.speaker) for clip in clips])
    folds = [np.flatnonzero(np.isin(speakers, fold)) for fold in _FOLDS]
    named = {f"fold:{number}": fold for number, fold in enumerate(folds, start=1)}
    return {"test": folds[0], "validation": folds[-1]} | named
