"""Supervised few-shot tasks: the sine wave of Finn et al. 2017, and images of classes never seen.

``maml2017`` has the paper's settings of the sine wave, and ours of the length: 10,000 meta-updates, there 70,000.
Those of digits were chosen by accuracy on digits 3 and 4, kept from training (``held_back=2``), but for Meta Networks'.
MAML's kin are presets of ``maml``: ``fomaml``, ``meta_sgd`` (learned step sizes), ``anil`` (the last layer adapts).
Those of images in a folder have the papers' settings but for the network's normalization, and were never run to their
end.
"""

from dataclasses import replace
from typing import Any

from metarl.envs.registry import find_preset
from metarl.fewshot import FewShotMAML, FewShotReptile, FineTuned, MetaNetworks, Nearest, Prototypical
from metarl.networks.predictors import MLP, ConvNet
from metarl.runs.supervised import FewShotExperiment

SINE = find_preset("sinusoid", "k10")
SMALL, WIDE = MLP((40, 40), "relu"), MLP((256,), "relu")
SINE_MAML = FewShotMAML(network=SMALL, inner_lr=0.01, learning_rate=1e-3)
DIGITS_MAML = FewShotMAML(network=WIDE, adapt_steps=5, inner_lr=0.1, learning_rate=1e-3)
NOTHING_TO_LEARN: dict[str, Any] = {"iterations": 1, "updates": 1}


def kin(maml: FewShotMAML) -> dict[str, FewShotMAML]:
    """MAML's relatives: one switch each."""
    return {
        "fomaml": replace(maml, first_order=True),
        "meta_sgd": replace(maml, learn_inner_lr=True),
        "anil": replace(maml, head_only=True),
    }


WAVES: list[dict[str, Any]] = [
    {"maml2017": SINE_MAML, **kin(SINE_MAML)},
    {"tuned": FewShotReptile(SMALL, 5, 0.02, train_steps=5, minibatch=10, step_size=0.5)},
    {"tuned": MetaNetworks(MLP((40, 40)))},
    {"tuned": FineTuned(SMALL, inner_lr=0.01)},
]
SINUSOIDS = [
    *(
        {name: FewShotExperiment(SINE, learner, num_tasks=25, iterations=100) for name, learner in learners.items()}
        for learners in WAVES
    ),
    {"raw": FewShotExperiment(SINE, Nearest(), **NOTHING_TO_LEARN)},
]
DIGITS: list[dict[str, Any]] = [
    {
        "tuned": DIGITS_MAML,
        **kin(DIGITS_MAML),
        "anil": replace(DIGITS_MAML, head_only=True, inner_lr=0.5, learning_rate=5e-4),
    },
    {"tuned": FewShotReptile(WIDE, 10, 0.1, train_steps=5, minibatch=20, step_size=0.2)},
    {"tuned": Prototypical(WIDE, embedding_size=128, learning_rate=1e-4)},
    {"tuned": MetaNetworks(learning_rate=3e-3)},
    {"tuned": FineTuned(WIDE, inner_lr=0.05)},
]


def on_digits(task_preset: str) -> list[dict[str, FewShotExperiment]]:
    task, ending = find_preset("digits", task_preset), "" if task_preset == "n5_k1" else "_k5"
    trained = [
        {f"{name}{ending}": FewShotExperiment(task, learner) for name, learner in learners.items()}
        for learners in DIGITS
    ]
    return [*trained, {f"raw{ending}": FewShotExperiment(task, Nearest(), **NOTHING_TO_LEARN)}]


def of_images(name: str, ending: str) -> list[dict[str, FewShotExperiment]]:
    """On a GPU: 60,000 meta-updates of a convolutional network, as Finn et al. 2017 and Snell et al. 2017 took."""
    task, network = find_preset(name, f"n5_{ending}"), ConvNet(64)
    maml = FewShotMAML(
        network, adapt_steps=1 if name == "omniglot" else 5, inner_lr=0.4 if name == "omniglot" else 0.01
    )
    whole: FewShotExperiment = FewShotExperiment(task, maml, num_tasks=32 if name == "omniglot" else 4, iterations=600)
    return [{f"maml2017_{ending}": whole}, {f"snell2017_{ending}": replace(whole, learner=Prototypical(network))}]


PRESETS = (
    *SINUSOIDS,
    *on_digits("n5_k1"),
    *on_digits("n5_k5"),
    *(
        presets
        for name in ("omniglot", "mini_imagenet")
        for ending in ("k1", "k5")
        for presets in of_images(name, ending)
    ),
)
