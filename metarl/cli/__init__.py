"""The command ``metarl``: train, evaluate, report, plot, watch, film. What needs no torch is answered at once."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from metarl import catalogue
from metarl.extensions import installed
from metarl.runs.stopping import install, reinstall

USAGE = """usage: metarl VERB ...

Meta-reinforcement learning: train a policy that adapts to new tasks, and test it on tasks it has never seen.

  train TASK     train a meta-learner on a task distribution, or continue a run (--resume)
  tune TASK      search for settings, by any number of processes that see one folder
  evaluate RUN   test a run on held-out tasks, beside comparisons and published numbers
  probe RUN      how much of the task a learner infers, step by step
  report RUN ... compare evaluated runs over seeds: intervals, profiles, probability of improvement
  plot RUN ...   draw learning curves of runs
  watch RUN ...  progress of runs in one live table
  video RUN      film a held-out task before and after adaptation
  export RUN     adapt to a task in simulation, and write a policy that runs without torch
  track RUN      mirror a run folder to Weights & Biases
  submit -- ...  run a command as jobs of a cluster, which go on after a preemption
  warmup TASK .. compile a GPU's kernels before they are needed
  list           tasks, learners and presets
  doctor         what this machine can do

metarl VERB --help has the options of each; metarl train half_cheetah_dir --learner maml --preset demo takes minutes.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``metarl``; ends with one sentence and exit code 2 on bad input."""
    print_what_the_encoding_can()
    with ended_in_one_sentence():
        run = answered(list(sys.argv[1:] if arguments is None else arguments))
    if run is not None and (exit_code := run()):
        sys.exit(exit_code)


def answered(arguments: Sequence[str]) -> Callable[[], int] | None:
    """Does at once what needs no torch; else imports it and returns what is left to do."""
    verb = arguments[0] if arguments else None
    if verb in (None, "-h", "--help"):
        print(USAGE, end="")
        sys.exit(0 if arguments else 2)
    own_code = any(argument.partition("=")[0] == "--code" for argument in arguments)
    known = None if own_code else catalogue.load()
    if known is not None:
        mistake = catalogue.mistake(verb, arguments[1:], known)
        if (mistake is not None or verb == "list") and installed():
            known = None  # what other packages add is not in it
        elif mistake is not None:
            print(f"error: {' '.join(mistake.splitlines())}", file=sys.stderr)
            sys.exit(2)
        elif list(arguments) == ["list"]:
            print(catalogue.table(known))
            return None
    if verb == "watch" and known is not None:
        from metarl.cli.watch import run as watch_runs

        return lambda: watch_runs(arguments[1:])
    from metarl.cli.verbs import run  # imports torch

    return lambda: run(arguments, known)


def print_what_the_encoding_can() -> None:
    """Question marks for the rest: a run must not fail over an arrow on an ASCII terminal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def ended_in_one_sentence() -> Iterator[None]:
    """Ends the process on a signal, at once: nothing is lost yet, and an import that is cut ends in tracebacks."""

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, b"error: interrupted\n")
        os._exit(128 + number)

    before = install(end)
    try:
        yield
    finally:
        reinstall(before)
