"""Search: suggestions and results, resuming after the caller or a machine is killed, and wrong input."""

import dataclasses
import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from ray.cluster_utils import Cluster
from tqdm import tqdm

import scnn.search
from scnn import _ray, _trial, files, metrics
from scnn.deploy import cost
from scnn.experiment import Experiment, load_data, run, state_file
from scnn.files import load_tensors
from scnn.search import _Journal, _suggestion, _Suggestions, importance, search
from scnn.training import Diverged

SMALL = Experiment(
    corpus="espeak", model="2C3-P4-10FC", threshold=0.5, epochs=4, batch_size=50, validation=0.2
)
SPACE = {"beta": (0.0, 1.0), "num_steps": (1, 3)}
DESCRIBED = {"space": dict.fromkeys(SPACE)}


@pytest.fixture(scope="module")
def cluster(home: Path):
    """A Ray cluster of one machine with one CPU, with the session's SCNN_HOME."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ray.QUIET.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def found(cluster):
    """A Bayesian search with sequential trials."""
    return search(SMALL, SPACE, trials=6, kind="tpe", grace=1, reduction=2, address=cluster.address)


@pytest.fixture
def own_home(found, home: Path, tmp_path: Path, monkeypatch) -> Path:
    """The file of `found` in a separate cache for the caller; trials keep using the session's."""
    (tmp_path / "home" / "searches").mkdir(parents=True)
    for file in (home / "searches").glob("*.json"):
        said = json.loads(file.read_text())["search"]
        if said["kind"] == "tpe" and said["base"] == json.loads(SMALL.to_json()):  # not another file's
            (tmp_path / "home" / "searches" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("SCNN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def keep(file: Path, ended: int, under_way: int = 0) -> None:
    """Make the file of a search what it was when so many trials had ended, and more were under way."""
    journal = _Journal(file, json.loads(file.read_text())["search"])
    more = journal.trials[ended : ended + under_way]
    journal.trials = journal.trials[:ended] + [{"parameters": trial["parameters"]} for trial in more]
    journal.write()


def test_a_long_temporary_folder_does_not_reach_ray_s_sockets(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert _ray._short_folder() == {}
    monkeypatch.setenv("TMPDIR", "/tmp/" + 80 * "x")
    assert _ray._short_folder() == {"_temp_dir": "/tmp/ray"}
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + 80 * "y")
    with pytest.raises(OSError, match=r"/tmp/yyy.* set RAY_TMPDIR to .* at most \d\d bytes"):
        _ray._short_folder()


# --- what is suggested ------------------------------------------------------------------------------------


DISTRIBUTIONS = {name: scnn.search._distribution(name, values) for name, values in SPACE.items()}


def suggestions(file: Path, count: int, kind: str, seed: int = 0) -> list[dict]:
    draw = partial(_suggestion, kind, seed, DISTRIBUTIONS, {"accuracy": "max"})
    searcher = _Suggestions(_Journal(file, DESCRIBED), list(range(count)), draw, 4, tqdm(disable=True))
    return [searcher.suggest(f"trial {number}") for number in range(count)]


@pytest.mark.parametrize("kind", scnn.search.KINDS)
def test_suggestions_are_in_the_space_and_of_the_seed(kind, tmp_path):
    first = suggestions(tmp_path / "first", 30, kind)
    assert all(0 <= each["beta"] <= 1 and type(each["num_steps"]) is int for each in first)
    assert {each["num_steps"] for each in first} == {1, 2, 3} and len({each["beta"] for each in first}) == 30
    assert suggestions(tmp_path / "again", 30, kind) == first
    other = suggestions(tmp_path / "other", 30, kind, seed=1)
    assert not {each["beta"] for each in other} & {each["beta"] for each in first}


def test_suggestions_resume_where_they_stopped(tmp_path):
    whole = suggestions(tmp_path / "whole", 9, "random")
    assert suggestions(tmp_path / "parts", 4, "random") == whole[:4]
    assert suggestions(tmp_path / "parts", 9, "random") == whole


def test_suggestions_are_those_of_the_committed_runs():
    """A search of the same seed suggests the same in every version, or pages 07 and 11 would change."""
    trials = [
        {"parameters": {"beta": 0.1 * number, "num_steps": 1 + number % 3}, "status": "finished"}
        | {"accuracy": 1 - 0.1 * abs(number - 3)}
        for number in range(8)
    ]
    trials.append({"parameters": {"beta": 0.35, "num_steps": 2}})  # under way, so not to be tried as well
    for kind, beta in (("random", 0.9404747645289672), ("tpe", 0.9443585601174094)):
        suggested = _suggestion(kind, 7, DISTRIBUTIONS, {"accuracy": "max"}, trials)
        assert suggested == {"beta": pytest.approx(beta), "num_steps": 1}


# --- what is found ----------------------------------------------------------------------------------------


def test_table_says_what_was_trained(found):
    table = found.table
    assert list(table.columns[:5]) == ["beta", "num_steps", "status", "epochs", "accuracy"]
    assert len(table) == 6 and set(table["status"]) == {"finished", "stopped"}
    assert (table["epochs"][table["status"] == "finished"] == 4).all()
    assert (table["epochs"][table["status"] == "stopped"] < 4).all()
    assert table["status"][0] == "finished"  # there was no other trial to compare with


def test_chosen_is_the_best_on_validation_clips_and_alone_has_a_test_accuracy(found):
    table, best = found.table, found.best
    finished = table[table["status"] == "finished"]
    (chosen,) = table.index[(table["beta"] == best.beta) & (table["num_steps"] == best.num_steps)]
    assert finished["accuracy"][chosen] == finished["accuracy"].max()
    assert table.index[table["test_accuracy"].notna()].tolist() == [chosen]
    record, data = run(best), load_data(best)
    active = metrics.activity(record.network(), data.part(data.split.validation)[0])
    assert table["test_accuracy"][chosen] == record.metrics["accuracy"]
    assert table["accuracy"][chosen] == record.history["held_out_accuracy"].iloc[-1]
    assert table["sparsity_all"][chosen] == pytest.approx(metrics.sparsity(active))
    assert table["sparsity_first"][chosen] == pytest.approx(active["sparsity"].iloc[0])


GOALS = ("accuracy", "instructions", "packed_bytes")
SEEN = [replace(SMALL.features, bands=8, height=8, width=8), SMALL.features]
LAYERS = {"model": ["2C3-P2-10FC", "4C3-P2-10FC"], "features": SEEN, "num_steps": (1, 3)}


def test_several_objectives_are_kept_and_the_search_resumes_with_them(cluster, home):
    base = replace(SMALL, epochs=1)
    how = {"kind": "tpe", "objectives": GOALS, "grace": 1, "seed": 3, "address": cluster.address}
    found = search(base, LAYERS, trials=7, **how).table
    assert (found["status"] == "finished").all() and set(found["features"]) <= set(SEEN)
    for row in found.to_dict("records")[:2]:
        record = run(replace(base, **{name: row[name] for name in LAYERS}))
        assert row["packed_bytes"] == record.metrics["packed_bytes"]
        data = load_data(record.experiment)
        images, window = data.images.values, data.images.window
        part = data.split.validation
        assert row["instructions"] == pytest.approx(
            cost.estimate(record.network(), images[part], window[part])
        )
    for file in (home / "searches").glob("*.json"):
        if json.loads(file.read_text())["search"]["objectives"] == list(GOALS):
            keep(file, ended=5)
    again = search(base, LAYERS, trials=7, **how).table
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), found.drop(columns="seconds"))


