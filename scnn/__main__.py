"""The command line: `scnn data`, `train`, `predict`, `listen`, `enrol`, `export`, `record`, `keywords`."""

import argparse
import dataclasses
import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from scnn import __version__
from scnn._terminal import plain, until_closed
from scnn.augment import Augmentation
from scnn.data import CORPORA, load_corpus, read_audio
from scnn.enrol import described, enrol, labels_of
from scnn.experiment import PRESETS, PRETRAINED, Experiment, run
from scnn.features import Features, extract, image, normalize
from scnn.files import atomic_write
from scnn.listen import Gate, Segment, microphone
from scnn.models import ZOO, Network
from scnn.quantization import RECIPES
from scnn.text import listed
from scnn.training import READOUTS, answer, load_network, predict, save_network, scores

EXPORTS = ("c", "wasm", "nir")
_HELP = {
    "corpus": f"{', '.join(CORPORA)}, or a folder with a sub-folder of recordings per class",
    "split": "random, official (the corpus' own), fold:K (one of its folds), or speaker:NAME (leave one out)",
    "test": "share of recordings held out for testing",
    "validation": "share of recordings held out for validation",
    "model": f"{', '.join(ZOO)}, or a notation such as 6C3-P2-128FC-10FC",
    "precision": f"of weights and membranes: {', '.join(RECIPES)}",
    "pretrained": "first train the same network at fp32, and start from its weights",
    "num_steps": "time steps T",
    "beta": "leak of the membrane, 0 to 1",
    "threshold": "membrane potential above which a neuron spikes",
    "reset": "subtract, zero or none",
    "slope": "steepness of the surrogate gradient",
    "epochs": "passes over the training recordings",
    "batch_size": "recordings per training step",
    "learning_rate": "Adam's step size",
    "schedule": "of the learning rate: constant, cosine or onecycle",
    "seed": "of the split, the initial weights and the order of the recordings",
    "spiking": "yes, or no for the ReLU network of the same notation; the default depends on the model",
    "batch_norm": "use batch normalisation in training; it is folded into the saved network",
    "weight_decay": "AdamW's weight decay",
    "dropout": "share of the last layer's inputs that are zeroed in training",
    "voices": "an additional corpus to train on, such as voices",
    "augmentation": "change the training recordings: other voices, rooms and microphones",
    "teacher": "notation of a ReLU network that is trained first; its answers are learnt, too",
    "others": "a corpus of other words, for which no class should be likely, such as voices-words",
    "from_twin": "first train the ReLU network of the same notation, and start from its weights",
    "tune_epochs": "epochs of a training that starts from other weights; 0: as many as epochs",
    "readout": "how the answer is read: spikes or membrane",
    "frozen": "number of first layers whose weights stay fixed",
    "spike_penalty": "weight of a spiking network's additions in the loss",
    "refuse": "confidence below which predict and listen answer that they are not sure",
    "kind": "mfcc, logmel or energy",
    "bands": "number of coefficients, mel bands or filters",
    "hop": "samples between frames",
    "frame": "samples per frame; by default 2048, and 256 for energy",
    "trim_db": "trim both ends where they are this many dB below the loudest frame; none trims nothing",
    "height": "rows of the image",
    "width": "columns of the image",
    "normalization": "none, clip, band, peak or train",
    "preemphasis": "share of the previous sample that is subtracted from each sample",
    "trim_frame": "samples per frame for trimming",
    "crop": "frames to keep of a long recording: middle or loudest",
    "range_db": "dynamic range of the normalisation peak, in dB",
    "equalize": "share of the differences between bands that is removed before peak",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Returns:
        0 for success, 1 if an input cannot be used, 130 after Ctrl-C, 141 if the reader of the output has
        gone. Wrong usage exits with 2.
    """
    return until_closed(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.call(options)
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ModuleNotFoundError) as error:  # ModuleNotFoundError: a missing extra
        print(f"scnn: {plain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scnn: interrupted; the same command resumes after the last finished epoch", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("scnn", description="Spiking convolutional networks for spoken digits.")
    parser.add_argument("--version", action="version", version=f"scnn {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    text = "Describe a corpus. The Free Spoken Digit Dataset is downloaded and verified if it is missing."
    data = commands.add_parser("data", help="describe or fetch a corpus", description=text)
    data.add_argument("corpus", nargs="?", default="fsdd", help=_HELP["corpus"] + " (default: %(default)s)")
    data.add_argument("--json", action="store_true", help="print one line of JSON")
    data.set_defaults(call=_data)

    text = """Train one network and print its results on the held-out recordings. The result is stored, and
    the same command reads it the next time. An interrupted training resumes after the last finished epoch."""
    train = commands.add_parser("train", help="train a network", description=text)
    train.add_argument(
        "--preset",
        choices=PRESETS,
        default="paper",
        help="defaults for the other options: paper (Model B), or robust (the packaged network, which "
        "understands people it was not trained on; 20 minutes)",
    )
    groups = train.add_argument_group("experiment"), train.add_argument_group("features")
    for group, kind in zip(groups, (Experiment, Features), strict=True):
        for field in dataclasses.fields(kind):
            if field.name != "features":
                option = f"--{field.name.replace('_', '-')}"
                if field.type is bool or field.name == "augmentation":
                    const = Augmentation() if field.name == "augmentation" else True
                    group.add_argument(option, action="store_const", const=const, help=_HELP[field.name])
                    continue
                text = _HELP[field.name] + ("" if field.default is None else f" (paper: {field.default})")
                group.add_argument(option, type=_reader(field), metavar=_metavar(field), help=text)
    train.add_argument(
        "--save", metavar="FILE", type=Path, help="copy the trained network to this file, for predict"
    )
    train.add_argument("--json", action="store_true", help="print one line of JSON")
    train.set_defaults(call=_train)

    text = """Which digit is spoken in each recording? Prints the digit (or "not sure" and the likeliest one),
    the network's confidence (the softmax of the output membranes, averaged over time), and the spike count
    of each output neuron."""
    predict = commands.add_parser("predict", help="recognise the digit in recordings", description=text)
    predict.add_argument(
        "files", nargs="+", metavar="FILE", type=Path, help="WAV, FLAC, Ogg, MP3, AIFF and others, any rate"
    )
    predict.add_argument("--json", action="store_true", help="print one line of JSON per recording")
    predict.set_defaults(call=_predict)

    text = """Which digits are spoken, one after another? Listens to the microphone until Ctrl-C. Prints a
    line for each word: its start (in seconds), the digit and the confidence. Pause between words."""
    listen = commands.add_parser("listen", help="recognise digits from the microphone", description=text)
    source = listen.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, metavar="FILE", help="listen to this recording instead")
    source.add_argument(
        "--device",
        metavar="NAME",
        help="a microphone's number or part of its name, as `python -m sounddevice` lists them",
    )
    listen.add_argument(
        "--integers", action="store_true", help="compute with integers, bit for bit like the exported C"
    )
    listen.add_argument("--json", action="store_true", help="print one line of JSON per word")
    listen.set_defaults(call=_listen)
    text = """Learn a new voice from one to five recordings of each word. Only the last layer is trained,
    which takes seconds. Words without a recording stay as they were."""
    learn = commands.add_parser("enrol", help="learn a new voice from a few recordings", description=text)
    learn.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="recordings of each word, in any layout that train --corpus reads",
    )
    learn.add_argument(
        "--save", metavar="FILE", type=Path, required=True, help="write the adapted network to this file"
    )
    learn.add_argument("--json", action="store_true", help="print one line of JSON")
    learn.set_defaults(call=_enrol)
    for command in (predict, listen, learn):
        command.add_argument(
            "--network",
            type=Path,
            default=PRETRAINED,
            metavar="FILE",
            help="a file written by train --save (default: the packaged one, trained on FSDD)",
        )

    text = """Convert a network to integer arithmetic, from int16 samples to the digit, and write it as C99
    without libraries, or as WebAssembly with a JavaScript module. With --to nir the network stays as trained
    and is written as a NIR graph for other simulators and neuromorphic chips; this needs a network without
    pooling that was trained with --reset zero or none. WebAssembly and NIR need the extra `edge`."""
    export = commands.add_parser("export", help="write a network for a device or a page", description=text)
    export.add_argument(
        "network",
        type=Path,
        nargs="?",
        default=PRETRAINED,
        metavar="NETWORK",
        help="a file written by train --save (default: the packaged one)",
    )
    export.add_argument("--to", choices=EXPORTS, default="c", help="what to write (default: %(default)s)")
    export.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write into, or a file *.nir"
    )
    export.add_argument(
        "--bits", type=int, metavar="N", help="bits per weight: 8 (default), 4, 2; not for nir"
    )
    export.add_argument(
        "--readout", choices=READOUTS, help="how the answer is read (default: as the network was trained)"
    )
    export.set_defaults(call=_export)

    text = """Record your own words, each several times, into a folder that `scnn keywords` can learn from.
    You can stop with Ctrl-C and continue later with the same command."""
    record = commands.add_parser("record", help="record your own words", description=text)
    record.add_argument("words", nargs="+", metavar="WORD", help="two or more, such as: lamp music stop")
    record.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to record into")
    record.add_argument("--takes", type=int, default=10, metavar="N", help="takes of each word (default: 10)")
    record.add_argument("--speaker", default="me", metavar="NAME", help="who speaks (default: %(default)s)")
    record.add_argument("--device", metavar="NAME", help="a microphone's number or part of its name")
    record.set_defaults(call=_record)

    text = """Learn the words in a folder of recordings, and write a network, its C, its WebAssembly and a
    page that answers in a browser. A speaker, or some takes, are held out for testing; the command prints
    which. The network answers "not sure" to other words and to noise (needs the extras `edge` and
    `voices`)."""
    keywords = commands.add_parser("keywords", help="learn your own words", description=text)
    keywords.add_argument(
        "folder", type=Path, metavar="FOLDER", help="written by record, or in any layout that train reads"
    )
    keywords.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    keywords.add_argument("--epochs", type=int, default=30, metavar="N", help=_HELP["epochs"])
    keywords.add_argument("--copies", type=int, default=6, metavar="N", help="changed copies per recording")
    keywords.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random")
    keywords.set_defaults(call=_keywords)
    return parser


def _metavar(field: dataclasses.Field) -> str:
    kinds: dict[Any, str] = {int: "N", float: "X"}
    return {"trim_db": "X", "frame": "N"}.get(field.name, kinds.get(field.type, "NAME"))


def _reader(field: dataclasses.Field):
    if field.name == "spiking":
        return _yes_or_no
    if field.name == "trim_db":
        return lambda text: None if text.lower() == "none" else float(text)
    return int if field.name == "frame" else field.type


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; valid: yes, no")
    return text == "yes"


def _data(options: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* left out ")  # reported below
        corpus = load_corpus(options.corpus)
    seconds = [len(waveform) / corpus.sample_rate for waveform in corpus.waveforms]
    about = {
        "corpus": corpus.name,
        "source": corpus.source,
        "recordings": len(corpus),
        "classes": list(corpus.classes),
        "speakers": np.unique(corpus.speakers).tolist(),
        "sample_rate_hz": corpus.sample_rate,
        "seconds_median": round(float(np.median(seconds)), 3),
        "seconds_longest": round(max(seconds), 3),
        "left_out": list(corpus.left_out) if options.json else listed(corpus.left_out, 20),
    }
    _print(about, options.json)
    return 0


def _train(options: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(options).items() if name in _HELP and value is not None}
    names = {field.name for field in dataclasses.fields(Features)}
    base = PRESETS[options.preset]
    features = replace(base.features, **{name: value for name, value in given.items() if name in names})
    others = {name: value for name, value in given.items() if name not in names}
    experiment = replace(base, features=features, **others)
    record = run(experiment)
    if options.save is not None:
        with atomic_write(options.save) as file:
            shutil.copyfile(record.folder / "network.safetensors", file)
    _print(record.metrics | {"seconds": record.made["seconds"], "record": str(record.folder)}, options.json)
    return 0


def _predict(options: argparse.Namespace) -> int:
    network, about = load_network(options.network)
    failed = 0
    for file in options.files:
        try:
            result = recognise(file, network, about)
        except (ValueError, OSError) as error:
            print(f"scnn: {plain(error)}", file=sys.stderr)
            failed = 1
            continue
        if options.json:
            print(json.dumps(result))
        else:
            spikes = " ".join(f"{name}:{count}" for name, count in result["spikes"].items())
            print(plain(f"{file}  {_answer(result)}  spikes {spikes}"))
    return failed


def _export(options: argparse.Namespace) -> int:
    from scnn.deploy import compiler, load_program

    if options.to == "nir":
        written = _export_nir(options)
    else:
        program = load_program(options.network, bits=options.bits, readout=options.readout)
        write = compiler.export_c if options.to == "c" else compiler.export_wasm
        written = write(program, options.out)
    for path in written:
        print(plain(f"{path}  {path.stat().st_size:,} bytes"))
    return 0


def _export_nir(options: argparse.Namespace) -> list[Path]:
    from scnn.deploy import compiler

    compiler.require("nir")
    from scnn.deploy import nir

    if options.bits is not None:
        raise ValueError(
            "--bits: NIR keeps the weights as trained; to round them, train with --precision int8-weights"
        )
    network, about = load_network(options.network)
    nir.check(network)
    if (options.readout or _readout(about)) != "spikes":
        raise ValueError(
            "NIR gives spikes, not membranes, and this network is read out by membrane; use --readout spikes "
            "to count its spikes instead"
        )
    path = options.out if options.out.suffix == ".nir" else options.out / "network.nir"
    nir.write(network, path, about)
    return [path]


def _enrol(options: argparse.Namespace) -> int:
    network, about = load_network(options.network)
    made = _made(about)
    corpus = load_corpus(options.folder, sample_rate=made.rate)
    labels = labels_of(corpus, made.classes)
    images = extract(corpus, made.features, cache=False)
    if made.constants is not None:
        images = normalize(images, *made.constants)
    learnt, readout = enrol(network, images.values, labels), _readout(about)
    save_network(learnt, options.save, described(about, corpus))
    right = [(predict(one, images.values, readout) == labels).sum().item() for one in (network, learnt)]
    missing = [word for word in made.classes if word not in corpus.classes]
    result: dict[str, Any] = {"recordings": len(corpus), "right_before": right[0], "right_now": right[1]}
    result["not_learnt"] = missing if options.json else ", ".join(missing) or "none"
    _print(result | {"network": str(options.save)}, options.json)
    return 0


def _listen(options: argparse.Namespace) -> int:
    rate, feed, flush = (_listener_in_integers if options.integers else _listener)(options.network)
    count = 0

    def show(words: list[dict[str, Any]]) -> None:
        nonlocal count
        for word in words:
            count += 1
            if options.json:
                print(json.dumps(word), flush=True)
            else:
                print(plain(f"{word['start']:7.2f} s  {_answer(word)}"), flush=True)

    try:
        if options.file is not None:
            samples = read_audio(options.file, rate, max_seconds=math.inf)
            for begin in range(0, len(samples), rate):
                show(feed(samples[begin : begin + rate]))
        else:
            with microphone(rate, _device(options)) as blocks:
                print("Listening; press Ctrl-C to stop.", file=sys.stderr)
                for block in blocks:
                    show(feed(block))
    except KeyboardInterrupt:  # the normal way to stop
        pass
    show(flush())
    if options.file is not None and not count:
        print(plain(f"scnn: {options.file}: no word is louder than the background"), file=sys.stderr)
    return 0


class _Listener(NamedTuple):
    """Recognises words in a stream at `rate` Hz, with `feed` and `flush` as in `Gate`."""

    rate: int
    feed: Callable[[np.ndarray], list[dict[str, Any]]]
    flush: Callable[[], list[dict[str, Any]]]


def _listener(file: Path) -> _Listener:
    network, about = load_network(file)
    gate = Gate(_made(about).rate)

    def hear_all(segments: list[Segment]) -> list[dict[str, Any]]:
        return [{"start": round(start, 2)} | hear(samples, network, about) for start, samples in segments]

    return _Listener(
        gate.sample_rate, lambda samples: hear_all(gate.feed(samples)), lambda: hear_all(gate.flush())
    )


def _listener_in_integers(file: Path) -> _Listener:
    from scnn.deploy import load_program
    from scnn.deploy.stream import CONFIDENCE, Stream, Word

    program = load_program(file)
    rate, stream = program.front_end.sample_rate, Stream(program)

    def describe(words: list[Word]) -> list[dict[str, Any]]:
        return [
            {
                "start": round(word.start / rate, 2),
                "digit": program.classes[word.answer],
                "confidence": round(word.confidence / CONFIDENCE, 4),
                "sure": word.sure,
            }
            for word in words
        ]

    return _Listener(rate, lambda samples: describe(stream.feed(samples)), lambda: describe(stream.flush()))


def _device(options: argparse.Namespace) -> int | str | None:
    is_number = options.device is not None and options.device.isdigit()
    return int(options.device) if is_number else options.device


def _record(options: argparse.Namespace) -> int:
    from scnn import keywords

    def prompt(line: str) -> None:
        print(plain(line), flush=True)

    settings = {"takes": options.takes, "speaker": options.speaker, "prompt": prompt}
    try:
        with microphone(keywords.RATE, _device(options)) as blocks:
            written = keywords.record(options.words, options.out, blocks, **settings)
    except KeyboardInterrupt:
        print("scnn: stopped; finished takes are kept, the same command asks for the rest", file=sys.stderr)
        return 130
    print(
        plain(
            f"{options.out} is complete, with {len(written)} new recordings. "
            f"Next: scnn keywords {options.out} --out DIR"
        )
    )
    return 0


def _keywords(options: argparse.Namespace) -> int:
    from scnn import keywords
    from scnn.deploy import compiler

    compiler.require("ziglang")  # fail now, not after the training
    learnt = keywords.learn(options.folder, epochs=options.epochs, copies=options.copies, seed=options.seed)
    print(plain(f"Held out: {learnt.held_out}.\n"))
    table = learnt.words.rename(index=plain)
    shares = {name: "{:.1%}".format for name in table.columns[1:]}
    print(table.to_string(formatters=shares))
    print(f'\nIf the confidence is below {learnt.refuse:.2f}, the answer is "not sure".\n')
    for path in keywords.write(learnt, options.out):
        print(plain(f"{path}  {path.stat().st_size:,} bytes"))
    return 0


def _answer(result: dict[str, Any]) -> str:
    digit, confidence = result["digit"], f"confidence {result['confidence']:.2f}"
    return f"{digit}  {confidence}" if result["sure"] else f"not sure ({digit}?)  {confidence}"


def recognise(file: Path, network: Network, about: dict[str, Any]) -> dict[str, Any]:
    """Recognise the word in an audio file: the entries of `hear`, plus `file`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as for `scnn.data.read_audio` and `hear`; the message names the file.
    """
    samples = read_audio(file, _made(about).rate)
    try:
        return {"file": str(file)} | hear(samples, network, about)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def hear(samples: np.ndarray, network: Network, about: dict[str, Any]) -> dict[str, Any]:
    """Recognise one word: `digit` (its class), `confidence` (0..1), `sure`, and `spikes` per class.

    `sure` says whether the confidence reaches the threshold `refuse` saved with the network.

    Args:
        samples: waveform at the sample rate in `about`.
        network: as returned by `scnn.training.load_network`.
        about: as returned with it.

    Raises:
        ValueError: the network was saved without its features, or its output is not finite.
    """
    made = _made(about)
    images = image(samples, made.rate, made.features)
    if made.constants is not None:
        images = normalize(images, *made.constants)
    with torch.no_grad():
        output = network(images.values)
    if not output.membrane.isfinite().all():
        raise ValueError("the network's output is not a finite number")
    counts = scores(output)[0]
    best, confidence = (each.item() for each in answer(output, _readout(about)))
    spikes = {} if output.spikes is None else dict(zip(made.classes, counts.int().tolist(), strict=True))
    sure = confidence >= about["experiment"].get("refuse", 0.0)
    result = {"digit": made.classes[int(best)], "confidence": round(confidence, 4), "sure": sure}
    return result | {"spikes": spikes}


def _readout(about: dict[str, Any]) -> str:
    return about.get("experiment", {}).get("readout", "spikes")


class _Made(NamedTuple):
    """How a network's training images were made, and the names of its outputs."""

    rate: int
    features: Features
    constants: Any
    classes: Sequence[str]


def _made(about: dict[str, Any]) -> _Made:
    try:
        features = Features(**about["experiment"]["features"])
        return _Made(about["sample_rate"], features, about["normalization"], about["classes"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"this network was saved without a description of its features ({error} is missing)"
        ) from error


def _print(about: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(about))
        return
    for name, value in about.items():
        value = round(value, 4) if isinstance(value, float) else value
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:18} {plain(text)}")


if __name__ == "__main__":
    sys.exit(main())
