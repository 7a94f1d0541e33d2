"""The meta-gradient on a Markov decision process small enough to enumerate.

2 states, 2 actions, ``HORIZON`` steps, and CategoricalMLP without hidden layers: observations are one-hot, so that its
weights are a table of logits theta [state, action], to which it adds a bias of the action. An inner step sees
``NUM_SAMPLES`` episodes. Every pair of episodes that could be sampled is one *task* of the production code, and the
adapted policy's batch holds every episode once; advantages carry the probabilities. So ``MAMLProblem.gradient`` returns
the expectation of an estimator to rounding. The right-hand sides use no library code: dynamic programming for the
return, and scores and Hessians of log-softmax written out.

The inner loss and the surrogate are means over steps, so V below is the return divided by the horizon.
"""

import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest
import torch
from maml_checks import hand_written_meta_loss, hand_written_policy, meta_batch, relative_error
from torch import Tensor
from torch.func import grad, vmap
from torch.utils._pytree import tree_map

from metarl.algorithms.maml import MAML, MAMLState
from metarl.algorithms.meta_gradient import MAMLProblem
from metarl.algorithms.promp import ProMP, ProMPState
from metarl.losses.optim import flatten
from metarl.losses.policy_gradient import dice_loss, log_likelihood_loss, ratio_loss
from metarl.networks.distributions import Categorical
from metarl.networks.mlp import CategoricalMLP, GaussianMLP
from metarl.types import Params, TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")

STATES, ACTIONS, HORIZON, NUM_SAMPLES = 2, 2, 3, 2
TRANSITION = torch.tensor([[[0.8, 0.2], [0.3, 0.7]], [[0.6, 0.4], [0.1, 0.9]]], dtype=torch.float64)  # [s, a, s']
REWARD = torch.tensor([[1.0, -0.5], [0.2, 2.0]], dtype=torch.float64)  # [s, a]
THETA = torch.tensor([[0.3, -0.2], [-0.4, 0.5]], dtype=torch.float64)
INNER_LR = 3.0  # of a mean over steps: a whole step of the policy gradient


@dataclass(frozen=True)
class TabularPolicy(CategoricalMLP):
    """Its table alone adapts; the bias stays."""

    def adapting(self, params: Params) -> list[str]:
        return ["weight_0"]


POLICY, WITH_BIAS = TabularPolicy(()), CategoricalMLP(())
ALONE = torch.eye(STATES * ACTIONS, dtype=torch.float64)  # how far a slope moves the logits: those of the table itself,
TOGETHER = ALONE + torch.eye(ACTIONS, dtype=torch.float64).repeat(STATES, STATES)  # and, by the bias, every state's


def weights(theta: Tensor) -> Params:
    return {"weight_0": theta, "bias_0": torch.zeros(ACTIONS, dtype=torch.float64)}


def logits(params: Params) -> Tensor:
    """The table that these make [... state action]."""
    return params["weight_0"] + params["bias_0"].unsqueeze(-2)


