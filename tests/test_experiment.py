"""Experiments: what identifies one; it is trained once, remembered, resumable and stored atomically."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock

from scnn import experiment as module
from scnn import quantization
from scnn.augment import Augmentation
from scnn.data import load_corpus
from scnn.experiment import Experiment, load_data, run, run_all, table
from scnn.features import Features, extract, normalize
from scnn.files import cache_dir, load_tensors
from scnn.training import evaluate, load_network

TINY = {"model": "3C3-P2-16FC-3FC", "num_steps": 3, "threshold": 0.3, "epochs": 3, "batch_size": 4}
FILES = {"experiment.json", "history.csv", "made.json", "metrics.json", "network.safetensors"}


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    """A user's corpus: tones of three pitches, in a folder for each."""
    folder = tmp_path_factory.mktemp("words")
    generator = np.random.default_rng(0)
    for label, pitch in (("high", 1600), ("low", 200), ("middle", 700)):
        (folder / label).mkdir()
        for take in range(10):
            times = np.arange(2400 + 200 * take) / 8000
            tone = 0.3 * np.sin(2 * np.pi * pitch * times) + 0.05 * generator.standard_normal(len(times))
            soundfile.write(folder / label / f"{take}.wav", tone, 8000)
    return folder


@pytest.fixture
def own_home(tmp_path, monkeypatch) -> Path:
    """A separate cache for the test."""
    monkeypatch.setenv("SCNN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tiny(words, own_home) -> Experiment:
    return Experiment(corpus=str(words), features=Features(normalization="train"), **TINY)


@pytest.fixture
def no_training(monkeypatch):
    """A function that, once called, makes any further training fail."""

    def fail(*_, **__):
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr(module, "fit", fail)


def weights_of(record) -> list[torch.Tensor]:
    return [weight.clone() for weight in record.network().state_dict().values()]


def same_weights(first, second) -> bool:
    return all(torch.equal(*pair) for pair in zip(weights_of(first), weights_of(second), strict=True))


# Identity.

OTHER = {
    "split": "official",
    "test": 0.3,
    "validation": 0.1,
    "features": Features(hop=256),
    "model": "C",
    "num_steps": 9,
    "beta": 0.6,
    "threshold": 0.9,
    "reset": "zero",
    "slope": 20.0,
    "precision": "int8",
    "pretrained": True,
    "epochs": 19,
    "batch_size": 17,
    "learning_rate": 2.0e-3,
    "schedule": "cosine",
    "seed": 1,
    "corpus": "fsdd",
}


# Fields that matter only together with others, each with what it needs.
MORE = [
    {"spiking": False},
    {"weight_decay": 0.01},
    {"dropout": 0.1},
    {"voices": "espeak"},
    {"augmentation": Augmentation(copies=1)},
    {"augmentation": Augmentation(copies=1), "others": "espeak"},
    {"teacher": "8C3-10FC"},
    {"readout": "membrane"},
    {"refuse": 0.5},
    {"frozen": 1},
    {"spike_penalty": 0.1},
    {"precision": "fp32", "batch_norm": True},
    {"precision": "fp32", "batch_norm": True, "from_twin": True},
    {"precision": "fp32", "batch_norm": True, "from_twin": True, "tune_epochs": 2},
]


def test_every_field_changes_the_digest():
    assert OTHER.keys() | {name for more in MORE for name in more} == {
        each.name for each in dataclasses.fields(Experiment)
    }
    base = {"corpus": "espeak", "precision": "int8-paper"}
    digests = [Experiment(**base).digest]
    digests += [Experiment(**(base | {name: value})).digest for name, value in OTHER.items()]
    digests += [Experiment(**(base | more)).digest for more in MORE]
    assert len(set(digests)) == len(digests)
    assert Experiment(**base).digest == digests[0]


def test_contents_of_the_corpus_change_the_digest(words, tmp_path):
    copy = tmp_path / "words"
    shutil.copytree(words, copy)
    before = Experiment(corpus=str(copy), **TINY).digest
    (copy / "low" / "9.wav").unlink()
    assert Experiment(corpus=str(copy), **TINY).digest != before


def test_the_same_numbers_are_the_same_experiment(words):
    # Parameters may come from YAML or the command line as 1 instead of 1.0, or as a path instead of text.
    whole = Experiment(corpus=words, beta=1, slope=25, validation=0, **TINY | {"threshold": 1})
    other = Experiment(
        corpus=str(words), beta=1.0, slope=25.0, validation=0.0, **TINY | {"threshold": np.float64(1)}
    )
    assert whole == other and whole.digest == other.digest


def test_json_says_everything():
    experiment = Experiment(**OTHER)
    assert Experiment.from_json(experiment.to_json()) == experiment
    with pytest.raises(TypeError, match="epoch"):
        Experiment.from_json(json.dumps(json.loads(experiment.to_json()) | {"epoch": 3}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "D"}, "'D' in architecture 'D' is not a layer.*or use one of A, B, C"),
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1, not 0"),
        ({"beta": -0.1}, "beta must lie in 0..1, not -0.1"),
        ({"beta": "0.5"}, "beta must be a number, not '0.5'"),
        ({"threshold": None}, "threshold must be a number, not None"),
        ({"validation": True}, "validation must be a number, not True"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a number, not '1e-3'"),  # how YAML reads 1e-3
        ({"learning_rate": 0.0}, "learning_rate must be a positive number, not 0.0"),
        ({"reset": "soft"}, "reset must be one of subtract, zero, none, not 'soft'"),
        ({"slope": -1.0}, r"slope must be a number above 0, up to 1e\+30, not -1.0"),
        ({"precision": "int9"}, "precision must be one of fp32, int8-paper, .*, int8, .*, not 'int9'"),
        ({"pretrained": 1}, "pretrained must be True or False, not 1"),
        ({"pretrained": True}, "pretrained must be False for precision 'fp32'"),
        ({"precision": "int8", "threshold": 0}, "threshold must be above 0"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, onecycle, not 'linear'"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, not 1.5"),
        ({"seed": 2**63}, "seed must be at most 9223372036854775807, not 9223372036854775808"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number, not nan"),
        ({"threshold": 1e300}, r"threshold must be a number from 0 to 1e\+30, not 1e\+300"),
        ({"test": float("nan")}, "test must be a number, not nan"),
        ({"frozen": 3}, r"frozen must be a whole number in 0\.\.2, not 3"),  # one of B's three has to learn
        ({"frozen": True}, "frozen must be a whole number"),
        ({"frozen": 1, "batch_norm": True}, "frozen cannot be used with batch_norm"),
        ({"refuse": 1}, "refuse must be a confidence of at least 0 and below 1, not 1.0"),
    ],
)
def test_wrong_value_is_named_at_once(wrong, message):
    with pytest.raises(ValueError, match=message):
        Experiment(**wrong)


def test_unknown_parameter_is_named():
    with pytest.raises(TypeError, match="epoch"):
        Experiment(epoch=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"corpus": "digits"}, "digits: no such corpus or folder; valid are fsdd, fsdd-1.0.8, espeak"),
        ({"split": "half"}, "kind='half': valid are 'random', 'official', 'fold:K' and 'speaker:NAME'"),
        ({"test": 1.5}, "test=1.5 and validation=0.0 must be shares"),
        ({"model": "9FC"}, "model '9FC' ends with 9FC, but there are 3 classes; write 3FC"),
    ],
)
def test_what_does_not_fit_the_corpus_is_named_and_leaves_nothing(tiny, own_home, wrong, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(dataclasses.replace(tiny, **wrong))
    runs = own_home / "runs"
    assert not runs.exists() or all(file.suffix == ".lock" for file in runs.iterdir())


# Data.


def test_normalisation_is_of_the_training_clips_alone(tiny):
    data = load_data(tiny)
    raw = extract(load_corpus(tiny.corpus), Features(), cache=False)
    inside = raw.values[:, 0][data.split.train][raw.window[data.split.train]].double()
    mean, deviation = data.normalization
    assert mean == pytest.approx(inside.mean().item(), rel=1e-5)
    assert deviation == pytest.approx(inside.std(correction=0).item(), rel=1e-3)
    everything = raw.values[:, 0][raw.window].double()
    assert mean != pytest.approx(everything.mean().item(), rel=1e-5)
    assert torch.equal(data.images.values, normalize(raw, mean, deviation).values)
    assert not data.images.values[:, 0][~data.images.window].any()


def test_no_normalisation_leaves_the_images(tiny):
    data = load_data(dataclasses.replace(tiny, features=Features()))
    assert data.normalization is None
    assert torch.equal(data.images.values, extract(data.corpus, Features(), cache=False).values)


def test_parts_are_of_the_split_and_the_seed_decides_it(tiny):
    first, other = load_data(tiny), load_data(dataclasses.replace(tiny, seed=1))
    images, labels = first.part(first.split.test)
    assert labels.tolist() == first.corpus.labels[first.split.test].tolist() and len(labels) == 6
    assert torch.equal(images, first.images.values[torch.from_numpy(first.split.test)])
    assert first.split.test.tolist() != other.split.test.tolist()


# Runs.


def test_record_says_what_its_network_does(tiny):
    record = run(tiny)
    assert {file.name for file in record.folder.iterdir()} == FILES
    assert record.folder.name == tiny.digest and record.experiment == tiny
    assert record.history["epoch"].tolist() == [1, 2, 3]
    assert record.made["seconds"] > 0 and set(record.made["versions"]) >= {"torch", "numpy"}
    data, network = load_data(tiny), record.network()
    test = data.part(data.split.test)
    measured = evaluate(network, *test)
    assert measured.items() <= record.metrics.items()
    spikes = [trace.spikes for trace in network.trace(test[0])]
    assert record.metrics["sparsity_first"] == pytest.approx(1 - spikes[0].mean().item())
    silent = sum((each == 0).sum().item() for each in spikes) / sum(each.numel() for each in spikes)
    assert record.metrics["sparsity_all"] == pytest.approx(silent)
    assert record.metrics["parameters"] == 30 + 16 * 3 * 15 * 15 + 16 + 51
    assert record.metrics["packed_bytes"] == 4 * record.metrics["parameters"]
    assert 0 < record.metrics["sparsity_window"] < record.metrics["sparsity_first"]
    # Without a validation part, the history is of the test part.
    assert record.history["held_out_loss"].iloc[-1] == pytest.approx(measured["loss"])
    _, about = load_network(record.folder / "network.safetensors")
    assert about["classes"] == ["high", "low", "middle"] and about["sample_rate"] == 8000
    assert about["normalization"] == list(data.normalization)
    assert Experiment.from_json(json.dumps(about["experiment"])) == tiny


def test_quantised_training_starts_from_scratch_or_from_the_float_weights(tiny, no_training):
    scratch = run(dataclasses.replace(tiny, precision="int8", epochs=1))
    after = dataclasses.replace(tiny, precision="int8", pretrained=True, epochs=1, learning_rate=1.0e-9)
    record = run(after)
    start = run(dataclasses.replace(after, precision="fp32", pretrained=False))
    assert not same_weights(scratch, record)
    for weight, floating in zip(weights_of(record), weights_of(start), strict=True):
        assert (weight - floating).abs().max() < 1e-6
    rounded = [quantization.weight_of(layer).unique() for layer in record.network().weights]
    assert all(len(values) <= 255 for values in rounded)
    assert record.metrics["packed_bytes"] < 0.3 * start.metrics["packed_bytes"]
    no_training()
    assert run(after).metrics == record.metrics


def test_frozen_layers_keep_the_weights_that_they_start_with(tiny):
    frozen = dataclasses.replace(tiny, epochs=1, frozen=1)
    start, trained = frozen.build(3).weights, run(frozen).network().weights
    unchanged = [
        all(torch.equal(*pair) for pair in zip(before.parameters(), after.parameters(), strict=True))
        for before, after in zip(start, trained, strict=True)
    ]
    assert unchanged == [True] + [False] * (len(start) - 1)


def test_a_network_of_the_zoo_ends_in_as_many_outputs_as_there_are_words(tiny, no_training):
    quantised = dataclasses.replace(tiny, model="C", epochs=1, precision="int8", pretrained=True)
    record = run(quantised)
    assert record.network().architecture == "6C3-P2-128FC-3FC"
    assert table([record])["architecture"].tolist() == ["6C3-P2-128FC-3FC"]
    no_training()
    assert run(quantised) == record


def test_a_table_has_a_row_for_each_training(tiny):
    records = [run(dataclasses.replace(tiny, epochs=1, seed=seed)) for seed in (0, 1, 0)]
    rows = table(records)
    assert rows["seed"].tolist() == [0, 1]
    assert rows["accuracy"].tolist() == [record.metrics["accuracy"] for record in records[:2]]
    first = rows.iloc[0]
    assert (first["model"], first["architecture"]) == (tiny.model, tiny.model)
    assert (first["features"], first["normalization"], first["precision"]) == ("mfcc", "train", "fp32")
    assert "torch 2" in first["versions"]
    # Installed without git there is no commit, and nothing here goes beyond the paper.
    assert rows.drop(columns=["commit", "beyond"]).notna().all(axis=None)


def test_network_is_trained_on_the_training_clips(tiny, monkeypatch):
    def stop(network, images, labels, held_out, *_):
        raise Interruption(images, labels, *held_out)

    monkeypatch.setattr(module, "fit", stop)
    for validation, watched in ((0.0, "test"), (0.3, "validation")):
        experiment = dataclasses.replace(tiny, validation=validation)
        with pytest.raises(Interruption) as raised:
            run(experiment)
        data = load_data(experiment)
        expected = (*data.part(data.split.train), *data.part(getattr(data.split, watched)))
        assert all(torch.equal(*pair) for pair in zip(raised.value.args, expected, strict=True))


def test_second_run_reads(tiny, no_training):
    first = run(tiny)
    no_training()
    second = run(tiny)
    assert second == first and same_weights(first, second)
    pair = second.history, first.history
    assert pair[0].equals(pair[1])
    with pytest.raises(AssertionError, match="trained again"):
        run(dataclasses.replace(tiny, seed=1))


def test_trained_twice_gives_the_same_bits_whatever_the_number_of_threads(tiny, own_home):
    first = run(tiny)
    before, threads = weights_of(first), torch.get_num_threads()
    shutil.rmtree(own_home / "runs")
    try:
        torch.set_num_threads(threads + 1)
        second = run(tiny)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(before, weights_of(second), strict=True))
    assert second.metrics == first.metrics


