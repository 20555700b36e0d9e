"""Synthetic voices: about a hundred eSpeak NG speakers say words, as a training aid that anyone can generate.

This module makes two corpora: "voices" (the ten digits) and "voices-words" (words and syllables other than
digits, to train and test refusal). eSpeak NG comes with the wheel `espeakng-loader`; without it, only corpora
in the cache can be read. Results on these clips say nothing about people.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy
from tqdm import tqdm

from scnn.files import atomic_write, cache_dir, locked

VERSION = "0.2.4"  # version of espeakng-loader behind the manifest; it contains eSpeak NG 1.52.0
MANIFEST = Path(__file__).parent / "voices.sha256"
SAMPLE_RATE = 8000
# A voice is an accent of English, a plus sign, and the variant that gives the speaker. Variants that are
# robots or effects are left out. As there are fewer women, each woman speaks with three accents.
_ACCENTS = (
    "en-us",
    "en",
    "en-029",
    "en-gb-x-rp",
    "en-us-nyc",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
)
WOMEN = "f1 f2 f3 f4 f5 Alicia Andrea Annie anika aunty belinda grandma steph steph2 steph3 zac".split()
_MEN = """
    m1 m2 m3 m4 m5 m6 m7 m8 klatt klatt2 klatt3 klatt4 klatt5 klatt6 croak Alex Andy Denis Diogo Gene Gene2
    Henrique Hugo Jacky Lee Mario Michael Mike Nguyen Reed Storm adam antonio benjamin boris david ed edward
    edward2 grandpa gustave ian iven3 iven4 john marcelo max michel mike2 norbert pablo paul quincy rob sandro
    shelby victor
    """.split()
_WHISPERS = ("en-us+whisper", "en-us+whisperf", "en-gb-x-rp+whisperf")
VOICES = (
    *(f"{_ACCENTS[(n + 3 * k) % 8]}+{name}" for n, name in enumerate(WOMEN) for k in range(3)),
    *(f"{_ACCENTS[n % 8 if n % 2 else 0]}+{name}" for n, name in enumerate(_MEN)),
    *_WHISPERS,
)


class Clip(NamedTuple):
    """One clip: class, voice, number of the take, and int16 [samples] at 8 kHz."""

    label: str
    voice: str
    take: int
    samples: np.ndarray


VoiceClips = tuple[np.ndarray, np.ndarray]  # of one voice: int32 lengths, and int16 samples in sequence


class _Words(NamedTuple):
    spoken: tuple[str, ...]
    labels: tuple[str, ...]
    takes: int


# Words that sound like a digit in some accent are avoided (won, to, for, ate, tree, free, oh). The last line
# has nonsense syllables.
_OTHERS = tuple(
    """
    yes no up down left right on off stop go start bed bird cat dog house happy wow learn follow visual
    backward forward ten hundred hello good morning water music light door window table green yellow orange
    monday people mother brother computer money paper garden question answer please thanks because always
    never maybe under
    bah doo gah kee lah moo pah rah shoo voo zaggle tiboo
    """.split()
)
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CORPORA = {
    "voices": _Words(_DIGITS, tuple("0123456789"), takes=5),
    "voices-words": _Words(_OTHERS, _OTHERS, takes=1),
}


def identity(name: str) -> str:
    """A digest of what the corpus `name` depends on: its manifest, and the wheel's version if it differs."""
    version = _installed()
    known = name, sorted(_manifest(name).items()), "" if version in (None, VERSION) else version
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def load(name: str) -> list[Clip]:
    """All clips of the corpus `name`, from the cache; the first call makes them, in about a minute.

    They are stored in one file. If two processes call this at once, one waits for the other. If the file is
    damaged, it is made again, with a warning. Another warning says if voices differ from the manifest, as
    with another version of eSpeak NG.

    Raises:
        ModuleNotFoundError: neither the clips nor the wheel `espeakng-loader` is available.
        OSError: eSpeak NG fails; the message names the voice.
    """
    file = cache_dir() / f"{name}-{identity(name)}.safetensors"
    with locked(file):
        by_voice = _read(file, name)
        if by_voice is None:
            by_voice = make(name, VOICES)
            with atomic_write(file) as temporary:
                temporary.write_bytes(safetensors_numpy.save(_tensors(by_voice)))
    known = _manifest(name)
    different = [voice for voice, clips in by_voice.items() if digest(clips) != known.get(voice)]
    if different:
        warnings.warn(
            f"{name}: {len(different)} of {len(by_voice)} voices, the first is {different[0]}, differ from "
            f"those of espeakng-loader {VERSION} (found: {_installed() or 'none'}); results may differ",
            stacklevel=2,
        )
    words = CORPORA[name]
    clips = []
    for voice, (lengths, samples) in by_voice.items():
        parts = iter(np.split(samples, np.cumsum(lengths)[:-1]))
        clips += [
            Clip(label, voice.replace("+", "-"), take, next(parts))
            for label in words.labels
            for take in range(words.takes)
        ]
    return clips