class Episodes(NamedTuple):
    """One-hot states and actions [episode time n]."""

    obs: Tensor
    action: Tensor

    @property
    def reward(self) -> Tensor:
        return torch.einsum("...s,...a,sa->...", self.obs, self.action, REWARD)

    @property
    def to_go(self) -> Tensor:
        """The sum of rewards from each step on."""
        return self.reward.flip(-1).cumsum(-1).flip(-1)

    @property
    def advantage(self) -> Tensor:
        """Less a baseline of .8 a step left, which no sample has a part in."""
        return self.to_go - 0.8 * torch.arange(self.obs.shape[-2], 0, -1, dtype=torch.float64)

    def dynamics(self) -> Tensor:
        """The probability of the states, given the actions [episode]."""
        step = torch.einsum(
            "...s,...a,...z,saz->...", self.obs[:, :-1], self.action[:, :-1], self.obs[:, 1:], TRANSITION
        )
        return step.prod(-1)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Of the actions [episode]."""
        return ((self.obs @ theta).log_softmax(-1) * self.action).sum((-2, -1))

    def rows(self, index: Tensor) -> "Episodes":
        return Episodes(self.obs[index], self.action[index])


def every_episode(horizon: int = HORIZON) -> Episodes:
    """From state 0."""
    found = []
    for actions in itertools.product(range(ACTIONS), repeat=horizon):
        for states in itertools.product(range(STATES), repeat=horizon - 1):
            found.append(([0, *states], actions))
    one_hot = torch.nn.functional.one_hot
    obs = one_hot(torch.tensor([states for states, _ in found]), STATES).double()
    return Episodes(obs, one_hot(torch.tensor([actions for _, actions in found]), ACTIONS).double())


ALL = every_episode()
DYNAMICS = ALL.dynamics()
PAIRS = torch.tensor(list(itertools.product(range(len(DYNAMICS)), repeat=NUM_SAMPLES)))  # [pair, sample]


def probability(theta: Tensor) -> Tensor:
    """Of every episode under the policy theta."""
    return DYNAMICS * ALL.log_prob(theta).exp()


def value(theta: Tensor) -> Tensor:
    """J(theta) / horizon, by dynamic programming."""
    policy, ahead = theta.softmax(-1), torch.zeros(STATES, dtype=torch.float64)
    for _ in range(HORIZON):
        ahead = (policy * (REWARD + TRANSITION @ ahead)).sum(-1)
    return ahead[0] / HORIZON


def scores(theta: Tensor, episodes: Episodes) -> Tensor:
    """d log pi(a_t | s_t) / d theta [episode time state action]: one-hot of the action less the policy."""
    return episodes.obs.unsqueeze(-1) * (episodes.action - theta.softmax(-1)[episodes.obs.argmax(-1)]).unsqueeze(-2)


def inner_step(theta: Tensor, episodes: Episodes, moves: Tensor) -> Tensor:
    """theta + lr * mean over steps of score times advantage; ``episodes`` is one row's sample."""
    slope = (scores(theta, episodes) * episodes.advantage[..., None, None]).mean((0, 1))
    return theta + INNER_LR * (moves @ slope.flatten()).view_as(theta)


def inner_hessian(theta: Tensor, episodes: Episodes, kind: str) -> Tensor:
    """Of the mean over steps, by the estimator's formula [episode, theta, theta]; ``kind``: which products it holds."""
    flat = scores(theta, episodes).flatten(2)
    policy = theta.softmax(-1)
    block = policy.unsqueeze(-1) * policy.unsqueeze(-2) - torch.diag_embed(policy)  # d score / d logits of a state
    curvature = torch.block_diag(*block)
    mask = episodes.obs.repeat_interleave(ACTIONS, dim=-1)  # of the state's logits
    terms = curvature * (mask.unsqueeze(-1) * mask.unsqueeze(-2))
    if kind in ("lvc", "dice"):
        terms = terms + flat.unsqueeze(-1) * flat.unsqueeze(-2)
    if kind == "dice":
        before = flat.cumsum(1) - flat
        cross = flat.unsqueeze(-1) * before.unsqueeze(-2)
        terms = terms + cross + cross.mT
    return (terms * episodes.advantage[..., None, None]).mean(1)


def expected_gradient(kind: str, moves: Tensor = ALONE) -> Tensor:
    """Of each estimator with ``NUM_SAMPLES`` episodes, theta [state action]: no library code."""
    theta = THETA.clone().requires_grad_()
    log_prob = ALL.log_prob(theta)[PAIRS].sum(1)
    weight = DYNAMICS[PAIRS].prod(1) * log_prob.exp()
    if kind in ("emaml", "maml"):
        phi = vmap(lambda obs, action: inner_step(theta, Episodes(obs, action), moves))(*ALL.rows(PAIRS))
        earned = vmap(value)(phi)
        weight = weight if kind == "emaml" else weight.detach()
        return torch.autograd.grad((weight * earned).sum(), theta)[0]
    with torch.no_grad():
        phi = vmap(lambda obs, action: inner_step(THETA, Episodes(obs, action), moves))(*ALL.rows(PAIRS))
        slope = vmap(grad(value))(phi).flatten(1)
        if kind != "fomaml":
            hessian = inner_hessian(THETA, ALL, kind)[PAIRS].mean(1)
            slope = slope + INNER_LR * torch.einsum("pij,pi->pj", hessian, slope @ moves)
        return (weight.unsqueeze(1) * slope).sum(0).view_as(THETA)