def test_of_equally_accurate_trials_the_sparsest_is_chosen(tmp_path):
    journal = _Journal(tmp_path / "search.json", DESCRIBED)
    ends = [("finished", 0.9, 0.5), ("finished", 0.9, 0.7), ("stopped", 0.95, 0.9), ("finished", 0.8, 0.8)]
    for number, (status, accuracy, sparsity) in enumerate(ends):
        end = {"status": status, "accuracy": accuracy, "sparsity_all": sparsity, "test_accuracy": 0.5}
        journal.trials.append({"parameters": {"beta": number / 10, "num_steps": 1}} | end)
    result = scnn.search._result(SMALL, journal, 4)
    assert result.best == dataclasses.replace(SMALL, beta=0.1, num_steps=1)
    journal.trials = [journal.trials[2]]
    with pytest.raises(RuntimeError, match="none of the 1 trials finished"):
        scnn.search._result(SMALL, journal, 1)


def test_a_trial_that_diverges_is_the_worst_and_ends_without_an_error(monkeypatch):
    def diverge(experiment, after_epoch):
        after_epoch(None, [{"held_out_accuracy": 0.4, "seconds": 1.0}])
        raise Diverged("the loss is nan")

    said: list[dict] = []
    monkeypatch.setattr(_trial, "run", diverge)
    monkeypatch.setattr(_trial.tune, "report", said.append)
    _trial.train({"beta": 0.7}, SMALL, None, [4], dict.fromkeys(GOALS, "min") | {"accuracy": "max"})
    assert [each["accuracies"] for each in said] == [[0.4], [0.4, 0.0]]
    assert said[1]["epoch"] == 2 and said[1]["accuracy"] == 0.0
    assert said[1]["instructions"] == said[1]["packed_bytes"] == _trial.WORST


