"""The live page of a network: it answers spoken words in the browser, and shows every layer's spikes.

The page's sources are the modules in `page/`. Browsers refuse to load modules from a page opened without a
server, so `write` bundles them into one plain script. Two more scripts contain the network (its WebAssembly
in base64, and its description) and recordings to try::

    python -m scnn.deploy.live        writes the book's page to book/_static/live, from FSDD
"""

import argparse
import base64
import html
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scnn import listen
from scnn.data import load_corpus
from scnn.deploy import load_program, measure
from scnn.deploy.compiler import wasm
from scnn.deploy.emit import GATE, SOURCES
from scnn.deploy.frontend import pcm
from scnn.deploy.quantize import Program, most_steps
from scnn.experiment import PRETRAINED
from scnn.files import write_together
from scnn.metrics import layer_costs
from scnn.training import load_network

PAGE = Path(__file__).parent / "page"
MODULES = (SOURCES / "scnn.mjs", PAGE / "gate.mjs", PAGE / "network.mjs", PAGE / "live.mjs")
_GATE = f"{GATE} frames highpass coefficient quiet lowest longest"
FSDD = (
    "Recordings: Free Spoken Digit Dataset, by Zohar Jackson and others (doi:10.5281/zenodo.1342401), "
    "CC BY-SA 4.0. The network was trained on other takes by these six speakers. The noise is synthetic."
)


class Sample(NamedTuple):
    """A recording to try: the text of its button, its class (None if it is not a word), int16 [samples]."""

    title: str
    label: str | None
    pcm: np.ndarray


def about(network: Path | str, clips: Sequence[np.ndarray] = ()) -> dict[str, Any]:
    """Everything the page needs to know about a network, including its WebAssembly.

    Args:
        network: the file.
        clips: int16 [samples] each; if given, the result includes the average number of instructions that
            they take on a Cortex-M4.

    Raises:
        FileNotFoundError: as `load_program`.
        ValueError: as `load_program`, or the network is not a spiking one with a membrane read-out.
    """
    loaded, description = load_network(network)
    program = load_program(network)
    if not program.spiking or program.readout != "membrane":
        raise ValueError(
            f"{network}: the live page needs a spiking network with readout 'membrane', not "
            f"{'a ReLU network' if not program.spiking else repr(program.readout)}"
        )
    f = program.front_end.features
    return {
        "architecture": program.architecture,
        "classes": program.classes,
        "rate": program.front_end.sample_rate,
        "steps": program.steps,
        "most_steps": most_steps(program),
        "unit": float(program.layers[-1].scale.max()),
        "refuse": description["experiment"].get("refuse", 0.0),
        "instructions": _instructions(program, clips) if len(clips) else None,
        "image": {"height": f.height, "width": f.width},
        "layers": [
            {
                "name": layer.name,
                "kernel": layer.notation.kernel,
                "stride": layer.notation.stride,
                "padding": layer.notation.padding,
                "units": layer.notation.units,
                "before": layer.before,
                "shape": layer.shape,
                "macs": int(macs),
            }
            for layer, macs in zip(program.layers, layer_costs(loaded)["macs"], strict=True)
        ],
        "gate": {name: getattr(listen, name.upper()) for name in _GATE.split()},
        "wasm": base64.b64encode(wasm(program)).decode(),
    }


def _instructions(program: Program, clips: Sequence[np.ndarray]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        table = measure.instructions(measure.CortexM(program, folder), clips)
    return round(table.loc["sum", "mean"])


def bundle() -> str:
    """The page's modules as one plain script, in the order of `MODULES` and in one scope."""
    text = "\n".join(path.read_text() for path in MODULES)
    text = re.sub(r"^import .*;\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^export (?=(async )?(function|class|const)\b)", "", text, flags=re.MULTILINE)
    return f"// Written by scnn.deploy.live from the modules of scnn/deploy/page.\n(() => {{\n{text}}})();\n"


def write(network: Path | str, folder: Path | str, samples: Sequence[Sample], source: str = "") -> list[Path]:
    """Write the scripts and the style sheet of a live page to `folder`, and return their paths.

    The folder is created if necessary.

    Args:
        samples: recordings to try.
        source: the credit line below their buttons.

    Raises:
        FileNotFoundError: as `about`.
        ValueError: as `about`.
    """
    description = about(network, [sample.pcm for sample in samples])
    clips = [
        {"title": title, "label": label, "samples": base64.b64encode(audio.astype("<i2").tobytes()).decode()}
        for title, label, audio in samples
    ]
    recordings = {"source": source, "samples": clips}
    files = {
        "live.css": (PAGE / "live.css").read_text(),
        "live.js": bundle(),
        "network.js": f"globalThis.scnnNetwork = {json.dumps(description, indent=1)};\n",
        "samples.js": f"globalThis.scnnSamples = {json.dumps(recordings, indent=1)};\n",
    }
    return write_together(Path(folder), {name: text.encode() for name, text in files.items()})


def write_page(folder: Path | str, title: str, introduction: str) -> Path:
    """Write `index.html` next to the files from `write`; the page opens without a server."""
    text = (PAGE / "index.html").read_text()
    text = text.replace("@TITLE@", html.escape(title)).replace("@INTRODUCTION@", html.escape(introduction))
    return write_together(Path(folder), {"index.html": text.encode()})[0]


def digits() -> list[Sample]:
    """Take 0 of each digit in FSDD, a test recording, by the speakers in turn; and half a second of noise."""
    corpus = load_corpus("fsdd")
    speakers = sorted(set(corpus.speakers.tolist()))
    samples = []
    for digit, name in enumerate(corpus.classes):
        speaker = speakers[digit % len(speakers)]
        chosen = (corpus.labels == digit) & (corpus.speakers == speaker) & (corpus.takes == 0)
        clip = int(np.flatnonzero(chosen)[0])
        samples.append(Sample(f"{name} ({speaker})", name, pcm(corpus.waveforms[clip])))
    noise = np.random.default_rng(0).normal(0, 2000, 4000).astype(np.int16)
    return [*samples, Sample("noise", None, noise)]


def main() -> int:
    parser = argparse.ArgumentParser("python -m scnn.deploy.live", description="Write the book's live page.")
    parser.add_argument("network", nargs="?", type=Path, default=PRETRAINED)
    parser.add_argument("--out", type=Path, default=Path("book") / "_static" / "live")
    options = parser.parse_args()
    for path in write(options.network, options.out, digits(), FSDD):
        print(f"{path}  {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