def test_relu_network(tiny):
    record = run(Experiment(corpus="espeak", split="official", model="CNN", epochs=1))
    assert record.metrics["accuracy"] == record.metrics["accuracy_membrane"] > 0.3
    assert record.metrics["macs"] == 277_176 and record.metrics["parameters"] == 83_702
    assert not record.network().spiking


def test_network_without_a_map(tiny):
    record = run(dataclasses.replace(tiny, model="16FC-3FC", epochs=1))
    assert 0 <= record.metrics["sparsity_first"] <= 1


def test_validation_part_is_watched_and_the_test_part_measured(tiny):
    tiny = dataclasses.replace(tiny, validation=0.3)
    record, data = run(tiny), load_data(tiny)
    assert len(data.split.validation) == 9
    validated = evaluate(record.network(), *data.part(data.split.validation))
    tested = evaluate(record.network(), *data.part(data.split.test))
    assert record.history["held_out_loss"].iloc[-1] == pytest.approx(validated["loss"])
    assert record.metrics["loss"] == pytest.approx(tested["loss"]) != pytest.approx(validated["loss"])


def test_validation_list_of_a_corpus_is_watched(tiny, words, tmp_path):
    folder = tmp_path / "commands"
    shutil.copytree(words, folder)
    (folder / "validation_list.txt").write_text("high/0.wav\nlow/0.wav\nmiddle/1.wav\n")
    (folder / "testing_list.txt").write_text("high/5.wav\nlow/6.wav\nmiddle/7.wav\nlow/8.wav\n")
    tiny = dataclasses.replace(tiny, corpus=str(folder), split="official")
    record, data = run(tiny), load_data(tiny)
    assert len(data.split.validation) == 3 and len(data.split.test) == 4
    validated = evaluate(record.network(), *data.part(data.split.validation))
    assert record.history["held_out_loss"].iloc[-1] == pytest.approx(validated["loss"])


