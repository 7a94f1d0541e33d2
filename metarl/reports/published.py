"""Published results, to print beside ours; never compared without their protocol."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from metarl.envs.registry import TaskDistribution, presets_of
from metarl.runs.config import leaves, to_json
from metarl.types import MetaLearner

FINN_LEARNER = {
    "policy.hidden_sizes": [100, 100],
    "policy.activation": "relu",
    "policy.context_size": 0,
    "adapt_steps": 1,
    "estimator": "maml",
    "learn_inner_lr": False,
}
DUAN_LEARNER = {"policy.memory": "gru", "policy.memory_size": 256}


def differences(theirs: Mapping[str, Any], learner: MetaLearner) -> list[str]:
    """The fields in which a learner is another than the published one, such as ``policy.activation tanh``."""
    ours = leaves(to_json(learner))
    other = {name: ours[name] for name, value in theirs.items() if name in ours and ours[name] != value}
    return [f"{name} {value} (theirs {theirs[name]})" for name, value in other.items()]


class Published(NamedTuple):
    """Mean return over test tasks after 0, 1, 2 ... inner steps, by method."""

    source: str
    num_steps: int
    """Steps of experience of each task before each inner step, at least; in whole episodes."""
    returns: dict[str, tuple[float, ...]]
    later: float = 0.5
    """Step size of later inner steps, relative to the first."""
    num_tasks: int = 40
    learner: Mapping[str, Any] = FINN_LEARNER
    """Fields of the learner that earned this, by their path."""

    def beside(self, learner: MetaLearner, num_tasks: int) -> tuple["Published", list[str]]:
        """What stands beside a learner tested on so many tasks, and in what that one differs.

        An untrained policy is nothing but its network: where that is another, its returns are left out.
        """
        differing = differences(self.learner, learner)
        if any(name.startswith("policy.") for name in differing):
            kept = {row: values for row, values in self.returns.items() if row != "untrained"}
        else:
            kept = self.returns
        if num_tasks != self.num_tasks:
            differing.append(f"{num_tasks} tasks (theirs {self.num_tasks})")
        return self._replace(returns=kept), differing


# Its rows of pretrained and untrained policies were taken with inner steps of their own, chosen by hand: 0.2 and 1.0
# (half-cheetah and ant direction, ant velocity; half-cheetah direction untrained 0.5), 0.02 and 0.1 (half-cheetah
# velocity); maml_examples/test_maml_*.py.
FINN_2017 = (
    "Finn et al. 2017, icml/*.pkl of cbfinn/maml_rl: mean over 40 tasks, at least 4000 steps of each at "
    "each adaptation step, sampled actions, step size halved after the first; its pretrained and untrained policies "
    "took inner steps of other sizes, chosen by hand"
)

PUBLISHED: dict[tuple[str, str], Published] = {
    ("half_cheetah_dir", "maml2017"): Published(
        FINN_2017,
        4000,
        {
            "MAML": (-50.7, 293.2, 313.5, 315.7),
            "pretrained": (-43.0, -24.8, -12.9, 19.6),
            "untrained": (-35.7, 21.8, 62.3, 86.2),
            "oracle": (442.7, 442.7, 442.7, 442.7),
        },
    ),
    ("half_cheetah_vel", "maml2017"): Published(
        FINN_2017,
        4000,
        {
            "MAML": (-129.5, -78.6, -66.6, -60.8),
            "pretrained": (-158.0, -135.4, -128.5, -133.6),
            "untrained": (-254.8, -254.3, -246.8, -230.8),
            "oracle": (-54.5, -54.5, -54.5, -54.5),
        },
    ),
    ("ant_vel", "maml2017"): Published(
        FINN_2017,
        4000,
        {
            "MAML": (30.6, 96.7, 100.1, 101.4),
            "pretrained": (-1.8, 6.1, 8.5, 9.5),
            "untrained": (-78.6, -62.8, -48.6, -35.6),
            "oracle": (107.9, 107.9, 107.9, 107.9),
        },
    ),
    ("ant_dir", "maml2017"): Published(
        FINN_2017.replace("4000", "8000").replace("halved", "a hundredth"),
        8000,
        {"MAML": (8.7, 499.2, 500.7, 499.1), "oracle": (524.8, 524.8, 524.8, 524.8)},
        later=0.01,
    ),
    ("navigation", "maml2017"): Published(
        FINN_2017,
        4000,
        {
            "MAML": (-40.4, -11.7, -3.3, -3.2),
            "untrained": (-82.7, -58.0, -53.8, -46.8),
            "oracle": (-2.3, -2.3, -2.3, -2.3),
        },
    ),
}
"""By task and the preset that defines it."""


def published(task: TaskDistribution) -> Published | None:
    """What was reported on exactly this definition of the task, if anything."""
    return next((PUBLISHED[task.name, name] for name in presets_of(task) if (task.name, name) in PUBLISHED), None)


class PublishedTrial(NamedTuple):
    """Mean total return of a trial, by method."""

    source: str
    returns: dict[str, float]
    learner: Mapping[str, Any] = DUAN_LEARNER
    """Fields of the learner that earned this, by their path."""


DUAN_2016 = "Duan et al. 2016 (RL²), tables 1 and 2, as transcribed in lucaslingle/pytorch_rl2"

BANDIT_ROWS = (
    "random",
    "Gittins index",
    "Thompson sampling",
    "OTS (May 2012)",
    "UCB1",
    "epsilon-greedy",
    "greedy",
    "RL2",
)
BANDITS: dict[tuple[int, int], tuple[float, ...]] = {
    (10, 5): (5.0, 6.6, 5.7, 6.5, 6.7, 6.6, 6.6, 6.7),
    (10, 10): (5.0, 6.6, 5.5, 6.2, 6.7, 6.6, 6.6, 6.7),
    (10, 50): (5.1, 6.5, 5.2, 5.5, 6.6, 6.5, 6.5, 6.8),
    (100, 5): (49.9, 78.3, 74.7, 77.9, 78.0, 75.4, 74.8, 78.7),
    (100, 10): (49.9, 82.8, 76.7, 81.4, 82.4, 77.4, 77.1, 83.5),
    (100, 50): (49.8, 85.2, 64.5, 67.7, 84.3, 78.3, 78.0, 84.9),
    (500, 5): (249.8, 405.8, 402.0, 406.7, 405.8, 388.2, 380.6, 401.6),
    (500, 10): (249.0, 437.8, 429.5, 438.9, 437.1, 408.0, 395.0, 432.5),
    (500, 50): (249.6, 463.7, 427.2, 437.6, 457.6, 413.6, 402.8, 438.9),
}
"""By pulls and arms; the paper does not define its OTS."""

MDP_ROWS = ("random", "PSRL", "OPSRL", "UCRL2", "BEB", "epsilon-greedy", "greedy", "RL2")
MDPS: dict[int, tuple[float, ...]] = {
    10: (100.1, 138.1, 144.1, 146.6, 150.2, 132.8, 134.8, 156.2),
    25: (250.2, 408.8, 425.2, 424.1, 427.8, 377.3, 368.8, 445.7),
    50: (499.7, 904.4, 930.7, 918.9, 917.8, 823.3, 769.3, 936.1),
    75: (749.9, 1417.1, 1449.2, 1427.6, 1422.6, 1293.9, 1172.9, 1428.8),
    100: (999.4, 1939.5, 1973.9, 1942.1, 1935.1, 1778.2, 1578.5, 1913.7),
}
"""By episodes."""


def published_trial(task: TaskDistribution, episodes: int) -> PublishedTrial | None:
    """What was reported on trials of so many episodes of exactly this definition of the task, if anything."""
    if task not in type(task).presets.values():
        return None
    if task.name == "bandit" and (episodes, task.spec.action_dim) in BANDITS:
        values = BANDITS[episodes, task.spec.action_dim]
        return PublishedTrial(DUAN_2016, dict(zip(BANDIT_ROWS, values, strict=True)))
    if task.name == "tabular_mdp" and episodes in MDPS:
        return PublishedTrial(DUAN_2016, dict(zip(MDP_ROWS, MDPS[episodes], strict=True)))
    return None


class PublishedSuccess(NamedTuple):
    """Success rate on test tasks after adaptation, by source and method."""

    rates: dict[str, dict[str, str]]
    meta_batch: int
    """Worlds that the published evaluation plays side by side; all kinds of test task share them."""

    def parallel(self, num_kinds: int) -> int:
        """Goals of one kind that are played side by side."""
        return max(1, self.meta_batch // num_kinds)

    def caption(self, method: str, adaptation_episodes: int) -> str:
        """What was reported for a method, how it was counted, and in what our count differs."""
        found = [f"{source} {rates[method]}" for source, rates in self.rates.items() if method in rates]
        reported = "; ".join(found) or "nothing published for it"
        ours = "" if adaptation_episodes == 10 else f"; here after {adaptation_episodes}"
        return (
            f"published, by other networks and after other budgets: {reported}. Those count as the last column does, "
            "biased upwards: greedy, after 10 adaptation episodes"
            f"{ours}; an episode ends at its success, and of each environment's parallel goals the first 3 episodes to "
            "finish count. All other columns count every episode."
        )


YU_2021, PLUS = "Meta-World 2021 (average maximum success over training)", "Meta-World+ 2025 (as transcribed)"

SUCCESS: dict[str, PublishedSuccess] = {
    "ml1": PublishedSuccess({}, meta_batch=10),
    "ml10": PublishedSuccess(
        {
            YU_2021: {"MAML": "31.6 % (400M env steps)", "RL2": "35.8 % (500M)"},
            PLUS: {"MAML": "~35 % (20M)", "RL2": "~35 % (20M)"},
        },
        meta_batch=20,
    ),
    "ml25": PublishedSuccess({}, meta_batch=25),
    "ml45": PublishedSuccess(
        {
            YU_2021: {"MAML": "39.9 % (1800M env steps)", "RL2": "33.3 %"},
            PLUS: {"MAML": "~25 % (90M)", "RL2": "~25 % (90M)"},
        },
        meta_batch=45,
    ),
}
"""By benchmark, for rewards of version 2."""


def published_success(task: TaskDistribution) -> PublishedSuccess | None:
    """What was reported on this benchmark with this task's reward, and how it was counted; None where nobody did."""
    found = SUCCESS.get(task.name)
    return found._replace(rates={}) if found and getattr(task, "reward", "v2") != "v2" else found
