"""Search over an experiment's parameters, random or Bayesian, on Ray Tune: one machine or a cluster.

`search` suggests parameters, trains an `Experiment` for each and stops the unpromising ones early. It writes
down what it suggested and what came out, so that the same call goes on where an earlier one was stopped. With
several objectives, such as accuracy and instructions, it looks for the front between them.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from scnn import metrics
from scnn.data import fingerprint
from scnn.deploy import cost
from scnn.experiment import Experiment, load_data, run, state_file
from scnn.features import Features
from scnn.files import atomic_write, cache_dir, locked, parse_json, read_json, write_json
from scnn.training import Diverged

# In a notebook, importing Ray would tell that ipywidgets are missing, which nothing here uses.
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
try:
    import optuna
    import ray
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
        distribution_to_json,
    )
    from pyarrow.fs import FileSystem, FileType, copy_files
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
    from ray.tune.search.optuna import OptunaSearch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"scnn.search needs Ray Tune and Optuna; {error.name} is missing: pip install 'scnn-audio[search]'",
        name=error.name,
    ) from error

KINDS = ("random", "tpe")
# What a search can be after, and whether the most or the least of it. `instructions` are those of a word on
# a Cortex-M4 as `scnn.deploy.cost.estimate` has them, which needs neither compiler nor emulator.
OBJECTIVES = {"accuracy": "max", "sparsity_all": "max", "instructions": "min", "packed_bytes": "min"}
SPACE = {"threshold": (0.0, 5.0), "num_steps": (1, 25), "beta": (0.0, 1.0)}  # the paper's, whose T began at 0
STARTUP = 5  # trials of kind "tpe" that are drawn at random, before there is something to learn from
RESTARTS = 3  # of one trial, each after its machine or process was lost
FORMAT = 1  # raise it when the same search comes to suggest or to write down something else
_FIXED = ("corpus", "split", "test", "validation", "epochs", "seed")  # or trials do not compare
_WORST = 1e12  # instructions or bytes of a training that diverged
_TYPES = {each.name: each.type for each in dataclasses.fields(Experiment)}
_MEASURED = ("sparsity_first", "sparsity_all", "test_accuracy", "seconds")  # after a trial's last epoch
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints its settings even where it is to be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a corpus may be a relative path
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is to reach the caller
}
_SOCKET = "/ray/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"  # in Ray's temporary folder
_LONGEST = 103  # bytes in the path of a socket, on macOS; Linux allows four more
_OBJECT_STORE = 80 * 2**20  # bytes; nothing large travels through it


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        table: a row a trial, in the order of suggestion: the parameters; `status`, which is "finished" or
            "stopped" (early); `epochs` trained; and on the validation clips, after the last of them,
            `accuracy`, `sparsity_first` and `sparsity_all`, all in 0..1. `test_accuracy` is there for the
            chosen trial alone. With further `objectives` there is a column for each.
        best: the chosen trial: of the finished ones that of the highest validation accuracy, and of several
            such the sparsest.
    """

    table: pd.DataFrame
    best: Experiment


