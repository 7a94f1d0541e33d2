"""What a search varies where nothing else is said, by learner: flat names of options, and where to look.

    metarl.presets.spaces.find("maml")["inner_lr"]  # Float(low=0.01, high=2.0, log=True)

Intervals are wide enough to hold every preset. A name that the learner does not have (an option of TRPO's step beside
PPO) is left out, so that a space may be written for both. :func:`add` makes one's own known.
"""

from metarl.search.dimensions import Choice, Dimension, Float, Int, Space

_STEP: dict[str, Dimension] = {
    "inner_lr": Float(0.01, 2.0, log=True),
    "discount": Float(0.9, 0.999),
    "gae_lambda": Float(0.8, 1.0),
    "init_std": Float(0.3, 1.5, log=True),
}
_OUTER: dict[str, Dimension] = {
    "max_kl": Float(2e-3, 0.1, log=True),
    "damping": Float(1e-6, 0.1, log=True),
    "learning_rate": Float(1e-4, 1e-2, log=True),
    "epochs": Int(1, 10),
    "clip": Float(0.1, 0.5),
}

SPACES: dict[str, dict[str, Dimension]] = {
    "maml": _STEP | _OUTER,
    "promp": _STEP | _OUTER | {"kl_penalty": Float(1e-5, 1e-2, log=True)},
    "reptile": _STEP | {"step_size": Float(0.1, 2.0, log=True)},
    "es_maml": _STEP
    | {
        "learning_rate": Float(1e-3, 0.1, log=True),
        "perturbation": Float(0.01, 0.5, log=True),
        "pairs": Choice((1, 5)),
    },
    "rl2": {
        "learning_rate": Float(3e-4, 2e-2, log=True),
        "epochs": Int(2, 12),
        "minibatches": Choice((1, 2, 4, 8)),
        "clip": Float(0.1, 0.4),
        "entropy_bonus": Float(1e-4, 0.1, log=True),
        "gae_lambda": Float(0.2, 1.0),
        "value_lambda": Float(0.5, 1.0),
        "memory_size": Choice((32, 64, 128)),
    },
}


def find(name: str) -> Space:
    """The space called ``name``; empty where there is none."""
    return dict(SPACES.get(name, {}))


def add(name: str, space: Space) -> None:
    """Makes a space known, in place of one of that name."""
    SPACES[name] = dict(space)
