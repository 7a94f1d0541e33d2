"""What every policy is asked: several side by side, either kind of action, images, an encoder of one's own."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import conv2d, linear
from torch.utils._pytree import tree_leaves

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, Gradient
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.networks.distributions import Categorical, DiagGaussian
from metarl.networks.encoders import CNN
from metarl.networks.mlp import MLP, CategoricalMLP, GaussianMLP
from metarl.networks.protocol import Policy
from metarl.networks.recurrent import RecurrentPolicy
from metarl.rollout import nothing_before, rollout
from metarl.runs.experiment import Experiment
from metarl.seeds import stream
from metarl.train import Progress, train
from metarl.types import Params

pytestmark = pytest.mark.usefixtures("one_thread")
CHOICE = EnvSpec(4, 3, 5, terminates=False, has_success=False, discrete=True)
TORQUE = replace(CHOICE, discrete=False)
IMAGE = (6, 7, 2)
PICTURES = replace(CHOICE, obs_dim=6 * 7 * 2)


def of_tasks(policy: MLP, spec: EnvSpec, num_tasks: int) -> Params:
    """A policy for each task, apart from each other."""
    generator = torch.Generator().manual_seed(0)
    several = [policy.begin(policy.init(spec, generator)) for _ in range(num_tasks)]
    return {name: torch.stack([params[name] for params in several]) for name in several[0]}


@pytest.mark.parametrize("spec", [CHOICE, TORQUE], ids=["discrete", "continuous"])
@pytest.mark.parametrize("policy", [MLP((5,)), MLP((5,), context_size=2), MLP((), normalize_obs=True)], ids=str)
def test_side_by_side_is_one_after_the_other(policy: MLP, spec: EnvSpec) -> None:
    """And as the default of Policy has it, by vmap."""
    params, obs = of_tasks(policy, spec, 3), torch.randn(3, 6, spec.obs_dim)
    together = policy.side_by_side(params, obs)
    assert isinstance(together, Categorical if spec.discrete else DiagGaussian)
    for other in (Policy.side_by_side(policy, params, obs), vmap(policy)(params, obs)):
        torch.testing.assert_close(tree_leaves(together), tree_leaves(other))
    last = policy({name: x[2] for name, x in params.items()}, obs[2])
    torch.testing.assert_close([x[2] for x in tree_leaves(together)], tree_leaves(last))
    twice = Policy.side_by_side(policy, {name: x.unsqueeze(0) for name, x in params.items()}, obs.unsqueeze(0))
    torch.testing.assert_close([x[0] for x in tree_leaves(twice)], tree_leaves(together))


def test_the_kind_of_the_policy_follows_the_actions_and_a_wrong_one_is_refused() -> None:
    with pytest.raises(BadField, match="policy is GaussianMLP and the task has discrete actions: use CategoricalMLP"):
        Experiment(task=Bandit(), learner=MAML(policy=GaussianMLP()))
    with pytest.raises(BadField, match="policy is CategoricalMLP and the task has continuous actions: use GaussianMLP"):
        MAML(policy=CategoricalMLP()).init(Navigation().spec, torch.Generator())
    assert Experiment(task=Bandit(), learner=MAML()).learner.policy == MLP()
    assert "log_std" not in MAML().init(Bandit().spec, torch.Generator()).meta


# --- the MAML family chooses among arms --------------------------------------------------------------

LEARNERS = [
    MAML(estimator="maml"),
    MAML(estimator="fomaml", outer=PPO()),
    MAML(estimator="emaml", outer=Gradient()),
    MAML(estimator="dice", adapt_steps=2),
    MAML(estimator="lvc", learn_inner_lr=True, outer=PPO()),
    MAML(policy=CategoricalMLP((8,), context_size=3)),
    MAML(adapt_steps=0),
    ProMP(adapt_steps=2, target_kl=0.01),
    Reptile(),
    ESMAML(pairs=2),
]
SHORT = ["maml", "fomaml", "emaml", "dice", "meta-sgd", "cavia", "trpo", "promp", "reptile", "es-maml"]


@pytest.mark.parametrize("learner", LEARNERS, ids=SHORT)
def test_a_discrete_meta_update_changes_the_weights_and_says_how_far(learner: MAML) -> None:
    tasks, said = Bandit(arms=3), []
    env = tasks.make(4, 4, seed=0)
    progress = Progress(
        learner.init(tasks.spec, stream(0, "parameters")),
        *(stream(0, name) for name in ("tasks", "actions", "updates")),
    )
    before = progress.learner_state.meta
    train(learner, tasks, env, progress, iterations=1, episodes=4, begin=lambda: None, log=said.append)
    after = progress.learner_state.meta
    assert list(after) == list(before)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert all(x.isfinite().all() for x in after.values())
    assert said[0]["train/meta_gradient_norm"] > 0
    assert "train/policy_std" not in said[0]
    actor, obs = learner.actor(progress.learner_state, 4), env.reset()
    action, dist, _ = learner.act(actor, obs, nothing_before(obs, 3), stream(1, "actions"))
    assert torch.equal(action.sum(-1), torch.ones(4, 4))
    assert dist.log_probs.shape == (4, 4, 3)


def test_one_gradient_step_finds_the_arm_that_pays() -> None:
    """By hand: from equal odds, the logit of each arm moves by the mean of (chosen - 1/3) A, weight and bias alike."""
    learner = MAML(policy=CategoricalMLP(()), inner_lr=2.0)
    tasks = Bandit(arms=3)
    state = learner.init(tasks.spec, torch.Generator())
    state = state._replace(meta={name: torch.zeros_like(x) for name, x in state.meta.items()})
    env = tasks.make(1, 30, seed=0)
    env.set_tasks(torch.tensor([[0.0, 1.0, 0.0]]))
    actor, generator = learner.actor(state, 1), torch.Generator().manual_seed(0)
    obs = env.reset()
    action, dist, _ = learner.act(actor, obs, nothing_before(obs, 3), generator)
    paid = action[0, :, 1]
    advantage = (paid - paid.mean()) / paid.std(correction=0)
    moved = ((action[0] - 1 / 3) * advantage.unsqueeze(1)).mean(0)
    batch, _ = rollout(env, learner.act, actor, 1, torch.Generator().manual_seed(0))
    phi = learner.adapt(state, actor, learner.credit(state, batch))
    assert torch.equal(batch.action[0, :, 0], action[0])
    torch.testing.assert_close(phi["bias_0"][0], 2.0 * moved, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(phi["weight_0"][0], 2.0 * moved.expand(1, 3) * obs[0, 0, 0], rtol=1e-4, atol=1e-5)
    after = learner.policy.side_by_side(phi, obs).log_probs.exp()[0, 0]
    assert after[1] > 0.8
    torch.testing.assert_close(dist.log_probs.exp()[0, 0], torch.full((3,), 1 / 3))


# --- images ------------------------------------------------------------------------------------------


def test_convolutions_are_torchs() -> None:
    """conv2d takes channels first and [out in row column]; ours are products with [row column in, out]."""
    encoder = CNN(IMAGE, filters=(4, 3), kernel=2, stride=2, features=5)
    params = encoder.init(PICTURES, torch.Generator().manual_seed(0))
    params = {name: x + 0.1 * torch.randn(x.shape) for name, x in params.items()}
    obs = torch.randn(2, 3, PICTURES.obs_dim)

    x = obs.flatten(0, 1).view(6, *IMAGE).permute(0, 3, 1, 2)
    for layer, (before, after) in enumerate([(2, 4), (4, 3)]):
        weight = params[f"weight_{layer}"].view(2, 2, before, after).permute(3, 2, 0, 1)
        x = conv2d(x, weight, params[f"bias_{layer}"], stride=2).relu()
    x = linear(x.permute(0, 2, 3, 1).flatten(1), params["weight_2"].mT, params["bias_2"]).relu()
    torch.testing.assert_close(encoder(params, obs), x.view(2, 3, 5))
    assert encoder.num_features(PICTURES) == 5


@dataclass(frozen=True)
class Bright(CNN):
    """An encoder of one's own: the mean of the picture, times a weight."""

    def num_features(self, spec: EnvSpec) -> int:
        return 1

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        return {"scale": torch.ones(1)}

    def __call__(self, params: Params, obs: Tensor) -> Tensor:
        return obs.mean(-1, keepdim=True) * params["scale"].unsqueeze(-2)


