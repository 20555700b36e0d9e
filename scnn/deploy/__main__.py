"""Check the C of a network bit by bit on all targets, and measure it on a Cortex-M."""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from scnn.data import available, load_corpus, split
from scnn.deploy import load_program, measure, reference
from scnn.deploy.compiler import CORES
from scnn.experiment import Experiment, run
from scnn.features import Features
from scnn.training import READOUTS

FEATURES = Features(
    kind="logmel", bands=40, height=40, width=56, frame=256, hop=128, trim_db=40.0, normalization="clip"
)
MODEL = "8C3s2p1-16C3s2p1-64FC-10FC"


def main() -> int:
    parser = argparse.ArgumentParser("python -m scnn.deploy", description=__doc__)
    parser.add_argument("network", nargs="?", type=Path, help=f"default: {MODEL}, trained on the corpus")
    parser.add_argument("--corpus", help="default: fsdd where it can be had, or else espeak")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--readout", choices=READOUTS, help="default: the network's own")
    parser.add_argument(
        "--clips", type=int, default=30, help="recordings on a Cortex-M (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("_build") / "edge.json")
    options = parser.parse_args()
    start = time.perf_counter()
    name = options.corpus or available("fsdd")
    if options.network is None:
        official = "official" if name.startswith("fsdd") else "random"
        example = Experiment(name, official, features=FEATURES, model=MODEL, num_steps=4, epochs=10)
        options.network = run(example).folder / "network.safetensors"
    program = load_program(options.network, bits=options.bits, readout=options.readout)
    corpus = load_corpus(name)
    clips = [np.rint(waveform * 32768).astype(np.int16) for waveform in corpus.waveforms]
    few = clips[:: max(1, len(clips) // options.clips)]
    print(f"{program.architecture}, {len(clips)} recordings of {corpus.name}\n\n{program.proof()}\n")
    result = {"architecture": program.architecture, "corpus": corpus.name, "different": {}, "cores": {}}
    try:
        held_out = split(corpus, "official").test
        answers = reference.recognise(program, [clips[i] for i in held_out]).answers
        result["accuracy"] = float((answers == corpus.labels[held_out]).mean())
        print(f"accuracy on the official test split: {result['accuracy']:.3f}")
    except ValueError as error:
        print(f"no official test split: {error}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in (measure.Host, measure.Wasm):
            name = kind.__name__.lower()
            result["different"][name] = measure.verify(kind(program, folder), clips)
            print(f"{name}: {result['different'][name]} of {len(clips)} recordings differ from the reference")
        for core in CORES:
            target = measure.CortexM(program, folder, core)
            result["different"][core] = measure.verify(target, few)
            table, sizes = measure.instructions(target, few), measure.sizes(target)
            result["cores"][core] = sizes | {"instructions": table["mean"].round().to_dict()}
            print(f"\n{core}: {result['different'][core]} of {len(few)} recordings differ; bytes: {sizes}")
            print(f"instructions per recording\n{table.round().astype(int)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1))
    print(f"\n{options.out} written after {time.perf_counter() - start:.0f} s")
    return int(any(result["different"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
