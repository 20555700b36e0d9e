"""Make the packaged corpus "espeak" again: ten digits, twelve voices, ten takes each, from eSpeak NG::

    python scnn/espeak/make.py [FOLDER]

writes FOLDER/{digit}_{voice}_{take}.flac (8 kHz, mono, 11 of 16 bits used) and FOLDER/manifest.sha256;
without FOLDER, where the script itself lies. The same version of eSpeak NG gives the same samples every time.
It needs `espeak-ng` on the path (Debian and Ubuntu: `apt install espeak-ng`).
"""

import hashlib
import io
import random
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import soundfile
from tqdm import tqdm

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# An accent of English and, after the plus, the variant that gives the speaker: male, female, croak, whisper.
VOICES = (
    "en-029+f1",
    "en-gb+f3",
    "en-gb+m1",
    "en-gb+whisper",
    "en-gb-scotland+m5",
    "en-gb-x-gbclan+m6",
    "en-gb-x-rp+f5",
    "en-us+croak",
    "en-us+f2",
    "en-us+m3",
    "en-us-nyc+f4",
    "en-us-nyc+m7",
)
TAKES = 10
SAMPLE_RATE = 8000
# Steps of 32/32768: FLAC does not store the five bits that are then always zero, which halves the corpus.
LEVELS = 1024


def speak(digit: int, voice: str, take: int) -> np.ndarray:
    """Let eSpeak NG say one digit; speed, pitch and loudness are drawn from the digit, voice and take.

    Returns:
        float32 [samples] at 8 kHz, rounded to steps of 1/1024, silence at both ends cut to 20 ms.
    """
    draw = random.Random(f"{digit} {voice} {take}")
    # Words per minute, pitch (0 to 99, 50 is the voice's own) and amplitude (0 to 200, 100 is its own).
    speed, pitch, amplitude = draw.randint(150, 240), draw.randint(30, 70), draw.randint(30, 110)
    options = ["-v", voice, "-s", str(speed), "-p", str(pitch), "-a", str(amplitude)]
    said = subprocess.run(["espeak-ng", *options, "--stdout", WORDS[digit]], check=True, capture_output=True)
    # The header of a streamed WAV states no length: what follows its 44 bytes is the 22,050 Hz signal.
    samples = np.frombuffer(said.stdout[44:], dtype="<i2").astype(np.float32) / 32768
    samples = librosa.resample(samples, orig_sr=22050, target_sr=SAMPLE_RATE)
    samples = np.round(samples * LEVELS) / LEVELS
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    margin = SAMPLE_RATE // 50
    return samples[max(loud[0] - margin, 0) : loud[-1] + margin]


def make(folder: Path, voices: tuple[str, ...] = VOICES, takes: int = TAKES) -> None:
    """Write the corpus and its manifest (the format of `sha256sum`) to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = [(digit, voice, take) for digit in range(10) for voice in voices for take in range(takes)]
    lines = []
    for digit, voice, take in tqdm(clips, unit="clip", disable=None):
        name = f"{digit}_{voice.replace('+', '-')}_{take}.flac"
        stored = io.BytesIO()
        soundfile.write(
            stored, speak(digit, voice, take), SAMPLE_RATE, "PCM_16", format="FLAC", compression_level=1
        )
        (folder / name).write_bytes(stored.getvalue())
        lines.append(f"{hashlib.sha256(stored.getvalue()).hexdigest()}  {name}\n")
    (folder / "manifest.sha256").write_text("".join(lines))


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