def test_nothing_is_left_of_trials_that_were_stopped(found):
    for row in found.table.to_dict("records"):
        of = dataclasses.replace(SMALL, **{name: row[name] for name in SPACE})
        assert not state_file(of).parent.exists()
        assert (row["status"] == "finished") == state_file(of).parent.with_suffix("").exists()


# --- resuming ---------------------------------------------------------------------------------------------


def test_same_call_reads(found, monkeypatch):
    monkeypatch.setattr(scnn.search.ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    again = search(SMALL, SPACE, trials=6, kind="tpe", grace=1, reduction=2)
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.best == found.best


def test_search_that_was_interrupted_ends_like_one_that_was_not(found, cluster, own_home):
    (file,) = own_home.glob("searches/*.json")
    keep(file, ended=3, under_way=1)
    again = search(SMALL, SPACE, trials=6, kind="tpe", grace=1, reduction=2, address=cluster.address)
    columns = [name for name in found.table if name != "seconds"]
    pd.testing.assert_frame_equal(again.table[columns], found.table[columns])


def history(state: Path) -> list[dict]:
    try:
        return load_tensors(state, "scnn training state 2")[0]["history"]
    except FileNotFoundError:  # not there yet, or its training has ended
        return []


def until(condition, seconds: float = 300):
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)
    return answer


EPOCHS = 60  # of trainings that will be stopped midway


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Experiment:
    """An experiment of many epochs on a few recordings of noise."""
    folder, generator = tmp_path_factory.mktemp("noises"), np.random.default_rng(0)
    for word in ("hiss", "hum"):
        (folder / word).mkdir()
        for take in range(12):
            soundfile.write(folder / word / f"{take}.wav", 0.3 * generator.standard_normal(3000), 8000)
    return dataclasses.replace(SMALL, corpus=str(folder), model="2C3-P4-2FC", epochs=EPOCHS)


CALL = """
import sys
from scnn.experiment import Experiment
from scnn.search import search
search(Experiment.from_json(sys.argv[1]), {space}, trials=3, grace={epochs}, address={address!r})
"""


def test_search_whose_caller_is_stopped_resumes(long, cluster, home):
    base, stopped = dataclasses.replace(long, seed=1), {}
    call = CALL.format(space=SPACE, epochs=EPOCHS, address=cluster.address)
    command = [sys.executable, "-c", call, base.to_json()]
    for number, stop in enumerate([signal.SIGINT, signal.SIGKILL]):
        caller = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running = until(lambda caller=caller, number=number: under_way(base, home, number, caller))
        caller.send_signal(stop)
        output, errors = caller.communicate(timeout=120)
        assert output == b"" and (stop == signal.SIGKILL or errors.endswith(b"KeyboardInterrupt\n"))
        stopped[running] = [row["seconds"] for row in history(state_file(running))]
    result = search(base, SPACE, trials=3, grace=EPOCHS, address=cluster.address)
    assert (result.table["epochs"] == EPOCHS).all() and len(stopped) == 2
    for each, seconds in stopped.items():  # the same epochs: their time was not measured again
        assert len(seconds) >= 3 and run(each).history["seconds"].tolist()[: len(seconds)] == seconds