# --- the same by the library -----------------------------------------------------------------------


def as_batch(theta: Tensor, episodes: Episodes, advantage: Tensor) -> TrajectoryBatch:
    """Episodes [task env time ...] of the policies theta [task state action]."""
    dist = Categorical.from_logits(episodes.obs @ theta.unsqueeze(1))
    zeros = torch.zeros_like(advantage)
    never = zeros.bool()
    return TrajectoryBatch(
        obs=episodes.obs,
        action=episodes.action,
        reward=episodes.reward,
        terminated=never,
        truncated=never,
        clock=torch.arange(zeros.shape[-1]).expand(zeros.shape),
        success=never,
        valid=~never,
        log_prob=dist.log_prob(episodes.action),
        dist=dist,
        next_obs=episodes.obs,
        advantage=advantage,
        target=zeros,
    )


def learner_of(kind: str, policy: CategoricalMLP = POLICY) -> MAML:
    return MAML(policy=policy, inner_lr=INNER_LR, estimator=kind)


def enumerated_problem(kind: str, policy: CategoricalMLP) -> MAMLProblem:
    """Every pair of episodes a task; the adapted policies' batches hold every episode, all weighted as likely."""
    pre_episodes = ALL.rows(PAIRS)
    learner = learner_of("lvc" if kind == "promp" else kind, policy)
    theta = THETA.expand(len(PAIRS), STATES, ACTIONS)
    pre = as_batch(theta, pre_episodes, pre_episodes.advantage)
    phi = vmap(lambda batch: logits(learner.adapted(weights(THETA), [batch])))(pre)
    rows = (DYNAMICS[PAIRS] * ALL.log_prob(THETA).exp()[PAIRS]).prod(1) * len(PAIRS)
    every = Episodes(*(x.expand(len(PAIRS), *x.shape) for x in ALL))
    likely = vmap(probability)(phi) * len(DYNAMICS) * rows.unsqueeze(1)
    post = as_batch(phi, every, every.advantage * likely.unsqueeze(-1))
    if kind == "promp":
        promp = ProMP(policy=policy, inner_lr=INNER_LR)
        return promp.problem(ProMPState({}, {}, torch.zeros(1, dtype=torch.float64)), [pre, post])
    if kind != "emaml":
        return learner.problem([pre, post])
    earned = (rows * vmap(value)(phi)).view(-1, 1, 1).expand_as(pre.target)
    return MAMLProblem(learner, [pre._replace(target=earned), post], learner.sampling_loss)


KINDS = ["maml", "fomaml", "emaml", "dice", "lvc"]