def test_validation_share_of_less_than_a_clip_leaves_none(tiny):
    record = run(dataclasses.replace(tiny, validation=0.001))
    assert record.history["held_out_loss"].iloc[-1] == pytest.approx(record.metrics["loss"])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def of_another(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 5}))


def older(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))


def better(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": 1.0}))


def faster(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": -1.0}))


def without_last_line(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


DAMAGES = {
    "altered weights": ("network.safetensors", flip_a_bit, "the checksum differs"),
    "no weights": ("network.safetensors", Path.unlink, "No such file"),
    "no metrics": ("metrics.json", Path.unlink, "No such file"),
    "no history": ("history.csv", Path.unlink, "No such file"),
    "bad json": ("metrics.json", lambda path: path.write_text('{"accuracy": 0.'), "Expecting|delimiter"),
    "empty json": ("made.json", lambda path: path.write_text(""), "made.json: not JSON"),
    "other json": ("made.json", lambda path: path.write_text("[1]"), "another experiment or has another"),
    "metrics gone": ("metrics.json", lambda path: path.write_text("{}"), "the checksum differs"),
    "metrics of another kind": ("metrics.json", lambda path: path.write_text("[]"), "the checksum differs"),
    "no text": ("history.csv", lambda path: path.write_bytes(b"\xff\xfe\x00"), "the checksum differs"),
    "shorter history": ("history.csv", without_last_line, "the checksum differs"),
    "another experiment": ("experiment.json", of_another, "another experiment or has another"),
    "better metrics": ("metrics.json", better, "the checksum differs"),
    "other circumstances": ("made.json", faster, "the checksum differs"),
    "NaN": ("metrics.json", lambda path: path.write_text('{"accuracy": NaN}'), "NaN is not a JSON number"),
    "deep": ("metrics.json", lambda path: path.write_text("[" * 10**6), "metrics.json: not JSON"),
    "older format": ("made.json", older, "another experiment or has another"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_record_is_trained_again_with_a_warning(tiny, no_training, damage):
    name, change, reason = DAMAGES[damage]
    first = run(tiny)
    before = weights_of(first)
    change(first.folder / name)
    with pytest.warns(UserWarning, match=rf"{tiny.digest} is damaged \(.*({reason}).*\): training again"):
        second = run(tiny)
    assert all(torch.equal(*pair) for pair in zip(before, weights_of(second), strict=True))
    assert second.metrics == first.metrics
    assert {file.name for file in second.folder.iterdir()} == FILES
    no_training()
    run(tiny)


class Interruption(Exception):
    pass


def interrupted(experiment: Experiment, monkeypatch, where: str) -> Path:
    """Run until the module's function `where` is called; returns the unfinished folder."""

    def stop(*_, **__):
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(module, where, stop)
        with pytest.raises(Interruption):
            run(experiment)
    return cache_dir() / "runs" / f"{experiment.digest}.unfinished"


@pytest.mark.parametrize("where", ["save_network", "_checksum", "_circumstances"])
def test_what_was_trained_is_not_trained_again(tiny, monkeypatch, where):
    unfinished = interrupted(tiny, monkeypatch, where)
    assert (unfinished / "state.safetensors").exists()
    (unfinished / ".state.safetensors.1.part").write_bytes(b"left by a process that was killed")
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_, **__: pytest.fail("trained again"))
    record = run(tiny)
    assert len(record.history) == 3 and not unfinished.exists()
    assert {file.name for file in record.folder.iterdir()} == FILES


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), flip_a_bit], ids=["torn", "a bit"])
def test_damaged_state_is_not_gone_on_from(tiny, monkeypatch, own_home, damage):
    expected = run(tiny)
    before = weights_of(expected)
    shutil.rmtree(own_home / "runs")
    unfinished = interrupted(tiny, monkeypatch, "save_network")
    damage(unfinished / "state.safetensors")
    with pytest.warns(UserWarning, match=r"state.safetensors: .*: training from the beginning"):
        record = run(tiny)
    assert all(torch.equal(*pair) for pair in zip(before, weights_of(record), strict=True))


def test_full_disk_keeps_what_was_reached(tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", full)
        with pytest.raises(OSError, match="No space left on device"):
            run(tiny)
    assert len(run(tiny).history) == 3


SCRIPT = """
import sys
from scnn import experiment as module
from scnn import quantization

fit, calls = module.fit, []
module.fit = lambda *args, **options: calls.append(1) or fit(*args, **options)
experiment = module.Experiment.from_json(sys.argv[1])
print("ready", flush=True)
record = module.run(experiment)
print(len(calls), record.metrics["loss"], flush=True)
"""


def start(experiment: Experiment) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, experiment.to_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_train_once(tiny, own_home):
    (own_home / "runs").mkdir(parents=True)
    with FileLock(own_home / "runs" / f"{tiny.digest}.lock"):  # until both have started
        processes = [start(tiny) for _ in range(2)]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        assert [process.poll() for process in processes] == [None, None]
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(trained for trained, _ in answers) == ["0", "1"]
    assert {float(loss) for _, loss in answers} == {run(tiny).metrics["loss"]}


def test_killed_run_goes_on_to_the_same_record(tiny, own_home, monkeypatch):
    tiny = dataclasses.replace(tiny, epochs=60)
    process = start(tiny)
    unfinished = own_home / "runs" / f"{tiny.digest}.unfinished"
    while not (unfinished / "state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    about, _ = load_tensors(unfinished / "state.safetensors", "scnn training state 2")
    assert 0 < len(about["history"]) < 60
    record = run(tiny)
    assert not unfinished.exists() and {file.name for file in record.folder.iterdir()} == FILES
    monkeypatch.setenv("SCNN_HOME", str(own_home / "other"))
    expected = run(tiny)
    assert same_weights(record, expected) and record.metrics == expected.metrics
    columns = [name for name in expected.history if name != "seconds"]
    assert record.history[columns].equals(expected.history[columns])
    assert list(record.history) == list(expected.history)


def test_a_finished_record_is_read_from_a_home_that_cannot_be_written(tiny, monkeypatch, no_training):
    expected = run(tiny)

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module, "locked", refuse)
    no_training()
    assert run(tiny) == expected and same_weights(run(tiny), expected)


def test_a_home_whose_name_is_not_utf8(tiny, tmp_path, monkeypatch, no_training):
    monkeypatch.setenv("SCNN_HOME", str(tmp_path / os.fsdecode(b"caf\xe9")))
    record = run(dataclasses.replace(tiny, epochs=1))
    no_training()
    assert run(dataclasses.replace(tiny, epochs=1)) == record and record.network().num_parameters


def test_what_is_no_folder_in_the_place_of_a_record_is_replaced(tiny, own_home):
    (own_home / "runs").mkdir(parents=True)
    (own_home / "runs" / tiny.digest).write_text("no record")
    (own_home / "runs" / f"{tiny.digest}.unfinished").write_text("no state")
    with pytest.warns(UserWarning, match="is damaged"):
        assert len(run(tiny).history) == 3


PARENT = """
import time
from scnn.experiment import Experiment, run_all

if __name__ == "__main__":
    run_all([Experiment(corpus="espeak", epochs=1000, seed=seed) for seed in range(2)], workers=2)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path, own_home, kind):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"SCNN_TEST": str(tmp_path)}
    process = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], env=environment)

    def alive() -> int:
        count = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                running = folder.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
                count += running and str(tmp_path).encode() in folder.joinpath("environ").read_bytes()
            except OSError:
                pass
        return count

    def until(condition) -> None:
        end = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < end, "it did not come to that"
            time.sleep(0.1)

    try:
        until(lambda: len(list(own_home.glob("runs/*.lock"))) == 2)  # both are training
        assert alive() >= 3
    finally:
        process.send_signal(kind)
        process.wait(30)
    until(lambda: alive() == 0)


def test_several_at_once_come_back_in_order(tiny, no_training):
    other = dataclasses.replace(tiny, seed=1)
    records = run_all([tiny, other, tiny], workers=2)
    assert [record.experiment for record in records] == [tiny, other, tiny]
    no_training()
    assert run_all([other, tiny], workers=2) == [records[1], records[0]]
    assert run_all([]) == []


def test_model_b_learns_fsdd(fsdd):
    experiment = Experiment(corpus="fsdd-1.0.8", epochs=3)
    record = run(experiment)
    assert len(load_data(experiment).split.test) == 300
    assert record.metrics["accuracy"] > 0.75
    assert 0.85 < record.metrics["sparsity_first"] < 0.97  # the paper's logs: 0.85 to 0.92
