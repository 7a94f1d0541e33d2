"""Supervised few-shot learning: tasks of a few labelled examples, and learners that go through RL's inner step.

A learner's name on the command line is that of its counterpart in RL where there is one (``maml``, ``reptile``): which
is meant, the task decides.
"""

from typing import Any

from metarl.fewshot.digits import Digits
from metarl.fewshot.episodes import FewShotTasks
from metarl.fewshot.fine_tuned import FineTuned
from metarl.fewshot.gradient import FewShotMAML, FewShotReptile
from metarl.fewshot.image_folders import MiniImageNet, Omniglot
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.meta_networks import MetaNetworks
from metarl.fewshot.metric import Nearest, Prototypical
from metarl.fewshot.sinusoid import Sinusoid

LEARNERS: dict[str, type[FewShotLearner]] = {
    cls.__name__: cls for cls in (FewShotMAML, FewShotReptile, Prototypical, MetaNetworks, FineTuned, Nearest)
}
"""Every few-shot learner by the name of its class, by which runs are opened; add one's own."""

__all__ = [
    "LEARNERS",
    "Digits",
    "FewShotLearner",
    "FewShotMAML",
    "FewShotReptile",
    "FewShotTasks",
    "FineTuned",
    "MetaNetworks",
    "MiniImageNet",
    "Nearest",
    "Omniglot",
    "Prototypical",
    "Sinusoid",
    "find_learner",
]


def find_learner(name: str) -> type[Any]:
    """The few-shot learner called ``name`` on the command line.

    Raises:
        ValueError: there is none, with the names there are.
    """
    named = {cls.called: cls for cls in LEARNERS.values()}
    if name not in named:
        raise ValueError(f"learner is {name!r}: of examples, use one of {', '.join(named)}")
    return named[name]