@pytest.mark.parametrize(("policy", "moves"), [(POLICY, ALONE), (WITH_BIAS, TOGETHER)], ids=["table", "with bias"])
@pytest.mark.parametrize("kind", [*KINDS, "promp"])
def test_the_expectation_of_each_estimator_is_its_own_formula_and_no_other(
    kind: str, policy: CategoricalMLP, moves: Tensor
):
    """emaml's is the exact meta-gradient, differentiated as a whole; the others' are products of Hessian and slope."""
    gradient, _ = enumerated_problem(kind, policy).gradient(weights(THETA), ratio_loss)
    own = "lvc" if kind == "promp" else kind
    torch.testing.assert_close(-gradient["weight_0"], expected_gradient(own, moves), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(gradient["bias_0"], gradient["weight_0"].sum(0), rtol=1e-10, atol=1e-13)
    for other in set(KINDS) - {own}:
        assert (gradient["weight_0"] + expected_gradient(other, moves)).norm() > 1e-2 * gradient["weight_0"].norm()


def limit_of(kind: str) -> Tensor:
    """(1 + lr E Hessian) J'(theta'), theta' one step of the exact gradient: with episodes without end."""
    weight = probability(THETA)
    phi = THETA + INNER_LR * (weight[:, None, None, None] * scores(THETA, ALL) * ALL.advantage[..., None, None]).sum(
        0
    ).mean(0)
    slope = grad(value)(phi).flatten()
    if kind == "fomaml":
        return slope.view_as(THETA)
    hessian = (weight[:, None, None] * inner_hessian(THETA, ALL, kind)).sum(0)
    return (slope + INNER_LR * hessian @ slope).view_as(THETA)


@pytest.mark.parametrize("kind", ["maml", "fomaml", "dice", "lvc"])
def test_with_endless_samples_dice_alone_finds_the_gradient_of_the_exact_inner_step(kind: str):
    """theta -> J(theta + lr J'(theta)), Rothfuss et al.'s formulation I. The pre-update batch holds every episode,
    weighted as likely. lvc drops the products of scores of different steps, maml those of the same step, too (and with
    them what cancels the baseline: its limit alone depends on it).
    """
    learner = learner_of(kind)
    likely = probability(THETA)[:, None] * len(DYNAMICS)
    pre = as_batch(THETA.unsqueeze(0), Episodes(*(x.unsqueeze(0) for x in ALL)), (ALL.advantage * likely).unsqueeze(0))
    phi = vmap(lambda batch: logits(learner.adapted(weights(THETA), [batch])))(pre)
    torch.testing.assert_close(phi[0], THETA + INNER_LR * grad(value)(THETA), rtol=1e-10, atol=0)
    likely = probability(phi[0])[:, None] * len(DYNAMICS)
    post = as_batch(phi, Episodes(*(x.unsqueeze(0) for x in ALL)), (ALL.advantage * likely).unsqueeze(0))
    gradient, _ = learner.problem([pre, post]).gradient(weights(THETA), ratio_loss)
    torch.testing.assert_close(-gradient["weight_0"], limit_of(kind), rtol=1e-10, atol=1e-13)
    exact = grad(lambda theta: value(theta + INNER_LR * grad(value)(theta)))(THETA)
    error = ((-gradient["weight_0"] - exact).norm() / exact.norm()).item()
    assert error < 1e-10 if kind == "dice" else error > 0.02


def test_dice_with_rewards_to_go_is_foersters_sum_over_rewards():
    """Sum_t box(a_<=t) r_t (Foerster et al. 2018, equation 9), less the constant sum_t r_t: value and two derivatives.
    The second world plays an episode of one step and one of two.
    """
    episodes = ALL.rows(torch.tensor([[3, 17, 29]]))
    clock = torch.arange(HORIZON).expand(1, 3, HORIZON).clone()
    clock[0, 1] = torch.tensor([0, 0, 1])
    reward = episodes.reward
    to_go = episodes.to_go.clone()
    to_go[0, 1, 0] = reward[0, 1, 0]
    batch = as_batch(THETA.unsqueeze(0), episodes, to_go)._replace(clock=clock)
    batch = tree_map(lambda x: x[0], batch)

    def foerster(theta: Tensor) -> Tensor:
        log_prob = ((batch.obs @ theta).log_softmax(-1) * batch.action).sum(-1)
        total = torch.zeros((), dtype=torch.float64)
        for env in range(3):
            for t in range(HORIZON):
                first = t - int(clock[0, env, t])
                until = log_prob[env, first : t + 1].sum()
                total = total + (until - until.detach()).exp() * batch.reward[env, t]
        return (total - batch.reward.sum()) / batch.reward.numel()

    def ours(theta: Tensor) -> Tensor:
        return -dice_loss(POLICY, weights(theta), batch)

    for f, g in ((ours, foerster), (grad(ours), grad(foerster))):
        torch.testing.assert_close(f(THETA), g(THETA), rtol=1e-12, atol=1e-14)
    hessians = [torch.autograd.functional.hessian(f, THETA).view(4, 4) for f in (ours, foerster)]
    torch.testing.assert_close(*hessians, rtol=1e-12, atol=1e-14)
    unlike = torch.autograd.functional.hessian(lambda theta: -log_likelihood_loss(POLICY, weights(theta), batch), THETA)
    assert (unlike.view(4, 4) - hessians[1]).norm() > 0.1 * hessians[1].norm()


# --- samples ---------------------------------------------------------------------------------------


def sampled(theta: Tensor, horizon: int, num_episodes: int, generator: torch.Generator) -> Episodes:
    """Episodes [task env time] of the policies theta [task state action]."""
    shape = (len(theta), num_episodes)
    state = torch.zeros(shape, dtype=torch.int64)
    task = torch.arange(len(theta)).unsqueeze(1).expand(shape)
    states, actions = [], []
    for _ in range(horizon):
        policy = theta.softmax(-1)[task, state]
        action = (torch.rand(*shape, 1, generator=generator) > policy.cumsum(-1)[..., :-1]).sum(-1)
        states.append(state)
        actions.append(action)
        draw = torch.rand(*shape, 1, generator=generator)
        state = (draw > TRANSITION[state, action].cumsum(-1)[..., :-1]).sum(-1)
    one_hot = torch.nn.functional.one_hot
    return Episodes(
        one_hot(torch.stack(states, -1), STATES).double(), one_hot(torch.stack(actions, -1), ACTIONS).double()
    )


def sampled_gradients(
    kind: str, num_tasks: int, num_episodes: int, horizon: int, inner_lr: float, *, seed: int = 0
) -> Tensor:
    """Every task's own meta-gradient [task, theta], as an algorithm would see it: both batches sampled, advantages the
    rewards to go less a constant, E-MAML's credit less the other tasks' mean.
    """
    learner = MAML(policy=POLICY, inner_lr=inner_lr, estimator=kind)
    generator = torch.Generator().manual_seed(seed)
    theta = THETA.expand(num_tasks, STATES, ACTIONS)
    pre_episodes = sampled(theta, horizon, num_episodes, generator)
    pre = as_batch(theta, pre_episodes, pre_episodes.advantage)
    phi = vmap(lambda batch: logits(learner.adapted(weights(THETA), [batch])))(pre)
    post_episodes = sampled(phi, horizon, num_episodes, generator)
    post = as_batch(phi, post_episodes, post_episodes.advantage)
    problem = MAMLProblem(learner, [pre, post])
    if kind == "emaml":
        earned = post_episodes.reward.mean((1, 2))
        credit = earned - (earned.sum() - earned) / (num_tasks - 1)
        pre = pre._replace(target=credit.view(-1, 1, 1).expand_as(pre.target))
        problem = MAMLProblem(learner, [pre, post], learner.sampling_loss)

    def one_task(batches: list[TrajectoryBatch]) -> Tensor:
        return grad(lambda theta: problem.loss_and_dist(weights(theta), batches, ratio_loss)[0])(THETA).flatten()

    return -vmap(one_task)([pre, post])


def z_scores(samples: Tensor, expected: Tensor) -> Tensor:
    """Errors of the mean in standard errors. Both logits of a state move against each other: one of them will do."""
    error = samples.mean(0) - expected.flatten()
    return (error / (samples.std(0) / len(samples) ** 0.5)).view(STATES, ACTIONS)[:, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_converge_to_the_exact_gradient_or_to_the_estimators_own_limit(kind: str):
    """20,000 meta-updates, each of one task and two episodes before and after its inner step."""
    samples = sampled_gradients(kind, 20_000, NUM_SAMPLES, HORIZON, INNER_LR)
    assert z_scores(samples, expected_gradient(kind)).abs().max() < 4
    if kind != "emaml":  # the bias is real: the exact gradient is many standard errors away
        assert z_scores(samples, expected_gradient("emaml")).abs().max() > 6


def relative_deviation(samples: Tensor) -> float:
    return (samples.var(0).sum().sqrt() / samples.mean(0).norm()).item()


def test_dice_is_noisier_than_lvc_and_e_maml_the_noisiest():
    """Rothfuss et al. 2019, figure 4: the meta-gradient's relative standard deviation is about twice as large with DiCE
    as with LVC on HalfCheetah. It grows with the horizon: found 3.75 and 2.52 with 10 episodes of 12 steps, 14 and 4
    with 5 episodes of 40; E-MAML 7.6 and 19.
    """
    noise = {kind: relative_deviation(sampled_gradients(kind, 1000, 5, 40, 3.0)) for kind in ("lvc", "dice", "emaml")}
    assert 2 * noise["lvc"] < noise["dice"] < noise["emaml"]


# --- a Gaussian policy, several steps ---------------------------------------------------------------

NETWORK = GaussianMLP((3, 3), "tanh")


@pytest.mark.parametrize("learner", [*(MAML(NETWORK, estimator=kind) for kind in KINDS), ProMP(NETWORK)], ids=str)
def test_every_estimator_takes_the_same_inner_step(learner: MAML | ProMP):
    """They differ in its derivative alone."""
    meta, (pre, _) = meta_batch(learner)
    phi = vmap(lambda batch: learner.adapted(meta, [batch]))(pre)
    same = learner.adapt(MAMLState(meta, {}), learner.actor(MAMLState(meta, {}), len(pre.reward)), pre)
    for name in meta:
        torch.testing.assert_close(phi[name], same[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_e_maml_credits_the_sampling_before_every_inner_step(num_steps: int):
    """Algorithm 3 with a loop over tasks, and the score of every inner batch times what the adapted policy earned:
    beyond the mean of the other tasks, in standard deviations of the raw advantages, times the weight.
    """
    learner = MAML(NETWORK, inner_lr=0.2, adapt_steps=num_steps, estimator="emaml", exploration_weight=0.5)
    meta, batches = meta_batch(learner)
    gradient, _ = learner.problem(batches).gradient(meta, ratio_loss)

    post = batches[-1]
    tasks = range(len(post.reward))
    earned = [post.reward[task][post.valid[task]].mean() for task in tasks]
    raw, _ = learner.raw_advantage(post)
    leaves = {name: x.clone().requires_grad_() for name, x in meta.items()}
    loss = hand_written_meta_loss(leaves, batches, 0.2, lambda ratio, advantage: -ratio * advantage)
    for task in tasks:
        others = sum(earned[other] for other in tasks if other != task) / (len(tasks) - 1)
        credit = 0.5 * (earned[task] - others) / raw[task][post.valid[task]].std(correction=0)
        phi = leaves
        for batch in batches[:-1]:
            log_prob = hand_written_policy(phi, batch.obs[task]).log_prob(batch.action[task]).sum(-1)
            valid = batch.valid[task]
            loss = loss - credit * log_prob[valid].sum() / len(tasks)
            inner = -(log_prob * batch.advantage[task])[valid].mean()
            pieces = torch.autograd.grad(inner, list(phi.values()), create_graph=True)
            phi = {name: phi[name] - 0.2 * g for name, g in zip(phi, pieces, strict=True)}
    expected = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    assert relative_error(flatten(gradient), flatten(expected)) < 1e-6
    without, _ = MAMLProblem(learner, batches).gradient(meta, ratio_loss)
    assert relative_error(flatten(without), flatten(expected)) > 0.1


def test_no_inner_step_leaves_nothing_to_credit():
    learner = MAML(NETWORK, adapt_steps=0, estimator="emaml")
    meta, batches = meta_batch(learner)
    plain = MAMLProblem(replace(learner, estimator="maml"), batches).gradient(meta, ratio_loss)
    assert torch.equal(flatten(learner.problem(batches).gradient(meta, ratio_loss)[0]), flatten(plain[0]))
    with pytest.raises(ValueError, match="exploration_weight"):
        MAML(exploration_weight=-1.0)
