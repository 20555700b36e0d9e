"""A folder of recordings: which clips it holds, what their names say, its lists, and what of it is left out.

What is passed over without a word is hidden: an entry whose name begins with a dot.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from scnn.audio import ENDINGS
from scnn.text import listed, printable

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}  # as Speech Commands names them
OFFICIAL_TAKES = 5  # takes 0 to 4 are FSDD's own test split

_CLIP = re.compile(r"([^_]+)_(.+)_(\d{1,9})")  # {class}_{speaker}_{take}
_COMMAND = re.compile(r"(.+)_nohash_(\d{1,9})")  # Speech Commands: {speaker}_nohash_{take}
_META = "audioMNIST_meta.txt"
# The speakers that each fold of AudioMNIST tests on, as audiomnist/train/splits.py of its repository has them
# for digits. A fold is validated on the speakers of the one before it, and trained on the other three.
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
    """Where a clip lies and what its path says about it; sorts as a corpus does."""

    label: str
    speaker: str
    take: int
    name: str
    path: Path


@dataclass(frozen=True)
class Found:
    """What a folder of recordings holds.

    Attributes:
        lists: index sets, by name.
        left_out: what is left out of it, and why.
        source: what it is.
        note: what else whoever uses it has to know.
    """

    folder: Path
    clips: list[Clip]
    lists: dict[str, np.ndarray]
    left_out: tuple[str, ...]
    source: str
    note: str = ""


def scan(folder: Path) -> Found:
    """The clips and lists of a folder of recordings, in one of three layouts.

    - class folders: a sub-folder of recordings per class, the speaker being what stands before `_nohash_`;
    - speaker folders: a sub-folder per speaker in which every recording is named `{class}_{speaker}_{take}`,
      as AudioMNIST's (its clone, or the `data` in it), whose own folds become "fold:1" to "fold:5", of which
      the first one is also "test" and "validation";
    - recordings named `{class}_{speaker}_{take}` and no sub-folder, as FSDD's: takes 0 to 4 become "test".

    `validation_list.txt` and `testing_list.txt` in it become "validation" and "test" instead.

    Raises:
        ValueError: for a folder with fewer than two classes, a class folder without a recording, recordings
            both in folders and beside them or with other names, and for a list that cannot be read, names no
            recording, or one that another list names.
    """
    if (folder / "data" / _META).is_file():
        folder = folder / "data"
    left: list[str] = []
    loose: list[Path] = []
    inside: dict[str, list[Path]] = {}
    for entry in _visible(folder):
        if not entry.is_dir():
            _sort_in(entry, "", loose, left)
        elif entry.name.startswith("_"):
            left.append(f"{printable(entry.name)}/ (its name begins with _)")
        else:
            inside[entry.name] = []
            for each in _visible(entry):
                _sort_in(each, f"{entry.name}/", inside[entry.name], left)
    if loose and any(inside.values()):
        raise ValueError(
            f"{printable(folder)}: holds folders of recordings and also loose recordings, such as "
            f"{printable(loose[0].name)}"
        )
    by_class = not loose and not _are_speakers(inside)
    empty = [label for label, paths in inside.items() if not paths]
    note, usual = "", {}
    source = f"Recordings in the folder {printable(folder.resolve().name)}"
    if loose:
        clips = parse_names(loose)
        first = [index for index, clip in enumerate(clips) if clip.take < OFFICIAL_TAKES]
        usual = {"test": np.array(first, dtype=np.int64)}
    elif not by_class:
        clips = parse_names(path for paths in inside.values() for path in paths)
        usual = _folds(clips)
        source = _AUDIOMNIST if usual else f"{source}, a sub-folder per speaker"
        if not usual:
            note = (
                "as all its recordings are named {class}_{speaker}_{take}, its sub-folders are "
                f"taken for speakers; classes are {listed(sorted({clip.label for clip in clips}))}"
            )
    else:
        clips = sorted(
            _parse_command(path, label, number)
            for label, paths in inside.items()
            for number, path in enumerate(paths)
        )
        source += ", a sub-folder per class"
    _check_classes(folder, clips, inside, left)
    if empty and by_class:
        held = [entry for entry in left if entry.startswith(f"{printable(empty[0])}/")]
        raise ValueError(
            f"{printable(folder / empty[0])}: a class folder without a recording (such as .wav, .flac, .ogg, "
            f".mp3); let its name begin with _ to leave it out. It holds {listed(held)}"
        )
    lists = _read_lists(folder, clips, left, depth=1 if loose else 2) or usual
    left += [f"{printable(label)}/ (holds no recording)" for label in empty]
    return Found(folder, clips, lists, tuple(left), f"{source}.", note)


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _sort_in(path: Path, within: str, recordings: list[Path], left: list[str]) -> None:
    """Add a path to the recordings, or to what is left out, with the reason."""
    if path.is_dir():
        left.append(f"{printable(within + path.name)}/ (a folder in a folder of recordings)")
    elif not path.is_file():
        left.append(f"{printable(within + path.name)} (no file, or a link to none)")
    elif path.suffix.lower() in ENDINGS:
        recordings.append(path)
    elif within or path.name not in LISTS.values():
        left.append(f"{printable(within + path.name)} (not a recording by its ending)")


def _are_speakers(inside: dict[str, list[Path]]) -> bool:
    """Whether all recordings are named {class}_{speaker}_{take} in their speaker's folder, of two classes."""
    named = [(speaker, _CLIP.fullmatch(path.stem)) for speaker, paths in inside.items() for path in paths]
    said = {parts[1] for speaker, parts in named if parts is not None and parts[2] == speaker}
    return len(said) > 1 and all(parts is not None and parts[2] == speaker for speaker, parts in named)


