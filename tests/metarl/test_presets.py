"""Experiment presets: importable, found by task and learner, extended by one's own."""

from dataclasses import replace

import pytest

import metarl
from metarl import presets
from metarl.algorithms.maml import MAML
from metarl.envs.registry import TASKS, find_preset
from metarl.presets.half_cheetah import DIR_MAML
from metarl.runs.experiment import Experiment


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_KNOWN", {key: dict(known) for key, known in presets._KNOWN.items()})


def test_presets_are_python_found_by_task_and_learner() -> None:
    found = metarl.presets.find("half_cheetah_dir", "maml")
    assert list(found)[:3] == ["tuned", "demo", "gpu"]
    assert found["tuned"] == replace(DIR_MAML["tuned"], preset="tuned")
    assert presets.find("half_cheetah_dir", "es_maml") == {}
    assert presets.find("nowhere", "maml") == {}
    assert presets.learners("half_cheetah_dir") == ["maml", "promp", "rl2", "pearl"]


def test_every_preset_knows_its_name_and_task_and_runs_are_its_own() -> None:
    known = [
        (t, learner, n, e)
        for t in TASKS
        for learner in presets.learners(t)
        for n, e in presets.find(t, learner).items()
    ]
    assert len(known) == len({(task, learner, name) for task, learner, name, _ in known}) > 60
    for task, learner, name, experiment in known:
        assert (experiment.preset, experiment.task.name) == (name, task)
        assert presets.make(task, learner, name) == experiment


def test_none_is_the_first_or_an_untuned_default() -> None:
    assert presets.make("half_cheetah_dir", "maml").preset == "tuned"
    experiment = presets.make("half_cheetah_dir", "reptile")
    assert (experiment.preset, type(experiment.learner).__name__) == ("default", "Reptile")
    assert experiment.task == find_preset("half_cheetah_dir")
    assert presets.make("half_cheetah_dir", "reptile", task_preset="v5").task == find_preset("half_cheetah_dir", "v5")


def test_a_definition_takes_the_place_of_a_presets_own() -> None:
    changed = presets.make("half_cheetah_dir", "maml", "promp", "v5")
    assert changed == replace(DIR_MAML["promp"], preset="promp", task=find_preset("half_cheetah_dir", "v5"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("nowhere", "maml"), "task is 'nowhere': use one of ant_damaged, "),
        (("navigation", "sac"), "learner is 'sac': use one of maml, promp, reptile, es_maml, rl2"),
        (("navigation", "rl2", "tuned"), "preset is 'tuned': navigation with rl2 has corner, maml2017"),
        (("hopper_rand_params", "maml", "tuned"), r"preset is 'tuned': hopper_rand_params with maml has none \(leave"),
        (("navigation", "rl2", None, "v5"), "preset is 'v5': navigation has maml2017, corner"),
    ],
)
def test_unknown_names_are_refused_with_those_there_are(asked: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        presets.make(*asked)


def test_presets_of_ones_own_stand_beside_the_others() -> None:
    own = Experiment(task=find_preset("navigation"), learner=MAML(inner_lr=0.25))
    presets.add({"mine": own})
    assert presets.find("navigation", "maml")["mine"] == replace(own, preset="mine")
    assert presets.make("navigation", "maml").preset == "maml2017"  # the default stays
    first = Experiment(task=find_preset("hopper_rand_params"), learner=MAML())
    presets.add({"first": first, "second": first})
    assert presets.make("hopper_rand_params", "maml").preset == "first"
    assert presets.learners("hopper_rand_params") == ["maml"]
