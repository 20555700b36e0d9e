"""Check the C of a network bit by bit on all targets, and measure it on a Cortex-M."""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from scnn.data import default_corpus, load_corpus, split
from scnn.deploy import compiler, cost, load_program, measure, report, second
from scnn.deploy.frontend import pcm
from scnn.experiment import PRETRAINED
from scnn.features import extract
from scnn.files import write_json
from scnn.training import READOUTS, load_network


def main() -> int:
    parser = argparse.ArgumentParser("python -m scnn.deploy", description=__doc__)
    parser.add_argument("network", nargs="?", type=Path, default=PRETRAINED, help="default: the packaged one")
    parser.add_argument("--corpus", help="default: fsdd if available, else espeak")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--readout", choices=READOUTS, help="default: the network's own")
    parser.add_argument(
        "--clips", type=int, default=30, help="recordings to run on Unicorn's Cortex-M (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("_build") / "edge.json")
    options = parser.parse_args()
    compiler.require("ziglang", "unicorn", "wasmtime")
    start = time.perf_counter()
    program = load_program(options.network, bits=options.bits, readout=options.readout)
    corpus = load_corpus(options.corpus or default_corpus("fsdd"))
    clips = [pcm(waveform) for waveform in corpus.waveforms]
    few = range(0, len(clips), max(1, len(clips) // options.clips))
    print(f"{program.architecture}, {len(clips)} recordings of {corpus.name}\n\n{program.proof()}\n")
    result: dict[str, Any] = {
        "architecture": program.architecture,
        "corpus": corpus.name,
        "different": {},
        "cores": {},
    }
    try:
        held_out = split(corpus, "official").test
        if program.front_end.constants is None and list(program.classes) == list(corpus.classes):
            images = extract(corpus, program.front_end.features).values[held_out]
            labels = corpus.labels[held_out]
            network = load_network(options.network)[0]
            result["report"] = report(program, network, images, [clips[i] for i in held_out], labels)
            print(f"integers on the official test split: {result['report']}\n")
    except ValueError as error:
        print(f"no official test split: {error}")
    outcomes = measure.expected(program, clips)
    some = [clips[i] for i in few], [outcomes[i] for i in few]
    with tempfile.TemporaryDirectory() as folder:
        for kind in (measure.Host, measure.Wasm):
            name = kind.__name__.lower()
            result["different"][name] = measure.verify(kind(program, folder), clips, outcomes)
            print(f"{name}: {result['different'][name]} of {len(clips)} recordings differ from the reference")
        for core in compiler.CORES:
            target = measure.CortexM(program, folder, core)
            result["different"][core] = measure.verify(target, *some)
            table, sizes = measure.instructions(target, some[0]), measure.sizes(target)
            result["cores"][core] = sizes | {"instructions": table["mean"].round().to_dict()}
            result["cores"][core]["word"] = cost.word(target, some[0], counted=table)._asdict()
            heard = cost.listening(program, folder, some[0][:10], core)._asdict()
            result["cores"][core]["listening"] = heard
            print(f"\n{core}: {result['different'][core]} of {len(few)} recordings differ; bytes: {sizes}")
            print(f"instructions per recording\n{table.round().astype(int)}")
            print("in a stream: " + ", ".join(f"{name} {value:,.10g}" for name, value in heard.items()))
        table, missing = second.compare(program, folder, clips, outcomes, few[::3])
    result["second"] = {name: row.dropna().to_dict() for name, row in table.iterrows()}
    result["missing"] = missing
    print(f"\nother tools; instructions include the harness's log\n{table.round().to_string(na_rep='-')}")
    if missing:
        print(f"not installed, so not compared: {', '.join(missing)}")
    wrong = sum(row.get("different", 0) + row.get("miscounted", 0) for row in result["second"].values())
    write_json(options.out, result)
    print(f"\n{options.out} written after {time.perf_counter() - start:.0f} s")
    return int(any(result["different"].values()) or wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