def search(
    base: Experiment,
    space: Mapping[str, tuple[float, float] | list] = SPACE,
    *,
    trials: int,
    kind: str = "random",
    objectives: Sequence[str] = ("accuracy",),
    seed: int = 0,
    grace: int = 2,
    reduction: int = 3,
    address: str | None = None,
    storage: str | Path | None = None,
    max_concurrent: int | None = None,
) -> Search:
    """Train `trials` variations of `base` and choose the one of the highest validation accuracy.

    Suggestion n depends on the seed, on n and, for "tpe", on the results known by then. So a random search
    always tries the same parameters; "tpe" does so with `max_concurrent` 1, and where several trials run at
    once, their order of arrival matters. What ASHA stops depends on that order for both kinds.

    An interrupted search (Ctrl-C, a kill, a lost machine) goes on with the same call, and a call with more
    trials adds to it: what ended is read, what was under way resumes after its last epoch.

    Args:
        base: what is not searched over; its validation clips guide the search, its test clips do not. The
            accuracy is that of its `readout`.
        space: of each parameter a tuple (lowest, highest), both included, or a list of choices.
        trials: how many, with those of earlier calls.
        kind: "random", or "tpe", Optuna's tree-structured Parzen estimator, which learns from earlier trials.
        objectives: one or more of `OBJECTIVES`, the accuracy among them. With several, "tpe" looks for trials
            that no other beats in all of them (`scnn.metrics.pareto` finds these in the table), and no trial
            is stopped early, as one that is less accurate may be cheaper.
        seed: of the suggestions. The seed of the trainings is that of `base`.
        grace: epochs before ASHA, the asynchronous successive halving, stops a trial.
        reduction: after `grace` epochs, and after `reduction` times as many again and again, a trial goes on
            only if it is among the best 1 / `reduction` of the trials that have reached it so far.
        address: of a Ray cluster, HOST:PORT or "auto", to be called on one of its machines. None starts Ray
            here.
        storage: folder or URI (s3://...) that all machines reach. There the state of every unfinished
            training is kept, so that another machine can go on with it. Not needed on one machine, or where
            SCNN_HOME is shared.
        max_concurrent: trials at once, by default one for each CPU. A trial uses one CPU, and one thread of
            it.

    Raises:
        ValueError: parameters are not valid, and the message lists what is; or the search's folder is damaged
            or foreign, and the message names it.
        RuntimeError: a trial failed.
    """
    distributions = _check(base, space, trials, kind, seed, grace, reduction, address, max_concurrent)
    objectives = _check_objectives(objectives)
    described = {
        "format": FORMAT,
        "base": json.loads(base.to_json()),
        "corpus": fingerprint(base.corpus),
        "space": {name: distribution_to_json(values) for name, values in distributions.items()},
        "kind": kind,
        "seed": seed,
        "asha": [grace, reduction],
    }
    if len(objectives) > 1:  # of one there were searches before there could be more
        described["objectives"] = list(objectives)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:20]
    folder = cache_dir() / "searches" / digest
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        journal = _Journal(folder, described, objectives)
        if storage is not None:
            where = str(storage) if "://" in str(storage) else str(Path(storage).resolve())
            storage = f"{where.rstrip('/')}/{digest}"
        if any(number not in journal.ended for number in range(trials)):
            epochs = base.training().epochs
            scheduler: TrialScheduler = ASHAScheduler("epoch", "accuracy", "max", epochs, grace, reduction)
            rungs = sorted({min(grace * reduction**k, epochs) for k in range(epochs)})
            if len(objectives) > 1:
                scheduler, rungs = FIFOScheduler(), [epochs]
            with _session(address):
                _tune(
                    base,
                    distributions,
                    journal,
                    trials,
                    kind,
                    seed,
                    scheduler,
                    rungs,
                    storage,
                    max_concurrent,
                )
        _clean(base, journal, storage)  # also what a search that was killed at its end has left
        return _result(base, journal, trials)


def importance(table: pd.DataFrame, space: Mapping[str, tuple | list] = SPACE, seed: int = 0) -> pd.Series:
    """How much of the variance of the validation accuracy each parameter explains; the sum is 1.

    fANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014) as in Optuna: a random forest is fitted to the trials of
    `table`, and for each parameter the forest's answer is averaged over all others. What parameters do only
    together is left out. A trial that was stopped early counts with the accuracy that it had.
    """
    distributions = {name: _distribution(name, values) for name, values in space.items()}
    with _optuna_quiet():
        study = optuna.create_study(direction="maximize")
        for row in table[[*space, "accuracy"]].to_dict("records"):
            value = row.pop("accuracy")
            study.add_trial(optuna.trial.create_trial(params=row, distributions=distributions, value=value))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(space))
    return pd.Series(shares, name="importance").reindex(list(space))


