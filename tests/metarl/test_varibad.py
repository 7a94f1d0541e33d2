"""VariBAD: what acts is what learns, beliefs are of what was seen, and the ELBO alone moves them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from update_checks import meta_update

import metarl
from metarl.algorithms.trial_replay import empty_trials, some_trials, trials_of, with_trials
from metarl.algorithms.varibad import VariBAD, VariBADState
from metarl.envs.fields import BadField
from metarl.envs.small.grid_navi import GridNavi
from metarl.envs.small.navigation import Navigation
from metarl.losses.elbo import ELBO
from metarl.networks.belief import BeliefModel, Transitions
from metarl.networks.mlp import MLP
from metarl.reports.belief_error import decoded_belief, exact_belief, total_variation
from metarl.reports.references.search import grid_of
from metarl.rollout import nothing_before, rollout
from metarl.runs.experiment import Experiment
from metarl.runs.session import execute
from metarl.runs.snapshot import load_progress
from metarl.types import Experience, TrajectoryBatch

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = GridNavi(horizon=5)
MODEL = BeliefModel(latent_size=3, belief_units=8, action_units=2, decoder_sizes=(8,))
LEARNER = VariBAD(
    belief=MODEL, policy=MLP((8,), normalize_obs=True), value_sizes=(8,), elbo=ELBO(belief_trials=5, replay_episodes=40)
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def experience(learner: VariBAD = LEARNER, *, seed: int = 0) -> tuple[VariBADState, TrajectoryBatch, Tensor]:
    """A state whose belief and policy say something, trials of three episodes of four tasks by it, and the tasks."""
    state = learner.init(TASK.spec, seeded(seed))
    noisy = {name: x + 0.3 * torch.randn(x.shape, generator=seeded(7)).to(x) for name, x in state.meta.items()}
    noisy["obs_statistics"] = state.meta["obs_statistics"]
    state = state._replace(meta=noisy)
    env = TASK.make(4, 2, seed=0)
    tasks = TASK.sample(4, seeded(seed))
    env.set_tasks(tasks)
    batch, _ = rollout(env, learner.act, learner.actor(state, 4), 3, seeded(1), trials=True)
    return state, learner.credit(state, batch), tasks


def test_acting_is_what_the_update_replays():
    """Step by step, across the ends of episodes, the policy saw what is replayed: likelihood ratios begin at 1."""
    state, batch, _ = experience()
    torch.testing.assert_close(LEARNER.replay(state, batch).dist.log_probs, batch.dist.log_probs)
    assert batch.dist.log_probs.std(dim=2).min() > 1e-4  # it does depend on what was seen
    _, metrics = meta_update(replace(LEARNER, epochs=1, minibatches=1), state, [batch])
    assert metrics["train/kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_belief_is_of_what_a_step_led_to_before_the_reset():
    """The last observation of an episode, which the policy never acts on, changes the belief; what comes later does
    not."""
    state, batch, _ = experience()
    steps = Transitions(*(getattr(batch, name).flatten(0, 1) for name in Transitions._fields))
    before = MODEL.posteriors(state.belief, steps).features()
    moved = steps.next_obs.clone()
    moved[:, 4] += 1  # the last step of the first episode
    after = MODEL.posteriors(state.belief, steps._replace(next_obs=moved)).features()
    assert after[:, :5].equal(before[:, :5])
    assert (after[:, 5] - before[:, 5]).abs().amax(-1).min() > 1e-5
    assert steps.next_obs[:, 4].ne(batch.obs[..., :2].flatten(0, 1)[:, 5]).any()


def test_the_first_step_of_a_trial_acts_on_the_prior():
    """Whatever is said to have been before it: an exported policy is given its beginning."""
    state, _, _ = experience()
    actor = LEARNER.actor(state, 4)
    obs = torch.zeros(4, 2, 2)
    previous = nothing_before(obs, 5)
    _, dist, after = LEARNER.act(actor, obs, previous, seeded())
    said = previous._replace(reward=previous.reward + 3, next_obs=obs + 1)
    begun, given = LEARNER.beginning(actor, previous)
    assert given is previous
    assert LEARNER.act(begun, obs, said, seeded())[1].log_probs.equal(dist.log_probs)
    assert after.memory.begun.eq(1).all()
    assert after.memory.hidden.eq(0).all()


def test_ppo_leaves_the_belief_alone_unless_they_are_joint():
    state, batch, _ = experience()
    other, metrics = meta_update(replace(LEARNER, elbo=replace(LEARNER.elbo, belief_updates=0)), state, [batch])
    assert all(x.equal(state.belief[name]) for name, x in other.belief.items())
    assert not other.meta["weight_0"].equal(state.meta["weight_0"])
    assert "train/belief_kl" not in metrics
    state, batch, _ = experience()  # of a replay the newest value alone can be added to
    joint, metrics = meta_update(replace(LEARNER, joint=True), state, [batch])
    changed = {name for name, x in joint.belief.items() if not x.equal(state.belief[name])}
    assert changed == set(state.belief)
    assert metrics["train/belief_kl"] > 0


def test_the_elbo_leaves_the_policy_alone():
    state, batch, _ = experience()
    with_elbo, _ = meta_update(LEARNER, state, [batch])
    state, batch, _ = experience()
    without, _ = meta_update(replace(LEARNER, elbo=replace(LEARNER.elbo, belief_updates=0)), state, [batch])
    assert all(x.equal(without.meta[name]) for name, x in with_elbo.meta.items())
    assert not with_elbo.belief["encoder.posterior.weight_0"].equal(state.belief["encoder.posterior.weight_0"])


def test_the_comparison_without_adaptation_is_blind():
    blind = LEARNER.without_adaptation()
    state, batch, _ = experience(blind)
    assert state.meta["weight_0"].shape[0] == 2
    assert LEARNER.init(TASK.spec, seeded()).meta["weight_0"].shape[0] == 8
    seen = batch.dist.log_probs.flatten(0, 2)[batch.obs.flatten(0, 2).eq(0).all(1)]
    assert len(seen) > 8
    torch.testing.assert_close(seen, seen[:1].expand_as(seen))
    other, _ = meta_update(blind, state, [batch])
    assert all(x.equal(state.belief[name]) for name, x in other.belief.items())


def test_an_update_is_a_function():
    """The same twice, of a state that stays as it was; and of experience that is not finite, the state itself."""
    results = []
    for _ in range(2):
        state, batch, tasks = experience()
        before = tree_map(torch.clone, (state.meta, state.belief))
        results.append(LEARNER.update(state, Experience(tasks, None, [batch]), seeded(3)))
        assert all(torch.equal(a, b) for a, b in zip(before[1].values(), state.belief.values(), strict=True))
    (one, said), (two, again) = results
    assert said == again
    assert all(x.equal(two.belief[name]) for name, x in one.belief.items())
    assert all(x.equal(two.meta[name]) for name, x in one.meta.items())
    state, batch, _ = experience()
    bad, metrics = meta_update(LEARNER, state, [batch._replace(reward=batch.reward * torch.nan)])
    assert bad is state
    assert metrics == {"train/skipped_updates": 1.0}


def test_the_replay_gives_back_whole_trials_of_their_tasks():
    """Trials of three pieces in room for seven, so two at a time: rewards say which trial, task and step it is."""
    generator = seeded()
    replay = empty_trials(TASK.spec, 7, 2, torch.device("cpu"))
    _, batch, _ = experience()
    task = torch.arange(4.0)[:, None] * torch.ones(2)
    for round_ in range(3):
        number = 100 * (8 * round_ + torch.arange(8.0)).view(4, 2, 1) + torch.arange(15.0)
        valid = torch.arange(15) < torch.tensor([15, 12]).view(1, 2, 1)
        trials = trials_of(batch._replace(reward=number, valid=valid.expand(4, 2, 15)), task)
        replay = with_trials(replay, trials, 3)
        assert len(some_trials(replay, 3, 10, generator).length) == 2
        for _ in range(5):
            one = some_trials(replay, 3, 1, generator)
            first = int(one.steps.reward[0, 0])
            which = first // 100 - 8 * round_
            assert which in (6, 7)
            length = (15, 12)[which % 2]
            assert one.length.tolist() == [length]
            assert one.steps.reward[0, :length].tolist() == [first + step for step in range(length)]
            assert one.task.tolist() == [[which // 2] * 2]


def test_a_replay_without_room_for_a_trial_is_refused():
    replay = empty_trials(TASK.spec, 2, 0, torch.device("cpu"))
    with pytest.raises(BadField, match="replay_episodes is 2: use 0, or at least 3"):
        with_trials(replay, trials_of(experience()[1], torch.zeros(4, 0)), 3)


def test_the_decoded_belief_is_the_decoder_s_share_of_each_goal():
    """Of a posterior without spread the decoder's probabilities at its mean, over their sum; and total variation by
    hand."""
    task = GridNavi(cells=3, horizon=5)
    model = replace(MODEL, reward_model="bernoulli", reward_of="next_obs", levels=(3, 3))
    params = model.init(task.spec, seeded())
    params["encoder.posterior.bias_0"][3:] = -60.0  # log variances
    _, batch, _ = experience()
    batch = batch._replace(obs=batch.obs.clamp(max=2), next_obs=batch.next_obs.clamp(max=2))
    grid = grid_of(task)
    decoded = decoded_belief(model, params, grid, batch, seeded(), draws=2)
    steps = Transitions(*(getattr(batch, name).flatten(0, 1) for name in Transitions._fields))
    pays = model.reward_logits(params, model.posteriors(params, steps).mean).sigmoid()
    pays = pays[..., [3 * x + y for x, y in grid.goals]]
    torch.testing.assert_close(decoded, pays / pays.sum(-1, keepdim=True))
    exact = exact_belief(grid, batch._replace(reward=torch.full_like(batch.reward, -0.1)))
    assert exact[:, 0].eq(0.2).all()
    one, other = torch.tensor([[[0.5, 0.5, 0.0]]]), torch.tensor([[[0.25, 0.25, 0.5]]])
    assert total_variation(one, other).item() == pytest.approx(0.5)


def test_options_that_cannot_be():
    for options, message in (
        ({"clip": 0.0}, "clip is 0.0: use more than 0"),
        ({"discount": 1.5}, "discount is 1.5: use at least 0 and at most 1"),
        ({"value_sizes": (0,)}, r"value_sizes is \(0,\): every layer needs"),
    ):
        with pytest.raises(BadField, match=message):
            VariBAD(**options)
    with pytest.raises(BadField, match="belief_trials is 0: use at least 1"):
        ELBO(belief_trials=0)
    with pytest.raises(BadField, match="levels is"):
        Experiment(task=Navigation(), learner=VariBAD(belief=BeliefModel(levels=(5,))))


def test_a_run_continues_to_the_bit(tmp_path: Path):
    """Replay, both optimizers and the stream of updates: four iterations at once, and two by two; then one acts."""
    base = Experiment(
        task=TASK, learner=LEARNER, num_tasks=3, num_envs=1, episodes=3, iterations=4, eval_interval=0, num_threads=1
    )
    metarl.fit(base, tmp_path / "whole", quiet=True)
    metarl.fit(replace(base, iterations=2), tmp_path / "halves", quiet=True)
    assert execute(base, tmp_path / "halves", console=None) == 0
    whole, halves = (load_progress(base, tmp_path / name, print).learner_state for name in ("whole", "halves"))
    assert whole.num_updates == halves.num_updates == 4
    for one, other in ((whole.meta, halves.meta), (whole.belief, halves.belief)):
        assert all(x.equal(other[name]) for name, x in one.items())
    trial = metarl.load(tmp_path / "whole").trial(seed=0)
    for step in range(12):
        action = trial.act([step % 5, 0])
        trial.observe([(step + 1) % 5, 0], -0.1, False, step % 5 == 4)
    assert 0 <= int(action) < 5