def under_way(base: Experiment, home: Path, ended: int, caller: subprocess.Popen) -> Experiment | None:
    """The trial that has run some epochs, once a given number of other trials of the search have ended."""
    assert caller.poll() is None, caller.communicate()[1].decode()
    for file in (home / "searches").glob("*.json"):
        content = json.loads(file.read_text())
        if content["search"]["base"] == json.loads(base.to_json()):
            last = dataclasses.replace(base, **content["trials"][-1]["parameters"])
            if len(content["trials"]) == ended + 1 and len(history(state_file(last))) >= 3:
                return last
    return None


def test_machine_that_is_lost_loses_nothing(long, cluster, home, tmp_path):
    other = tmp_path / "other machine's home"
    machine = cluster.add_node(num_cpus=1, env_vars={"SCNN_HOME": str(other)})
    lost = {}

    def lose_it():
        def under_way():
            for state in (tmp_path / "storage").glob("*/*.safetensors"):
                rows = history(state)
                if len(rows) >= 3 and (other / "runs" / f"{state.stem}.unfinished").exists():
                    return state.stem, rows
            return None

        lost["digest"], lost["rows"] = until(under_way)
        cluster.remove_node(machine, allow_graceful=False)

    killer = threading.Thread(target=lose_it)
    killer.start()
    result = search(
        long, SPACE, trials=3, grace=EPOCHS, address=cluster.address, storage=tmp_path / "storage"
    )
    killer.join()
    assert (result.table["epochs"] == EPOCHS).all() and (result.table["status"] == "finished").all()
    assert len(list((other / "runs").glob("*.unfinished"))) == 1  # it was killed during a training
    gone_on = pd.read_csv(home / "runs" / lost["digest"] / "history.csv")["seconds"].tolist()
    assert gone_on[: len(lost["rows"])] == [row["seconds"] for row in lost["rows"]]
    assert not list((tmp_path / "storage").rglob("*.safetensors"))


def test_failed_trial_is_told_of(cluster, monkeypatch):
    monkeypatch.setattr(scnn.search, "RESTARTS", 0)
    base, space = dataclasses.replace(SMALL, epochs=1), {"num_steps": [1, 2]}
    for steps in (1, 2):
        unfinished = state_file(dataclasses.replace(base, num_steps=steps)).parent
        unfinished.with_suffix(".lock").mkdir(parents=True)  # a folder where a file is expected
    with pytest.raises(RuntimeError, match=r"1 of 1 trials failed, one with: .*lock.*The same call"):
        search(base, space, trials=1, grace=1, address=cluster.address)


# --- a file that has changed ------------------------------------------------------------------------------

