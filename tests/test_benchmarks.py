"""The benchmark: its variants compute the same, and its output file is right."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from scnn import training
from scnn.experiment import Experiment, load_data, run

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import networks, parts, peers, speed, steps, timing


@pytest.fixture(scope="module", params=["B", "C"])
def trained(request):
    """A trained network, with the images and labels of its test split."""
    experiment = Experiment(corpus="espeak", model=request.param, epochs=1)
    data = load_data(experiment)
    images, labels = data.part(data.split.test)
    return run(experiment).network(), images[:32], labels[:32]


def test_every_way_spikes_and_learns_as_the_naive_loop(trained):
    network, images, labels = trained
    ways = steps.ways(network)
    naive = ways["naive loop"]
    assert naive.network(images).spikes.any()
    for name, way in ways.items():
        equal, difference = steps.parity(way, naive, images, labels)
        assert equal and difference <= 1e-5, name


def test_without_any_part_the_network_computes_the_same(trained):
    network, images, _ = trained
    with torch.no_grad():
        wanted = network(images)
        for name, without in parts.WITHOUT.items():
            with without():
                found = network(images)
            torch.testing.assert_close(found.membrane, wanted.membrane, rtol=1e-4, atol=1e-3, msg=name)


def test_what_a_part_gains_is_measured_for_training_and_answering(trained):
    found = list(parts.gains(*trained, rounds=2))
    assert {row["task"] for row in found} == {"train", "answer"}
    assert {row["part"] for row in found} == set(parts.WITHOUT) - {"everything"}
    assert all(0 < row["low"] <= row["gain"] <= row["high"] for row in found)


def test_the_gains_of_the_parts_are_printed_model_by_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SCNN_HOME", str(tmp_path))
    monkeypatch.setattr(parts.data, "default_corpus", lambda: "espeak")
    parts.main(rounds=1, names=("CNN",))
    printed = capsys.readouterr().out
    assert printed.startswith("CNN\n") and "data window" in printed


def test_the_baseline_computes_what_scnn_does(trained):
    network, images, labels = trained
    output, reference = network(images), networks.Loop(network)(images)
    assert torch.equal(output.spikes, reference.spikes)
    torch.testing.assert_close(output.membrane, reference.membrane, rtol=1e-4, atol=1e-3)
    own, other = training.loss(output, labels), networks.loss_by_steps(reference, labels)
    torch.testing.assert_close(own, other[0])


def test_a_difference_of_gradients_is_that_of_the_worst_layer():
    layers = [torch.ones(3), torch.ones(1), torch.ones(1), torch.zeros(1)]
    changed = [torch.ones(3), torch.ones(1), torch.tensor([1.5]), torch.zeros(1)]
    assert networks.difference(changed, layers) == 0.5


def test_a_profile_tells_where_the_time_goes(trained):
    network, images, labels = trained
    ways = steps.ways(network)
    naive = steps.profiled(ways["naive loop"].step(), [(images, labels)], "neurons")
    ours = steps.profiled(ways["fused Adam"].step(), [(images, labels)], "copies, sums, loss")
    for profile in (naive, ours):
        assert sum(profile.shares.values()) == pytest.approx(1)
        assert all(share > 0 for share in profile.shares.values())
    assert ours.operations < naive.operations / 2


@pytest.mark.parametrize("task", ["train", "infer"])
@pytest.mark.parametrize("name", networks.VARIANTS)
def test_a_variant_leaves_the_network_as_it_is(trained, name, task):
    network, images, labels = trained
    before = [weight.clone() for weight in network.parameters()]
    step = networks.VARIANTS[name](network, task)
    first, second = step(images, labels), step(images, labels)
    assert all(map(torch.equal, before, network.parameters()))
    if name == "dense-bound":
        return
    if task == "infer":
        assert torch.equal(first, training.predict(network, images))
    else:
        assert first != second  # it has learnt something


@pytest.mark.parametrize("name", ["spikingjelly", "norse", "sinabs", "spyx"])
def test_a_peer_computes_nearly_the_same(trained, name):
    if name not in speed.VARIANTS:
        pytest.skip(f"{name} is not installed: the extra [peers] has it")
    network, images, labels = trained
    make = speed.VARIANTS[name]
    classes = torch.as_tensor(make(network, "infer")(images, labels).tolist())
    assert (classes == training.predict(network, images)).float().mean() > 0.8
    step = make(network, "train")
    losses = [float(step(images, labels)) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_every_way_runs_once_in_each_round():
    order = []
    seconds = timing.interleaved({name: partial(order.append, name) for name in "abc"}, rounds=4)
    assert len(order) == 3 * 5
    assert all(sorted(order[start : start + 3]) == ["a", "b", "c"] for start in range(0, 15, 3))
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_ratio_is_that_of_the_median_round():
    seconds = {"slow": [4.0, 6.0, 30.0], "fast": [2.0, 2.0, 2.0]}
    assert timing.ratios(seconds, "slow")["fast"] == {"ratio": 3.0, "ratio_low": 2.5, "ratio_high": 9.0}
    assert timing.ratios(seconds, "slow")["slow"]["ratio"] == 1.0


def test_the_file_has_a_row_for_each_measurement(tmp_path, capfd):
    output = tmp_path / "new" / "bench.json"
    options = ["--corpus", "espeak", "--models", "C", "--tasks", "train", "--rounds", "2", "--threads", "1"]
    speed.main([*options, "--output", str(output)])
    rows = json.loads(output.read_text())
    expected = list(speed.VARIANTS)
    assert [row["variant"] for row in rows] == expected
    for row in rows:
        assert (row["task"], row["model"], row["batch"], row["num_steps"]) == ("train", "C", 16, 10)
        assert 0 < row["samples_per_s_min"] <= row["samples_per_s"] <= row["samples_per_s_max"]
        assert 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert (row["threads"], row["rounds"], row["corpus"]) == (1, 2, "espeak")
        assert row["versions"]["torch"].startswith("2.")
    assert rows[0]["ratio"] == 1.0 and rows[0]["variant"] == rows[0]["baseline"] == "snntorch-loop"
    printed = capfd.readouterr().out
    assert "train C, batch 16, T=10, 1 thread" in printed
    assert all(name in printed for name in [*expected, *peers.missing()])


def test_the_committed_results_are_such_a_file():
    rows = json.loads(speed.RESULTS.read_text())
    wanted = {
        "task",
        "model",
        "batch",
        "num_steps",
        "variant",
        "baseline",
        "samples_per_s",
        "ratio",
        "threads",
    }
    assert all(wanted <= set(row) for row in rows)
    for variant in ("snntorch-loop", "scnn", "dense-bound", "spikingjelly", "norse", "sinabs", "spyx"):
        assert any(row["variant"] == variant for row in rows), variant


def test_features_are_timed_against_librosa(fsdd):
    corpus = speed.load_corpus("fsdd-1.0.8")
    few = speed.every_fifth(speed.every_fifth(speed.every_fifth(corpus)))
    librosa, scnn = speed.measure_features(few, rounds=1)
    assert (librosa["task"], librosa["variant"], librosa["ratio"]) == ("features", "librosa", 1.0)
    assert (scnn["variant"], scnn["baseline"], scnn["batch"]) == ("scnn", "librosa", len(few))


@pytest.mark.parametrize("options", [["--rounds", "0"], ["--batches", "7", "--tasks", "train"]])
def test_nothing_to_do_is_refused(options, capsys):
    with pytest.raises(SystemExit):
        speed.main(options)
    assert "--rounds" in capsys.readouterr().err