SEEING = [CNN(IMAGE, filters=(4,), kernel=3, features=5), Bright(IMAGE, filters=(1,))]


@pytest.mark.parametrize("encoder", SEEING, ids=["cnn", "own"])
def test_an_encoder_adapts_with_its_policy(encoder: CNN) -> None:
    """Side by side, under vmap, and twice differentiable."""
    policy = MLP((4,), encoder=encoder)
    params, obs = of_tasks(policy, PICTURES, 3), torch.rand(3, 6, PICTURES.obs_dim)
    torch.testing.assert_close(policy.side_by_side(params, obs), vmap(policy)(params, obs))
    assert {name for name in policy.adapting(params) if name.startswith("features.")}
    one = {name: x[0].double() for name, x in params.items()}

    def entropy(params: Params) -> Tensor:
        return policy(params, obs[0].double()).entropy().sum()

    def after_a_step(params: Params) -> Tensor:
        slope = grad(entropy)(params)
        return entropy({name: x - 0.1 * slope[name] for name, x in params.items()})

    name = next(name for name in one if name.startswith("features."))
    slope, step = grad(after_a_step)(one)[name].flatten()[0], torch.zeros_like(one[name])
    step.view(-1)[0] = 1e-5
    ahead, behind = (after_a_step(one | {name: one[name] + sign * step}) for sign in (1, -1))
    torch.testing.assert_close(slope, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("memory", ["gru", "attention", "none"])
@pytest.mark.parametrize("normalize_obs", [False, True])
def test_memory_is_fed_features_and_what_happened_before(memory: str, normalize_obs: bool) -> None:
    policy = RecurrentPolicy(memory, 8, encoder=SEEING[0], normalize_obs=normalize_obs)
    params = policy.init(PICTURES, torch.Generator().manual_seed(0))
    shape = (2, 4)
    obs, action, reward = torch.rand(*shape, PICTURES.obs_dim), torch.rand(*shape, 3), torch.rand(shape)
    never = torch.zeros(shape, dtype=torch.bool)
    says = policy(params, policy.inputs(obs, action, reward, never), policy.empty_memory(2, torch.device("cpu")))

    features = {name.removeprefix("features."): x for name, x in params.items() if name.startswith("features.")}
    plain = RecurrentPolicy(memory, 8)
    seen = plain.inputs(SEEING[0](features, obs), action, reward, never)
    same = plain(params, seen, plain.empty_memory(2, torch.device("cpu")))
    torch.testing.assert_close(says.dist, same.dist)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(BadField, match=r"image is \(6, 7, 2\): an observation has 1 numbers"):
        Experiment(task=Bandit(), learner=RL2(policy=RecurrentPolicy(encoder=SEEING[0])))
    with pytest.raises(BadField, match="too many convolutions"):
        CNN((4, 4, 1))
