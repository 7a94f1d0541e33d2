"""Meta-reinforcement learning: adaptation, meta-gradients and meta-evaluation on batched task environments.

The loop is :func:`metarl.train.train`; an algorithm is a dataclass in :mod:`metarl.algorithms`; a task distribution is
one in :mod:`metarl.envs`; :mod:`metarl.presets` has the experiments of the literature. Names are imported when they are
used (``__init__.pyi`` says from where), so that ``import metarl`` takes a moment and torch only who needs it.
"""

import lazy_loader

from metarl.catalogue import register_tasks

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_tasks()
