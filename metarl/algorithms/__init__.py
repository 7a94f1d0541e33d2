"""Meta-learners, one file each."""

from typing import Any

from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.pearl import PEARL
from metarl.algorithms.promp import ProMP
from metarl.algorithms.reptile import Reptile
from metarl.algorithms.rl2 import RL2
from metarl.algorithms.varibad import VariBAD
from metarl.extensions import LEARNERS, load_installed
from metarl.networks import hyper as hyper  # which registers its policy
from metarl.types import MetaLearner

ALGORITHMS: dict[str, type[MetaLearner]] = LEARNERS
"""Every meta-learner by the name of its class, by which runs are opened; :func:`metarl.register` adds one's own."""
ALGORITHMS |= {cls.__name__: cls for cls in (MAML, ProMP, Reptile, ESMAML, RL2, VariBAD, PEARL)}


def learner_name(cls: type) -> str:
    """How a learner is called on the command line: ``maml``, ``es_maml``, ``rl2`` ...; some say it themselves."""
    return str(getattr(cls, "called", cls.__name__.lower()))


def find_learner(name: str) -> type[Any]:  # a protocol with fields cannot be checked by class
    """The learner called ``name`` on the command line.

    Raises:
        ValueError: there is none, with the names there are.
    """
    load_installed()
    named = {learner_name(cls): cls for cls in ALGORITHMS.values()}
    if name not in named:
        raise ValueError(f"learner is {name!r}: use one of {', '.join(named)}")
    return named[name]
