"""A policy and an algorithm that a user defines in files: from training to evaluation, resuming and Python."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch.func import grad

import metarl
from metarl import cli, extensions, presets
from metarl.cli.parse import choose_all
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.extensions import LEARNERS, PARTS, load_installed, members, register
from metarl.losses.policy_gradient import ratio_loss
from metarl.networks.encoders import CNN, Encoder, Identity
from metarl.networks.hyper import HyperPolicy
from metarl.networks.mlp import MLP, CategoricalMLP, GaussianMLP
from metarl.networks.protocol import MemoryPolicy, Policy
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs.code import run_code
from metarl.runs.config import from_json, to_json
from metarl.runs.experiment import Experiment
from metarl.runs.folder import load_experiment
from metarl.seeds import stream
from metarl.train import Progress, train
from metarl.types import Experience

pytestmark = pytest.mark.usefixtures("one_thread")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
POLICY, LEARNER = EXPERIMENTS / "own_network.py", EXPERIMENTS / "own_algorithm.py"
TINY = ["--num-tasks", "2", "--num-envs", "2", "--episodes", "2", "--horizon", "4", "--eval-interval", "0"]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """What is registered inside is forgotten afterwards."""
    known = [(registry, dict(registry)) for registry in (LEARNERS, *PARTS.values(), presets._KNOWN)]
    yield
    for registry, before in known:
        registry.clear()
        registry.update(before)
    load_installed.cache_clear()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_request:
        cli.main(list(arguments))
    assert exit_request.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("options", "file", "recorded", "said"),
    [
        (
            ["--learner", "anil", "--clip", "0.1"],
            LEARNER,
            ("ANIL", "MLP"),
            "its learner, ANIL, is none of MAML",
        ),
        (
            ["--learner", "maml", "--policy", "two-heads", "--width", "8"],
            POLICY,
            ("MAML", "TwoHeads"),
            "policy is of the class TwoHeads, defined nowhere here: use MLP, GaussianMLP, CategoricalMLP",
        ),
    ],
    ids=["algorithm", "network"],
)
def test_it_is_trained_reopened_evaluated_and_resumed_where_its_file_is_named(
    options: list[str],
    file: Path,
    recorded: tuple[str, str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, code = tmp_path / "own", ["--code", str(file)]
    start = ["train", "navigation", *options, *code, *TINY, "--iterations", "1", "--runs", str(tmp_path)]
    cli.main([*start, "--name", "own"])
    assert f"metarl evaluate {run} --code {file}" in capsys.readouterr().out
    learner = json.loads((run / "config.json").read_text())["learner"]
    assert (learner["class"], learner["policy"]["class"]) == recorded
    assert str(file.stem) not in (run / "config.json").read_text(), "names of classes, and never where to find them"

    LEARNERS.pop("ANIL", None)
    PARTS[Policy].pop("TwoHeads", None)
    test = ["evaluate", str(run), "--tasks", "2", "--steps", "1", "--pretrain-iterations", "0"]
    refusal = refused(capsys, *test)
    assert said in refusal
    assert refusal.endswith("name the file that defines it with --code")
    cli.main([*test, *code])
    assert (run / "evaluation.json").exists()
    cli.main(["train", "--resume", str(run), "--iterations", "2", *code])
    assert len((run / "progress.csv").read_text().splitlines()) == 1 + 2
    assert metarl.load(run).trial(seed=0).act([0.0, 0.0]).shape == (2,)


def test_anil_is_finite_differences_of_the_adapted_policies_loss_and_adapts_the_last_layer_alone() -> None:
    """To first order the meta-gradient is that of the loss at phi; checked for each task by torch.func.grad alone."""
    run_code(LEARNER)
    tasks = find_preset("navigation", horizon=5)
    learner = LEARNERS["ANIL"](policy=MLP((4,)), epochs=1, learning_rate=0.1)
    env, batches = tasks.make(3, 2, seed=0), []
    state = learner.init(tasks.spec, stream(0, "parameters"))
    progress = Progress(state, *(stream(0, name) for name in ("tasks", "actions", "updates")))

    def update(now, experience: Experience, generator: torch.Generator):
        batches.extend(experience.batches)
        return type(learner).update(learner, now, experience, generator)

    object.__setattr__(learner, "update", update)  # of a frozen dataclass
    train(learner, tasks, env, progress, iterations=1, episodes=2, begin=lambda: None, log=lambda _: None)
    pre, post = batches
    phi = learner.adapt(state, learner.actor(state, 3), pre)
    changed = {name for name in state.meta if not torch.equal(phi[name], state.meta[name].expand_as(phi[name]))}
    assert changed == {"weight_1", "bias_1"}
    slopes = []
    for task in range(3):
        own = type(post)(*(x[task] if torch.is_tensor(x) else type(x)(*(y[task] for y in x)) for x in post))
        slopes.append(grad(lambda p: ratio_loss(learner.policy, p, own))({n: x[task] for n, x in phi.items()}))  # noqa: B023
    for name, before in state.meta.items():
        slope = torch.stack([one[name] for one in slopes]).mean(0)
        step = 0.1 * slope / (slope.abs() + 1e-8)  # Adam's first
        torch.testing.assert_close(progress.learner_state.meta[name], before - step, rtol=1e-3, atol=1e-4)


def test_what_is_registered_must_be_a_class_of_its_kind_and_have_a_name_of_its_own() -> None:
    @dataclass(frozen=True)
    class Nothing:
        width: int = 3

    with pytest.raises(BadField, match="Nothing: use a subclass of Encoder, MemoryPolicy, Policy, or a MetaLearner"):
        register(Nothing)
    with pytest.raises(BadField, match="use a frozen dataclass"):
        register(int)
    with pytest.raises(BadField, match=r"Maml: metarl\.algorithms\.maml has a MAML, call yours something else"):
        register(type("Maml", (metarl.MAML,), {}))
    with pytest.raises(BadField, match=r"MLP: metarl\.networks\.mlp has a MLP"):
        register(type("MLP", (MLP,), {}))


def test_an_open_field_holds_what_is_registered_and_nothing_else() -> None:
    assert members(Policy) == (MLP, GaussianMLP, CategoricalMLP)
    assert members(MemoryPolicy) == (RecurrentPolicy, HyperPolicy)
    assert members(Encoder | None) == (Identity, CNN, type(None))

    class Unregistered(MLP):
        pass

    recorded = to_json(metarl.MAML()) | {"policy": {"class": "Unregistered"}}
    with pytest.raises(ValueError, match="policy is of the class Unregistered, defined nowhere here"):
        from_json(metarl.MAML, recorded)
    for hostile in ("os.system", "__import__", "CNN", "RecurrentPolicy", "MAML"):
        with pytest.raises(ValueError, match="policy is of the class"):
            from_json(metarl.MAML, recorded | {"policy": {"class": hostile}})


def test_parts_of_parts_are_picked_with_their_options() -> None:
    arguments = ["--encoder", "cnn", "--image", "1", "1", "1", "--kernel", "1", "--filters", "2", "--policy", "mlp"]
    learner, left = choose_all(metarl.MAML(policy=CategoricalMLP()), [*arguments, "--inner-lr", "1"])
    assert learner.policy == MLP(encoder=CNN((1, 1, 1), kernel=1, filters=(2,)))
    assert left == [*arguments[2:-2], "--inner-lr", "1"]
    assert choose_all(learner, ["--encoder", "identity"])[0].policy.encoder == Identity()
    with pytest.raises(
        ValueError, match="encoder is 'rnn': use one of identity, cnn, or name the file that defines it"
    ):
        choose_all(learner, ["--encoder", "rnn"])


def test_a_picture_is_learned_from_by_the_command(tmp_path: Path) -> None:
    """A bandit's one observation, as a picture of one pixel."""
    picture = ["--encoder", "cnn", "--image", "1", "1", "1", "--kernel", "1", "--filters", "2", "--features", "3"]
    options = ["--normalize-obs", "--num-tasks", "2", "--iterations", "1", "--eval-interval", "0", "--name"]
    for learner in ("maml", "rl2"):
        own = ["--learner", learner, "--runs", str(tmp_path), *picture, *options, learner]
        cli.main(["train", "bandit", *own, *(["--episodes", "2"] if learner == "rl2" else [])])
        assert load_experiment(tmp_path / learner).learner.policy.encoder.features == 3


