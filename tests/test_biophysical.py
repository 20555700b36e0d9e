"""The neuron in millivolts: results worked out by hand, resets, and error messages."""

import math

import pytest
import torch

from scnn import neurons
from scnn.neurons import BIOPHYSICAL_RESETS, Biophysical, biophysical


def constant(millivolts, steps=200):
    return torch.full((steps,), float(millivolts), dtype=torch.float64)


def spike_times(spikes):
    return spikes.nonzero().flatten().tolist()


def test_membrane_settles_at_rest_plus_current_below_the_threshold():
    spikes, membrane = biophysical(constant(19.9))
    assert spikes.sum() == 0
    steps = torch.arange(1, 201, dtype=torch.float64)
    torch.testing.assert_close(membrane, -75 + 19.9 * (1 - torch.exp(-steps / 10)))


@pytest.mark.parametrize("tau", [10.0, 12.0])
@pytest.mark.parametrize("refractory", [0, 2, 5])
@pytest.mark.parametrize("current", [21.0, 30.0, 60.0, 1000.0])
def test_interval_between_spikes_is_the_one_on_paper(tau, refractory, current):
    # From rest the threshold is 20 mV away: 1 - exp(-n / tau) > 20 / I for the first time.
    steps_to_threshold = math.floor(tau * math.log(current / (current - 20))) + 1
    spikes, _ = biophysical(constant(current), Biophysical(tau=tau, refractory=refractory))
    first, *others = spike_times(spikes)
    assert first == steps_to_threshold - 1
    assert others == list(range(first, 200, steps_to_threshold + refractory))[1:]


@pytest.mark.parametrize("reset", BIOPHYSICAL_RESETS)
def test_no_spike_and_a_still_membrane_in_the_refractory_period(reset):
    spikes, membrane = biophysical(constant(45), Biophysical(refractory=3, reset=reset))
    at = spike_times(spikes)[0]
    expected = {"subtract": membrane[at] - 20, "zero": 0.0, "rest": -75.0}[reset]
    assert membrane[at] > -55
    assert spikes[at + 1 : at + 4].tolist() == [0, 0, 0]
    assert membrane[at + 1 : at + 4].tolist() == [float(expected)] * 3
    assert membrane[at + 4] != membrane[at + 3]


def test_reset_by_subtraction_loses_nothing_of_a_strong_current():
    rates = {
        reset: neurons.rate(biophysical(constant(120), Biophysical(reset=reset, refractory=0))[0])
        for reset in ("subtract", "rest")
    }
    assert rates["subtract"] > rates["rest"] > 0


def test_reset_to_zero_millivolts_never_ends():
    current = torch.cat([constant(60, 20), constant(0, 80)])
    spikes, _ = biophysical(current, Biophysical(reset="zero"))
    first = spike_times(spikes)[0]
    assert spike_times(spikes) == list(range(first, 100, 3))


def test_reset_to_zero_is_reset_to_rest_on_a_scale_from_rest():
    generator = torch.Generator().manual_seed(0)
    current = 30 + 20 * torch.randn(200, 3, generator=generator, dtype=torch.float64)
    expected, expected_membrane = biophysical(current, Biophysical(reset="rest"))
    spikes, membrane = biophysical(current, Biophysical(rest=0, threshold=20, reset="zero"))
    assert expected.sum() > 0
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(membrane - 75, expected_membrane)


def test_a_neuron_does_not_depend_on_the_neurons_beside_it():
    current = torch.stack([constant(millivolts) for millivolts in (0, 25, 50)], dim=1)
    spikes, membrane = biophysical(current)
    for index in range(3):
        alone = biophysical(current[:, index])
        assert torch.equal(spikes[:, index], alone[0])
        assert torch.equal(membrane[:, index], alone[1])


def test_on_the_scale_of_the_networks_it_is_the_leaky_unit():
    tau = 10.0
    beta = math.exp(-1 / tau)
    current = 2 * torch.rand(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    neuron = Biophysical(rest=0, threshold=1, tau=tau, refractory=0, reset="rest")
    spikes, membrane = biophysical(current, neuron)
    expected = neurons.leaky((1 - beta) * current, neurons.Neuron(beta=beta, reset="zero"))
    assert expected[0].sum() > 0
    assert torch.equal(spikes, expected[0])
    torch.testing.assert_close(membrane, expected[1])


def test_read_outs():
    spikes = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    assert neurons.count(spikes).tolist() == [3, 1]
    assert neurons.rate(spikes).tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rest": float("nan")}, "rest must be a finite number of mV, not nan"),
        ({"threshold": -75.0}, r"threshold must be finite and above rest \(-75.0 mV\), not -75.0"),
        ({"threshold": float("inf")}, "threshold must be finite and above rest"),
        ({"tau": 0.0}, "tau must be a positive number of time steps, not 0.0"),
        ({"refractory": -1}, "refractory must be a whole number of time steps, at least 0, not -1"),
        ({"refractory": 1.5}, "refractory must be a whole number"),
        ({"reset": "none"}, "reset must be one of subtract, zero, rest, not 'none'"),
    ],
)
def test_wrong_parameters_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        Biophysical(**wrong)


def test_currents_it_cannot_integrate_are_refused():
    with pytest.raises(ValueError, match="at least one time step"):
        biophysical(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"floating point, not torch.int64"):
        biophysical(torch.ones(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="not finite"):
        biophysical(torch.tensor([1.0, float("nan")]))