def _check(base, space, trials, kind, seed, grace, reduction, address, max_concurrent):
    """The distribution of each parameter; `ValueError` for what cannot be searched."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    counts = {"trials": (trials, 1), "seed": (seed, 0), "grace": (grace, 1), "reduction": (reduction, 2)}
    if max_concurrent is not None:
        counts["max_concurrent"] = (max_concurrent, 1)
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    epochs = base.training().epochs
    if grace > epochs:
        raise ValueError(f"grace must be at most the {epochs} epochs of the base, not {grace}")
    if address is not None and address.startswith("ray://"):
        raise ValueError(f"address must be HOST:PORT or auto, not {address!r}; call from inside the cluster")
    valid = ", ".join(name for name in _TYPES if name not in _FIXED)
    if not space:
        raise ValueError(f"space is empty; it must name one or more of {valid}")
    for name, values in space.items():
        if name not in _TYPES or name in _FIXED:
            raise ValueError(f"space has {name!r}; valid: {valid}")
        range_of = isinstance(values, tuple) and len(values) == 2 and _TYPES[name] in (int, float)
        choices = isinstance(values, list) and len(set(values)) > 1
        allowed = (int, float) if _TYPES[name] is float else (_TYPES[name],)
        if not (range_of or choices) or any(type(value) not in allowed for value in values):
            raise ValueError(
                f"space[{name!r}] must be a tuple (lowest, highest) or a list of two or more choices, "
                f"of type {_TYPES[name].__name__}, not {values!r}"
            )
        if range_of and not values[0] < values[1]:
            raise ValueError(f"space[{name!r}] must be (lowest, highest), not {values!r}")
        for value in values:  # what Experiment refuses is said before anything is trained
            dataclasses.replace(base, **{name: value})
    data = load_data(base)  # this also leaves the features in the cache, for all trials
    base.build(len(data.corpus.classes))
    if not len(data.split.validation):
        raise ValueError(
            f"validation = {base.validation} of the base leaves no clips to guide the search; use e.g. 0.2, "
            "or split = 'speaker:NAME,OTHER'"
        )
    return {name: _distribution(name, values) for name, values in space.items()}


def _check_objectives(objectives: Sequence[str]) -> tuple[str, ...]:
    named = tuple(objectives)
    if "accuracy" not in named or len(set(named)) < len(named) or not set(named) <= OBJECTIVES.keys():
        raise ValueError(
            f"objectives must be different ones of {', '.join(OBJECTIVES)}, and accuracy among them, "
            f"not {objectives!r}"
        )
    return named


def _distribution(name: str, values: tuple | list) -> BaseDistribution:
    if isinstance(values, list):
        plain = [json.dumps(asdict(each)) if isinstance(each, Features) else each for each in values]
        return CategoricalDistribution(plain)
    return (IntDistribution if _TYPES[name] is int else FloatDistribution)(*values)


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as `Experiment` takes them: a suggestion has features as JSON."""
    return {
        name: Features(**json.loads(value)) if name == "features" else value
        for name, value in parameters.items()
    }