DAMAGES = {
    "another search": (lambda said: said | {"search": {}}, "not of this search"),
    "no description": (lambda said: {"trials": []}, "not of this search"),
    "no trials": (lambda said: {"search": said["search"]}, "checksum differs"),
    "not a search": (lambda said: [1], "not of this search"),
    "half of it": (lambda said: None, "not JSON, or damaged"),
    "lost trial": (lambda said: said | {"trials": said["trials"][1:]}, "checksum differs"),
    "changed result": (
        lambda said: said | {"trials": [each | {"accuracy": 1.0} for each in said["trials"]]},
        "checksum differs",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_named(damage, found, own_home):
    (file,) = own_home.glob("searches/*.json")
    spoil, message = DAMAGES[damage]
    text = file.read_text()
    spoilt = spoil(json.loads(text))
    file.write_text(json.dumps(spoilt) if spoilt else text[: len(text) // 2])
    with pytest.raises(ValueError, match=f"{file} cannot be resumed from .*{message}.*remove the file"):
        search(SMALL, SPACE, trials=6, kind="tpe", grace=1, reduction=2)


def test_a_kill_while_the_file_is_written_leaves_what_was_known(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    first = suggestions(tmp_path / "search.json", 1, "random")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files.os, "replace", killed)
        suggestions(tmp_path / "search.json", 2, "random")
    assert _Journal(tmp_path / "search.json", DESCRIBED).trials == [{"parameters": first[0]}]
    assert suggestions(tmp_path / "search.json", 2, "random")[:1] == first


# --- importance -------------------------------------------------------------------------------------------


def test_importance_is_of_what_matters():
    generator = np.random.default_rng(0)
    table = pd.DataFrame({"beta": generator.random(40), "num_steps": generator.integers(1, 4, 40)})
    table["accuracy"] = 1 - (table["beta"] - 0.3) ** 2
    shares = importance(table, SPACE)
    assert list(shares.index) == list(SPACE) and shares.sum() == pytest.approx(1)
    assert shares["beta"] > 0.95
    assert shares.equals(importance(table, SPACE))


# --- wrong input ------------------------------------------------------------------------------------------

WRONG = {
    "kind": ({"kind": "grid"}, "kind must be one of random, tpe, not 'grid'"),
    "trials": ({"trials": 0}, "trials must be a whole number of at least 1, not 0"),
    "seed": ({"seed": -1}, "seed must be a whole number"),
    "grace": ({"grace": 5}, "grace must be at most the 4 epochs"),
    "reduction": ({"reduction": 1}, "reduction must be a whole number of at least 2"),
    "concurrent": ({"max_concurrent": 0}, "max_concurrent must be a whole number"),
    "address": ({"address": "ray://here:10001"}, "address must be HOST:PORT or auto"),
    "nothing": ({"space": {}}, "space is empty; it must name one or more of features, model, num_steps"),
    "objectives": ({"objectives": ("sparsity_all",)}, "objectives must be .* accuracy among them"),
    "no objective": ({"objectives": ("accuracy", "speed")}, "of accuracy, sparsity_all, instructions"),
    "no field": ({"space": {"leak": (0.0, 1.0)}}, "space has 'leak'; valid: features, model, num_steps"),
    "fixed": ({"space": {"epochs": (1, 5)}}, "space has 'epochs'; valid: features, model"),
    "one end": ({"space": {"beta": (0.5,)}}, r"space\['beta'\] must be a tuple"),
    "turned": ({"space": {"beta": (1.0, 0.0)}}, r"space\['beta'\] must be \(lowest, highest\)"),
    "not whole": ({"space": {"num_steps": (1, 2.5)}}, r"space\['num_steps'\] must be .* of type int"),
    "range of names": ({"space": {"model": ("A", "B")}}, r"space\['model'\] must be a tuple"),
    "one choice": ({"space": {"model": ["A"]}}, r"space\['model'\] must be .* two or more choices"),
    "too large": ({"space": {"beta": (0.0, 2.0)}}, "beta"),
    "no such model": ({"space": {"model": ["A", "Z"]}}, "'Z'"),
    "no validation": ({"base": dataclasses.replace(SMALL, validation=0.0)}, "leaves no clips to guide"),
    "outputs": ({"base": dataclasses.replace(SMALL, model="2C3-P4-9FC")}, "ends with 9FC"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_named(wrong):
    change, message = WRONG[wrong]
    arguments = {"base": SMALL, "space": SPACE, "trials": 2} | change
    with pytest.raises(ValueError, match=message):
        search(**arguments)


@pytest.mark.parametrize("missing", ["ray", "optuna"])
def test_without_the_extra_it_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    spec = importlib.util.spec_from_file_location("without_the_extra", scnn.search.__file__)
    with pytest.raises(ModuleNotFoundError, match=rf"{missing} is missing: pip install .*\[search\]"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
