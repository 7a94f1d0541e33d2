"""The command ``metarl``: train, evaluate, plot, film; what can be answered without torch is answered at once."""

import sys
from collections.abc import Sequence

from metarl import catalogue

USAGE = """usage: metarl VERB ...

Meta-reinforcement learning: train a policy that adapts to new tasks, and test it on tasks it has never seen.

  train TASK     train a meta-learner on a task distribution, or continue a run (--resume)
  evaluate RUN   test a run on held-out tasks, beside comparisons and published numbers
  plot RUN ...   draw learning curves of runs
  video RUN      film a held-out task before and after adaptation
  list           tasks, learners and presets
  doctor         what this machine can do

metarl VERB --help has the options of each; metarl train half_cheetah_dir --learner maml --preset demo takes minutes.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``metarl``; ends with one sentence and exit code 2 on bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = arguments[0] if arguments else None
    if verb in (None, "-h", "--help"):
        print(USAGE, end="")
        sys.exit(0 if arguments else 2)
    own_code = any(argument.partition("=")[0] == "--code" for argument in arguments)
    known = None if own_code else catalogue.load()
    if known is not None:
        mistake = catalogue.mistake(verb, arguments[1:], known)
        if mistake is not None:
            print(f"error: {mistake}", file=sys.stderr)
            sys.exit(2)
        if arguments == ["list"]:
            print(catalogue.table(known))
            return
    from metarl.cli.verbs import run  # imports torch

    exit_code = run(arguments, known)
    if exit_code:
        sys.exit(exit_code)
