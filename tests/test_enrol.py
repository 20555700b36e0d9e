"""Learning a new voice: what the last layer learns, what stays unchanged, and what is refused."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from scnn.data import chosen_from, load_corpus
from scnn.enrol import curve, described, enrol, labels_of, last_inputs, last_layer
from scnn.experiment import Experiment, load_data, run
from scnn.features import Features
from scnn.models import build
from scnn.quantization import weight_of
from scnn.training import load_network, predict, save_network

STRANGER = "speaker:en-us-nyc-f4"
FEATURES = Features("logmel", bands=32, hop=256, frame=512, trim_db=30.0, normalization="clip")
QUICK = {
    "relu": Experiment(
        "espeak",
        STRANGER,
        features=FEATURES,
        model="8C3s2-P2-32FC-10FC",
        num_steps=1,
        spiking=False,
        epochs=3,
    ),
    "spiking": Experiment(
        "espeak",
        STRANGER,
        features=FEATURES,
        model="8C3s2-P2-32FC-10FC",
        num_steps=4,
        slope=5.0,
        epochs=3,
        precision="int4",
        readout="membrane",
    ),
}


@pytest.fixture(scope="module", params=QUICK)
def trained(request):
    """A network trained without one voice, and the images and labels of that voice."""
    experiment = QUICK[request.param]
    data = load_data(experiment)
    return run(experiment).network(), data, data.split.test


def examples(data, clips, count):
    """The first `count` of `clips` for each word."""
    labels = data.corpus.labels[clips]
    return np.concatenate([clips[labels == each][:count] for each in np.unique(labels)])


def accuracy(network, data, clips):
    images, labels = data.part(clips)
    return (predict(network, images, "membrane") == labels).float().mean().item()


def test_the_last_layer_alone_answers_as_the_whole_network(trained):
    network, data, clips = trained
    images = data.images.values[clips[::7]]
    whole, last = network(images), last_layer(network, last_inputs(network, images))
    torch.testing.assert_close(last.membrane, whole.membrane)
    assert network.spiking == (last.spikes is not None)


def test_one_example_of_each_word_removes_errors_and_more_remove_more(trained):
    network, data, clips = trained
    found = curve(network, data.part(clips), data.part(data.split.train[::7]), (0, 1, 5), draws=3)
    assert found["examples"].tolist() == [0, 1, 1, 1, 5, 5, 5]
    wrong = 1 - found.groupby("examples")["stranger"].mean()
    assert wrong[0] == pytest.approx(1 - accuracy(network, data, clips)) and wrong[0] > 0.03
    assert wrong[1] < 0.8 * wrong[0]
    assert wrong[5] < wrong[1]


def test_an_answer_read_from_the_spikes_gets_better_too():
    data, network = load_data(QUICK["spiking"]), run(QUICK["spiking"]).network()
    known = data.part(data.split.train[::7])
    rows = curve(network, data.part(data.split.test), known, (0, 5), draws=3, readout="spikes")
    wrong = 1 - rows.groupby("examples")["stranger"].mean()
    assert wrong[0] > 0.05 and wrong[5] < 0.6 * wrong[0]


def test_a_curve_tests_on_clips_that_were_not_learnt(trained):
    network, data, clips = trained
    seen = []

    def learn(network, images, labels):
        seen.append((len(images), labels.bincount().tolist()))
        return network

    known = data.part(data.split.train[:3])
    rows = curve(network, data.part(clips), known, (9,), 2, learn)
    assert seen == 2 * [(90, 10 * [9])]
    assert set((10 * rows["stranger"]).round(5) % 1) == {0.0}  # one clip of each of the ten words is left


def test_the_voices_it_knew_are_still_known(trained):
    network, data, clips = trained
    learnt = enrol(network, *data.part(examples(data, clips, 1)))
    others = data.split.train[::7]
    assert accuracy(learnt, data, others) > accuracy(network, data, others) - 0.06


def test_only_the_last_layer_of_a_copy_changes_and_always_alike(trained):
    network, data, clips = trained
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = data.part(examples(data, clips, 2))
    first, second = enrol(network, images, labels), enrol(network, images, labels)
    changed = {name for name, value in first.state_dict().items() if not torch.equal(value, kept[name])}
    assert changed == {f"weights.{len(network.weights) - 1}.{name}" for name in ("weight", "bias")}
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in second.state_dict().items())
    assert first.recipe == network.recipe and not first.training


def test_a_word_without_an_example_keeps_its_weights(trained):
    network, data, clips = trained
    chosen = [clip for clip in examples(data, clips, 1) if data.corpus.labels[clip] not in (3, 8)]
    learnt = enrol(network, *data.part(chosen))
    old, new = network.weights[-1], learnt.weights[-1]
    same = torch.isclose(new.bias, old.bias) & torch.isclose(new.weight, weight_of(old)).all(dim=1)
    assert same.tolist() == [label in (3, 8) for label in range(10)]


def test_the_learnt_network_is_saved_in_its_precision(trained, tmp_path):
    network, data, clips = trained
    images, labels = data.part(clips)
    learnt = enrol(network, images[::3], labels[::3])
    save_network(learnt, tmp_path / "mine.safetensors")
    again, _ = load_network(tmp_path / "mine.safetensors")
    assert torch.equal(again(images).membrane, learnt(images).membrane)
    if bits := network.recipe.weight_bits:
        assert len(weight_of(again.weights[-1]).unique()) < 2**bits


def test_a_step_is_one_of_gradient_descent_on_the_cross_entropy_and_the_weights_keep_their_size():
    network = build("4C5-P4-6FC", spiking=False, seed=1)
    images, labels = torch.rand(2, 1, 32, 32, generator=torch.manual_seed(0)), torch.tensor([4, 1])
    inputs = last_inputs(network, images)[0]
    common = inputs.mean(dim=0)
    apart = inputs - common
    step = 0.01 / apart.square().sum(dim=1).mean()
    weight, bias = (each.detach().clone() for each in network.weights[-1].parameters())
    at_common = weight @ common + bias  # stays as it is
    for clip in (1, 0):  # in the order of their classes
        now = weight.clone().requires_grad_()
        loss = cross_entropy(linear(apart[[clip]], now, at_common), labels[[clip]])
        weight[[1, 4]] -= step * torch.autograd.grad(loss, now)[0][[1, 4]]  # the others have no image
    learnt = enrol(network, images, labels, rate=0.01, passes=1, margin=0.0).weights[-1]
    found, before = learnt.weight.detach(), network.weights[-1].weight.detach()
    size = (before[4] - before[1]).norm() / (weight[4] - weight[1]).norm()
    torch.testing.assert_close(found[4] - found[1], size * (weight[4] - weight[1]))
    torch.testing.assert_close(found[4] + found[1], weight[4] + weight[1])
    ahead = (found @ common + learnt.bias.detach()).diff()
    torch.testing.assert_close(ahead[1:4].sum(), size * at_common.diff()[1:4].sum())


def test_layers_without_biases_and_networks_of_one_layer_learn_too():
    images, labels = torch.zeros(4, 1, 32, 32), torch.tensor([0, 1, 0, 1])
    for number, label in enumerate(labels.tolist()):
        images[number, :, 16 * label : 16 * label + 12 + number] = 1.0
    for architecture, precision in (("4C5-P4-2FC", "int8-paper"), ("2FC", "fp32")):
        network = build(architecture, num_steps=3, precision=precision).eval()
        learnt = enrol(network, images, labels, passes=100)
        assert predict(learnt, images, "membrane").tolist() == labels.tolist()
        assert (learnt.weights[-1].bias is None) == (network.weights[-1].bias is None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(4, dtype=torch.int64)}, "at least two classes"),
        ({"labels": torch.tensor([0, 1, 2, 10])}, "a class from 0 to 9 for each of 4"),
        ({"labels": torch.tensor([0, 1, 2])}, "a class from 0 to 9 for each of 4"),
        ({"rate": 0.0}, "rate must be"),
        ({"rate": float("nan")}, "rate must be"),
        ({"margin": -1.0}, "margin must be"),
        ({"passes": 0}, "passes must be"),
        ({"images": torch.full((4, 1, 32, 32), -9.0)}, "there is nothing to learn"),
    ],
)
def test_what_cannot_be_learnt_is_refused(change, message):
    network = build("4C5-P4-10FC", num_steps=2)
    with torch.no_grad():
        network.weights[0].weight.abs_()
        network.weights[0].bias.zero_()
    given = {"images": torch.rand(4, 1, 32, 32), "labels": torch.tensor([0, 1, 2, 3])}
    with pytest.raises(ValueError, match=message):
        enrol(network, **given | change)


def test_words_are_matched_by_name():
    corpus = load_corpus("espeak")
    few = chosen_from(corpus, np.flatnonzero(corpus.takes == 0))
    labels = labels_of(few, ["ten", *reversed(few.classes)])
    assert labels.tolist() == (10 - few.labels).tolist()
    with pytest.raises(ValueError, match=r"espeak: words that the network does not know \(2: 8; 9\)"):
        labels_of(few, few.classes[:8])


def test_what_was_learnt_is_said_and_an_accuracy_of_before_is_not():
    corpus = load_corpus("espeak")
    few = chosen_from(corpus, np.flatnonzero((corpus.takes < 2) & (corpus.speakers == "en-us-nyc-f4")))
    about = {"classes": list(few.classes), "accuracy": 0.9}
    once = described(about, few)
    entry = {"corpus": "espeak", "examples": dict.fromkeys("0123456789", 2)}
    assert once == {"classes": list(few.classes), "enrolled": [entry]}
    assert described(once, few)["enrolled"] == [entry, entry]
    assert about["accuracy"] == 0.9