def _check_classes(folder: Path, clips: list[Clip], inside: dict[str, list[Path]], left: list[str]) -> None:
    if len({clip.label for clip in clips}) < 2:
        found = ", ".join(f"{printable(label)}/ ({len(paths)})" for label, paths in list(inside.items())[:20])
        raise ValueError(
            f"{printable(folder)}: a corpus needs recordings (such as .wav, .flac, .ogg, .mp3) of two "
            f"classes or more, in a sub-folder each; found {0 if any(inside.values()) else len(clips)} loose "
            f"recordings, and in sub-folders: {found or 'none'}; left out {listed(left)}"
        )


def parse_names(paths: Iterable[Path]) -> list[Clip]:
    """The clips of files named `{class}_{speaker}_{take}`, sorted.

    Raises:
        ValueError: for another name.

    >>> [clip] = parse_names([Path("7_jackson_32.wav")])
    >>> clip.label, clip.speaker, clip.take
    ('7', 'jackson', 32)
    """
    return sorted(map(_parse_name, paths))


def _parse_name(path: Path) -> Clip:
    parts = _CLIP.fullmatch(path.stem)
    if parts is None:
        raise ValueError(
            f"{printable(path)}: a recording in no class folder must be named {{class}}_{{speaker}}_{{take}}"
        )
    label, speaker, stem = map(printable, (parts[1], parts[2], path.stem))
    return Clip(label, speaker, int(parts[3]), stem, path)


def _parse_command(path: Path, label: str, number: int) -> Clip:
    parts = _COMMAND.fullmatch(path.stem)
    speaker, take = (parts[1], int(parts[2])) if parts else ("unknown", number)
    return Clip(printable(label), printable(speaker), take, printable(f"{label}/{path.stem}"), path)


def _read_lists(folder: Path, clips: list[Clip], left: list[str], depth: int) -> dict[str, np.ndarray]:
    """Index sets of the list files; entries that name none of the clips are counted in `left`.

    A clip is known by the last `depth` parts of its path, whatever an entry puts before them.
    """
    index = {clip.path.parts[-depth:]: position for position, clip in enumerate(clips)}
    lists = {}
    for name, file in LISTS.items():
        if not (folder / file).is_file():
            continue
        entries = _entries(folder / file)
        found = [index.get(PurePosixPath(entry.replace("\\", "/")).parts[-depth:]) for entry in entries]
        lists[name] = np.array(sorted({position for position in found if position is not None}), np.int64)
        unknown = [entry for entry, position in zip(entries, found, strict=True) if position is None]
        count = f"{len(unknown)} of its {len(entries)} entries name no recording here"
        if unknown:
            count += f", the first is {printable(unknown[0])}"
        if not len(lists[name]):
            raise ValueError(
                f"{printable(folder / file)}: {count}; an entry is a line such as "
                f"{printable('/'.join(next(iter(index))))}"
            )
        if unknown:
            left.append(f"{file} ({count})")
    twice = sorted(set.intersection(*map(set, lists.values()))) if len(lists) == 2 else []
    if twice:
        names = [clips[index].name for index in twice]
        raise ValueError(f"{printable(folder)}: in both {' and '.join(LISTS.values())} are {listed(names)}")
    return lists


def _entries(file: Path) -> list[str]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{printable(file)}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{printable(file)}: not UTF-8, as UTF-16 has it; save it as UTF-8")
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def _folds(clips: list[Clip]) -> dict[str, np.ndarray]:
    """The folds of AudioMNIST where these are its clips."""
    everyone = {f"{number:02}" for fold in _FOLDS for number in fold}
    if {clip.speaker for clip in clips} != everyone or {clip.label for clip in clips} != set("0123456789"):
        return {}
    speakers = np.array([int(clip.speaker) for clip in clips])
    folds = [np.flatnonzero(np.isin(speakers, fold)) for fold in _FOLDS]
    named = {f"fold:{number}": fold for number, fold in enumerate(folds, start=1)}
    return {"test": folds[0], "validation": folds[-1]} | named