def make(name: str, voices: Sequence[str] = VOICES) -> dict[str, VoiceClips]:
    """Synthesise the corpus `name` with eSpeak NG; the clips of each voice, by voice.

    Clips are ordered by word and take. Speed (130 to 260 words per minute), pitch, pitch range, loudness and
    the silence around the word (20 to 60 ms) are drawn with word, voice and take as the seed. The same wheel
    gives the same samples, whichever `voices` are made.

    Raises:
        ModuleNotFoundError: the wheel `espeakng-loader` is not installed.
        OSError: eSpeak NG fails; the message names the voice.
    """
    try:
        import espeakng_loader
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the corpus {name} is made with eSpeak NG, and {error.name} is missing: "
            "pip install 'scnn-audio[voices]'",
            name=error.name,
        ) from error
    words = CORPORA[name]
    wanted = {
        "library": espeakng_loader.get_library_path(),
        "words": words.spoken,
        "takes": words.takes,
    }
    data = Path(espeakng_loader.get_data_path())
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        answers = pool.map(lambda voice: _speak(wanted | {"voice": voice}, data), voices)
        answers = tqdm(answers, name, total=len(voices), unit="voice", disable=None)
        return dict(zip(voices, answers, strict=True))
    finally:  # after a failure or Ctrl-C, start no other voice
        pool.shutdown(cancel_futures=True)


def digest(clips: VoiceClips) -> str:
    """SHA-256 of the clips of one voice.

    >>> digest((np.array([3]), np.array([0, 1, -1])))[:8]
    'ce5088ca'
    """
    lengths, samples = clips
    return hashlib.sha256(lengths.astype("<i4").tobytes() + samples.astype("<i2").tobytes()).hexdigest()


def _speak(wanted: dict, data: Path) -> VoiceClips:
    # -P: modules of this package must not shadow the standard library. The data folder is given relative to
    # the working folder because eSpeak NG refuses long paths.
    program = [sys.executable, "-P", str(Path(__file__).with_name("_espeak.py").absolute())]
    request = json.dumps(wanted | {"data": data.name}).encode()
    answer = subprocess.run(program, input=request, capture_output=True, cwd=data.parent)
    if answer.returncode != 0:
        lines = answer.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        raise OSError(f"eSpeak NG failed for the voice {wanted['voice']} ({answer.returncode}): {lines[-1]}")
    stream = io.BytesIO(answer.stdout)
    return np.load(stream), np.load(stream)


def _read(file: Path, name: str) -> dict[str, VoiceClips] | None:
    """The clips stored in `file`, or None if it is missing or (with a warning) damaged."""
    if not file.is_file():
        return None
    try:
        kept = safetensors_numpy.load(file.read_bytes())
        by_voice = {voice: (kept[f"lengths {voice}"], kept[f"samples {voice}"]) for voice in VOICES}
        if np.array_equal(_whole(by_voice), kept["digest"]):
            return by_voice
        reason = "the checksum differs"
    except (SafetensorError, KeyError, OSError) as error:
        reason = str(error)
    warnings.warn(f"{file}: damaged ({reason}); the corpus {name} is made again", stacklevel=3)
    return None


def _tensors(by_voice: dict[str, VoiceClips]) -> dict[str, np.ndarray]:
    tensors = {f"lengths {voice}": lengths for voice, (lengths, _) in by_voice.items()}
    tensors |= {f"samples {voice}": samples for voice, (_, samples) in by_voice.items()}
    return tensors | {"digest": _whole(by_voice)}


def _whole(by_voice: dict[str, VoiceClips]) -> np.ndarray:
    """SHA-256 of the clips of all voices, as uint8."""
    digests = "".join(map(digest, by_voice.values()))
    return np.frombuffer(hashlib.sha256(digests.encode()).digest(), dtype=np.uint8)


def _manifest(name: str) -> dict[str, str]:
    """The digest of each voice, from lines `digest  corpus/voice`."""
    lines = (line.split() for line in MANIFEST.read_text().splitlines())
    return {path.split("/")[1]: known for known, path in lines if path.split("/")[0] == name}


def _installed() -> str | None:
    try:
        return metadata.version("espeakng-loader")
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Rewrite the manifest, which another version of the wheel or another set of voices requires."""
    lines = [f"{digest(clips)}  {name}/{voice}\n" for name in CORPORA for voice, clips in make(name).items()]
    MANIFEST.write_text("".join(lines))


if __name__ == "__main__":
    main()
