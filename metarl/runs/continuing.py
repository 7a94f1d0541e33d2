"""Where training in a run folder starts from: its newest usable checkpoint, another run's parameters, or nothing."""

from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from metarl import ranks
from metarl.envs.api import TaskEnv
from metarl.runs import checkpoint, replays, table
from metarl.runs.beginning import begin_from
from metarl.runs.experiment import Experiment
from metarl.runs.selection import Selection, selection_of
from metarl.runs.snapshot import restore
from metarl.runs.supervised import FewShotExperiment
from metarl.train import Progress

NO_SELECTION = Selection()


def require_shares(experiment: Experiment) -> None:
    """Refuses what cannot be divided among ranks.

    Raises:
        ValueError: tasks of examples, or a number of tasks that leaves some with more than others.
    """
    if isinstance(experiment, FewShotExperiment):
        raise ValueError(f"task is {experiment.task.name}: tasks of examples train in one process, start one")
    if experiment.num_tasks % ranks.size():
        raise ValueError(
            f"num_tasks is {experiment.num_tasks}: use a multiple of the number of processes ({ranks.size()})"
        )


def of_the_group(error: RuntimeError) -> bool:
    """Whether it says that another rank is gone."""
    return any(word in str(error).lower() for word in ("gloo", "nccl", "peer", "process group", "processgroup"))


def checkpoints_of(run: Path) -> Path:
    """The first rank's are the run's; the others have theirs below."""
    folder = run / checkpoint.DIRECTORY
    return folder if ranks.rank() == 0 else folder / f"rank-{ranks.rank()}"


def continue_or_begin(
    experiment: Experiment, run: Path, progress: Progress, env: TaskEnv | None, console: Console
) -> Selection:
    """Puts training where it starts from, and says so; which checkpoint was the best by validation then."""
    own = checkpoints_of(run)
    if ranks.size() > 1:
        ranks.everyone(None)  # the first rank has made the folder
        own.mkdir(exist_ok=True)
    if not any(ranks.everyone(checkpoint.has_checkpoint(own))):
        if recorded := table.num_recorded(run):
            raise ValueError(
                f"{run} has {recorded} iterations in progress.csv and no checkpoint to continue from: bring "
                f"its {checkpoint.DIRECTORY}/ back, or start a new run"
            )
        (run / checkpoint.DIRECTORY).mkdir(exist_ok=True)
        console.print(f"recording in {run}")
        if experiment.init_from:
            console.print(begin_from(progress, run))
        return NO_SELECTION
    require = partial(replays.require_files, directory=own)
    content = checkpoint.load_newest(own, console.print, put_aside=True, require=require)
    common = min(ranks.everyone(int(content["iteration"])))
    if content["iteration"] > common:
        content = checkpoint.load(own / f"iteration_{common:08d}.ckpt")
    restore(experiment, progress, env, content, own)
    if progress.iteration > experiment.iterations:
        raise ValueError(f"iterations is {experiment.iterations}: {run} has {progress.iteration} already")
    console.print(f"continuing {run} after {progress.iteration} iterations")
    if content.get("device", "cpu") != progress.actions.device.type:
        console.print(
            f"the run comes from another device ({content.get('device', 'cpu')}): its draws differ from now on"
        )
    if content["num_threads"] != torch.get_num_threads():
        console.print(
            f"the run had {content['num_threads']} threads and has {torch.get_num_threads()} now: "
            "it goes on, but its bits may differ from those of an undisturbed run"
        )
    return selection_of(content)