def test_installed_packages_add_theirs_by_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --code; a package that cannot be imported costs a warning. Nothing is loaded until it is asked for."""
    (tmp_path / "a_package_of_its_own.py").write_text(LEARNER.read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [
        EntryPoint("anil", "a_package_of_its_own:ANIL", "metarl.learners"),
        EntryPoint("broken", "no_such_package:Policy", "metarl.policies"),
    ]
    monkeypatch.setattr(extensions, "entry_points", lambda group: [e for e in found if e.group == group])
    load_installed.cache_clear()
    assert [entry.name for entry in extensions.installed()] == ["anil", "broken"]
    assert "a_package_of_its_own" not in sys.modules
    with pytest.warns(UserWarning, match=r"entry point broken \(no_such_package:Policy\) is left out"):
        cli.main(["train", "navigation", "--learner", "anil", *TINY, "--iterations", "1", "--runs", str(tmp_path)])
    (run,) = tmp_path.glob("anil-*")
    assert type(load_experiment(run).learner).__module__ == "a_package_of_its_own"
    assert "--code" not in capsys.readouterr().out


def test_an_option_that_two_parts_share_is_refused() -> None:
    from metarl.cli.train import require_distinct_names

    @dataclass(frozen=True)
    class Greedy(MLP):
        discount: float = 0.5

    with pytest.raises(BadField, match="Greedy has the field --discount, which the learner has, too: rename it"):
        require_distinct_names(Experiment(task=find_preset("navigation"), learner=metarl.MAML(policy=Greedy())))


def test_a_spec_of_another_kind_is_refused_by_ones_own_policy() -> None:
    run_code(POLICY)
    with pytest.raises(BadField, match="policy is TwoHeads and the task has discrete actions"):
        metarl.MAML(policy=PARTS[Policy]["TwoHeads"]()).init(
            EnvSpec(1, 2, 3, terminates=False, has_success=False, discrete=True), torch.Generator()
        )
