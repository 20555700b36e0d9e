"""Synthetic voices: a hundred speakers of eSpeak NG say words, as a training aid that can be made anywhere.

Two corpora come from here: "voices" (the ten digits) and "voices-words" (words and syllables that are no
digits, to learn and to test what should be refused). eSpeak NG comes inside the wheel `espeakng-loader`,
without which only what has been made before can be read. What a network makes of these clips says nothing
about people.
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

VERSION = "0.2.4"  # of espeakng-loader, for which the manifest was written; it holds eSpeak NG 1.52.0
MANIFEST = Path(__file__).parent / "voices.sha256"
SAMPLE_RATE = 8000
# A voice is an accent of English and, after the plus, the variant that gives the speaker. Variants that are
# robots or effects are left out. There are fewer women among them, so each woman speaks with three accents.
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
    """What one voice said once: class, voice, number of the take, and int16 [samples] at 8 kHz."""

    label: str
    voice: str
    take: int
    samples: np.ndarray


Said = tuple[np.ndarray, np.ndarray]  # by one voice: int32 lengths of its clips, and their int16 samples


class _Words(NamedTuple):
    spoken: tuple[str, ...]
    labels: tuple[str, ...]
    takes: int


# No word that sounds like a digit in some accent (won, to, for, ate, tree, free, oh). The last are no words.
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
    """What the corpus `name` depends on: its manifest, and the wheel's version where that is another one."""
    version = _installed()
    known = name, sorted(_manifest(name).items()), "" if version in (None, VERSION) else version
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def load(name: str) -> list[Clip]:
    """All clips of the corpus `name`, from the cache; made there, in about a minute, the first time.

    They are kept in one file. Of two processes at once, one waits for the other. Warns, and makes it again,
    where that file is damaged; warns where voices do not sound exactly as the manifest says, as with another
    version of eSpeak NG.

    Raises:
        ModuleNotFoundError: neither the clips nor the wheel `espeakng-loader` are there.
        OSError: eSpeak NG fails; the message names the voice.
    """
    file = cache_dir() / f"{name}-{identity(name)}.safetensors"
    with locked(file):
        said = _read(file, name)
        if said is None:
            said = make(name, VOICES)
            with atomic_write(file) as temporary:
                temporary.write_bytes(safetensors_numpy.save(_tensors(said)))
    known = _manifest(name)
    other = [voice for voice, clips in said.items() if digest(clips) != known.get(voice)]
    if other:
        warnings.warn(
            f"{name}: {len(other)} of {len(said)} voices, the first is {other[0]}, do not sound exactly as "
            f"with espeakng-loader {VERSION} (found: {_installed() or 'none'}); results may differ a little",
            stacklevel=2,
        )
    words = CORPORA[name]
    clips = []
    for voice, (lengths, samples) in said.items():
        parts = iter(np.split(samples, np.cumsum(lengths)[:-1]))
        clips += [
            Clip(label, voice.replace("+", "-"), take, next(parts))
            for label in words.labels
            for take in range(words.takes)
        ]
    return clips


def make(name: str, voices: Sequence[str] = VOICES) -> dict[str, Said]:
    """Let eSpeak NG say the corpus `name`; what each voice said, by voice.

    Clips come in the order of word and take. Speed (130 to 260 words a minute), pitch, its range, loudness
    and the silence around the word (20 to 60 ms) are drawn from the word, the voice and the take. The same
    wheel gives the same samples, whichever `voices` are made.

    Raises:
        ModuleNotFoundError: the wheel `espeakng-loader` is not there.
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
    finally:  # after a failure or Ctrl-C no other voice is begun
        pool.shutdown(cancel_futures=True)


def digest(said: Said) -> str:
    """SHA-256 of what one voice said.

    >>> digest((np.array([3]), np.array([0, 1, -1])))[:8]
    'ce5088ca'
    """
    lengths, samples = said
    return hashlib.sha256(lengths.astype("<i4").tobytes() + samples.astype("<i2").tobytes()).hexdigest()


def _speak(wanted: dict, data: Path) -> Said:
    # -P: no file of this package is to be taken for one of the standard library. The data goes by its name in
    # the working folder because eSpeak NG refuses long paths.
    program = [sys.executable, "-P", str(Path(__file__).with_name("_espeak.py").absolute())]
    question = json.dumps(wanted | {"data": data.name}).encode()
    answer = subprocess.run(program, input=question, capture_output=True, cwd=data.parent)
    if answer.returncode != 0:
        lines = answer.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        raise OSError(f"eSpeak NG failed for the voice {wanted['voice']} ({answer.returncode}): {lines[-1]}")
    stream = io.BytesIO(answer.stdout)
    return np.load(stream), np.load(stream)


def _read(file: Path, name: str) -> dict[str, Said] | None:
    """What was written to `file`, None where there is none or it is damaged."""
    if not file.is_file():
        return None
    try:
        kept = safetensors_numpy.load(file.read_bytes())
        said = {voice: (kept[f"lengths {voice}"], kept[f"samples {voice}"]) for voice in VOICES}
        if np.array_equal(_whole(said), kept["digest"]):
            return said
        reason = "its samples are not those written"
    except (SafetensorError, KeyError, OSError) as error:
        reason = str(error)
    warnings.warn(f"{file}: damaged ({reason}); the corpus {name} is made again", stacklevel=3)
    return None


def _tensors(said: dict[str, Said]) -> dict[str, np.ndarray]:
    tensors = {f"lengths {voice}": lengths for voice, (lengths, _) in said.items()}
    tensors |= {f"samples {voice}": samples for voice, (_, samples) in said.items()}
    return tensors | {"digest": _whole(said)}


def _whole(said: dict[str, Said]) -> np.ndarray:
    """SHA-256 of what all voices said, as uint8."""
    digests = "".join(map(digest, said.values()))
    return np.frombuffer(hashlib.sha256(digests.encode()).digest(), dtype=np.uint8)


def _manifest(name: str) -> dict[str, str]:
    """Digest by voice, of lines `digest  corpus/voice`."""
    lines = (line.split() for line in MANIFEST.read_text().splitlines())
    return {path.split("/")[1]: known for known, path in lines if path.split("/")[0] == name}


def _installed() -> str | None:
    try:
        return metadata.version("espeakng-loader")
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Write the manifest again, as another version of the wheel or another set of voices asks for."""
    lines = [f"{digest(said)}  {name}/{voice}\n" for name in CORPORA for voice, said in make(name).items()]
    MANIFEST.write_text("".join(lines))


if __name__ == "__main__":
    main()