class _Journal:
    """What is known of a search: in its folder a line for each suggestion, and one for each trial's end."""

    def __init__(self, folder: Path, described: dict[str, Any], objectives: Sequence[str] = ("accuracy",)):
        self.objectives = objectives
        self.measured = (*_MEASURED, *(name for name in objectives if name not in ("accuracy", *_MEASURED)))
        self.file = folder / "trials.jsonl"
        self.suggested: dict[int, dict[str, Any]] = {}
        self.ended: dict[int, dict[str, Any]] = {}
        about = folder / "search.json"
        advice = "remove the folder to search anew (what was trained completely is remembered elsewhere)"
        if self.file.exists() or about.exists():
            try:
                if read_json(about) != described:
                    raise ValueError("search.json is of another search")
                self._read(set(described["space"]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{folder} cannot be resumed from ({error}); {advice}") from error
        else:
            write_json(about, described)

    def _read(self, names: set[str]) -> None:
        text = self.file.read_text() if self.file.exists() else ""
        whole, _, torn = text.rpartition("\n")
        if torn:  # by a kill while it was written
            with atomic_write(self.file) as file:
                file.write_text(whole and f"{whole}\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._take(parse_json(line, self.file), names)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"line {number} of {self.file.name}: {error!r}") from error

    def _take(self, entry: dict[str, Any], names: set[str]) -> None:
        number = entry["trial"]
        if "parameters" in entry:
            if number != len(self.suggested) or set(entry["parameters"]) != names:
                raise ValueError("a suggestion out of order, or of another space")
            self.suggested[number] = entry["parameters"]
        else:
            known = entry.keys() >= {"status", "accuracies", *self.measured}
            if number not in self.suggested or not known or not entry["accuracies"]:
                raise ValueError("the end of a trial that was not suggested, or without an epoch")
            self.ended[number] = entry

    def suggest(self, number: int, parameters: dict[str, Any]) -> None:
        if number not in self.suggested:
            self.suggested[number] = parameters
            self._write({"trial": number, "parameters": parameters})

    def end(self, number: int, outcome: dict[str, Any]) -> None:
        self.ended[number] = {"trial": number, **outcome}
        self._write(self.ended[number])

    def _write(self, entry: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


class _Sampler(optuna.samplers.BaseSampler):
    """Suggestion n from the seed, n and the results that are known, whatever was suggested in between.

    An Optuna sampler continues a stream of random numbers, which would start again in a search that is gone
    on with. So each suggestion here has a sampler of its own. What was suggested before is suggested again.
    """

    def __init__(self, kind: str, seed: int, numbers: list[int], suggested: dict[int, dict[str, Any]]):
        self.kind, self.seed, self.numbers, self.suggested = kind, seed, numbers, suggested

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        number = self.numbers[trial.number]
        if number in self.suggested:
            return self.suggested[number][param_name]
        basis = f"{self.kind} {self.seed} {number} {param_name}".encode()
        seed = int.from_bytes(hashlib.sha256(basis).digest()[:4], "big")
        if self.kind == "tpe":
            sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)
        else:
            sampler = optuna.samplers.RandomSampler(seed=seed)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class _Suggestions(OptunaSearch):
    """Optuna's suggestions, each with its number, and written down before it is tried."""

    def __init__(self, distributions, sampler: _Sampler, journal: _Journal, known: int):
        names = list(journal.objectives)
        one, modes = len(names) == 1, [OBJECTIVES[name] for name in names]
        super().__init__(
            distributions, names[0] if one else names, modes[0] if one else modes, sampler=sampler
        )
        self.numbers, self.journal, self.given = sampler.numbers, journal, known

    def suggest(self, trial_id: str) -> dict[str, Any]:
        parameters = super().suggest(trial_id) or {}
        number = self.numbers[self.given]
        self.given += 1
        self.journal.suggest(number, parameters)
        return {"number": number, "parameters": parameters}

    def know(self, number: int, end: dict[str, Any]) -> None:
        """Take in how a trial ended in an earlier call."""
        last = end | {"accuracy": end["accuracies"][-1]}
        values = [last[name] for name in self.journal.objectives]
        parameters, study, space = self.journal.suggested[number], cast(Any, self._ot_study), self._space
        study.add_trial(
            optuna.trial.create_trial(params=parameters, distributions=cast(Any, space), values=values)
        )


class _Watch(tune.Callback):
    """Writes down how trials end, and shows the progress on a terminal."""

    def __init__(self, journal: _Journal, bar: tqdm, epochs: int):
        self.journal, self.bar, self.epochs = journal, bar, epochs
        self.accuracies: dict[int, dict[int, float]] = {}

    def __getstate__(self):  # Ray keeps a copy, for a restoring that is not used here
        return {}

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.accuracies.setdefault(trial.config["number"], {})[result["epoch"]] = result["accuracy"]

    def on_trial_complete(self, iteration, trials, trial, **info):
        number, last = trial.config["number"], trial.last_result
        accuracies = [value for _, value in sorted(self.accuracies[number].items())]
        status = "finished" if len(accuracies) == self.epochs else "stopped"
        outcome = {"status": status, "accuracies": accuracies} | {
            name: None if np.isnan(last[name]) else last[name] for name in self.journal.measured
        }
        self.journal.end(number, outcome)
        self.bar.update()
        self.bar.set_postfix(best=f"{max(end['accuracies'][-1] for end in self.journal.ended.values()):.3f}")


def _tune(
    base, distributions, journal, trials, kind, seed, scheduler, rungs, storage, max_concurrent
) -> None:
    """Run what is left of the search, in the Ray session that is there."""
    under_way = [n for n in journal.suggested if n < trials and n not in journal.ended]
    left = [*under_way, *range(len(journal.suggested), trials)]
    known = len(journal.ended)
    numbers = [*journal.ended, *left]  # in the order that Optuna counts in
    with _optuna_quiet(), tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The reported value is ignored")  # epochs of a trial begun again
        sampler = _Sampler(kind, seed, numbers, dict(journal.suggested))
        suggestions = _Suggestions(distributions, sampler, journal, known)
        for number, end in journal.ended.items():
            suggestions.know(number, end)
            _judge_again(scheduler, f"ended {number}", end["accuracies"])
        bar = tqdm(total=trials, initial=trials - len(left), desc=f"{kind} search", disable=None, leave=False)
        with bar:
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(
                        _train, base=base, storage=storage, rungs=rungs, objectives=journal.objectives
                    ),
                    {"cpu": 1},
                ),
                tune_config=tune.TuneConfig(
                    search_alg=suggestions,
                    scheduler=scheduler,
                    num_samples=len(left),
                    max_concurrent_trials=max_concurrent or max(1, int(ray.cluster_resources()["CPU"])),
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    name="search",
                    failure_config=tune.FailureConfig(max_failures=RESTARTS),
                    callbacks=[_Watch(journal, bar, base.training().epochs)],
                    verbose=0,
                ),
            )
            failed = tuner.fit().errors
    if failed:
        last_line = str(failed[0]).strip().splitlines()[-1]
        raise RuntimeError(
            f"{len(failed)} of {trials} trials failed, one with: {last_line}. "
            "The same call goes on with them; what ended is kept."
        )


def _judge_again(scheduler: TrialScheduler, name: str, accuracies: list[float]) -> None:
    """Let ASHA know the accuracies of a trial that ended in an earlier call."""
    trial = tune.experiment.Trial("past", trial_id=name, stub=True)
    nobody: Any = None  # runs it: it ended
    scheduler.on_trial_add(nobody, trial)
    for epoch, accuracy in enumerate(accuracies, start=1):
        scheduler.on_trial_result(nobody, trial, {"epoch": epoch, "accuracy": accuracy})
    scheduler.on_trial_remove(nobody, trial)


def _train(
    config: dict[str, Any],
    base: Experiment,
    storage: str | None,
    rungs: list[int],
    objectives: Sequence[str],
) -> None:
    """One trial, in a process of Ray's: train, and tell Tune of every epoch.

    Sparsity takes a while to measure, so it is told only where a trial may end: at the `rungs` and at last.
    """
    experiment = dataclasses.replace(base, **_given(config["parameters"]))
    data = load_data(experiment)
    clips = data.part(data.split.validation)[0]
    by = "accuracy_membrane" if experiment.readout == "membrane" else "accuracy"
    state, kept, told = state_file(experiment), f"{storage}/{experiment.digest}.safetensors", 0

    def tell(network, history, at_last=None):
        nonlocal told
        measured = dict.fromkeys({*_MEASURED, *objectives}, np.nan) | (at_last or {})
        if len(history) in rungs or len(history) > told + 1:  # or epochs of an earlier call are told again
            active = metrics.activity(network, clips)
            first, whole = float(active["sparsity"].iloc[0]), metrics.sparsity(active)
            measured |= {"sparsity_first": first, "sparsity_all": whole}
        rows, told = history[told:], len(history)
        for row in rows:
            epoch = int(row["epoch"])
            seconds = sum(each["seconds"] for each in history[:epoch])
            now = {"epoch": epoch, "accuracy": row[f"held_out_{by}"], "seconds": seconds}
            tune.report(measured | now)

    def after_epoch(network, history):
        if storage is not None:
            _copy(state, kept)
        if len(history) < experiment.training().epochs:  # the last one is told of with what the record says
            tell(network, history)

    if storage is not None and _exists(kept):
        state.parent.mkdir(parents=True, exist_ok=True)
        copy_files(kept, str(state))
    try:
        record = run(experiment, after_epoch)
    except Diverged:  # no answer is as bad; the other trials go on
        worst = {name: 0.0 if OBJECTIVES[name] == "max" else _WORST for name in objectives}
        tune.report(dict.fromkeys(_MEASURED, np.nan) | {"epoch": told + 1} | worst)
        return
    network, at_last = record.network(), {"test_accuracy": record.metrics[by]}
    if "packed_bytes" in objectives:
        at_last["packed_bytes"] = record.metrics["packed_bytes"]
    if "instructions" in objectives:
        at_last["instructions"] = cost.estimate(network, clips, data.images.window[data.split.validation])
    tell(network, record.history.to_dict("records"), at_last)


def _exists(place: str) -> bool:
    system, path = FileSystem.from_uri(place)
    return system.get_file_info(path).type == FileType.File


def _copy(source: Path, place: str) -> None:
    """Copy a file to a path or URI, where it is either the old one or the new one at any time."""
    system, path = FileSystem.from_uri(place)
    system.create_dir(str(Path(path).parent))
    copy_files(str(source), f"{place}.part")
    system.move(f"{path}.part", path)


def _clean(base: Experiment, journal: _Journal, storage: str | None) -> None:
    """Remove the training states of the trials that were stopped: nothing will go on from them."""
    for number, end in journal.ended.items():
        if end["status"] == "stopped":
            experiment = dataclasses.replace(base, **_given(journal.suggested[number]))
            folder = state_file(experiment).parent
            if folder.exists():
                # Where another process holds the lock, the folder is in use.
                with suppress(Timeout), FileLock(folder.with_suffix(".lock"), timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
    if storage is not None:
        system, path = FileSystem.from_uri(storage)
        if system.get_file_info(path).type == FileType.Directory:
            system.delete_dir(path)


def _result(base: Experiment, journal: _Journal, trials: int) -> Search:
    rows = []
    for number in range(trials):
        end = journal.ended[number]
        rows.append(
            _given(journal.suggested[number])
            | {"status": end["status"], "epochs": len(end["accuracies"]), "accuracy": end["accuracies"][-1]}
            | {name: np.nan if end[name] is None else end[name] for name in journal.measured}
        )
    table = pd.DataFrame(rows).rename_axis("trial")
    finished = table[table["status"] == "finished"]
    best = finished.sort_values(["accuracy", "sparsity_all"], ascending=False, kind="stable").index[0]
    table.loc[table.index != best, "test_accuracy"] = np.nan
    return Search(table, dataclasses.replace(base, **_given(journal.suggested[best])))


@contextmanager
def _session(address: str | None) -> Iterator[None]:
    """A Ray session without a word on the terminal: the one that is there, or one for as long as it takes."""
    if ray.is_initialized():
        yield
        return
    before = dict(os.environ)
    os.environ.update({name: value for name, value in _QUIET.items() if name not in before})
    here: dict[str, Any] = {"include_dashboard": False, "num_gpus": 0, "object_store_memory": _OBJECT_STORE}
    try:
        ray.init(
            address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else here | _short_folder()),
        )
        yield
    finally:
        ray.shutdown()
        for name in _QUIET.keys() - before.keys():
            del os.environ[name]


def _short_folder() -> dict[str, str]:
    """Where Ray is to keep its sockets, if the path of the temporary folder is too long for them."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    most = _LONGEST - len(_SOCKET)
    if sys.platform == "win32" or len(os.fsencode(folder)) <= most:
        return {}
    if "RAY_TMPDIR" not in os.environ and os.access("/tmp", os.W_OK):
        return {"_temp_dir": "/tmp/ray"}  # Ray's own choice where TMPDIR is not set
    raise OSError(
        f"the temporary folder {folder} has too long a path for Ray's sockets: set RAY_TMPDIR to a folder "
        f"whose path has at most {most} bytes"
    )


@contextmanager
def _optuna_quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
