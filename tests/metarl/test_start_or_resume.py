"""One command that begins a run, or goes on with it: what a preempted job is submitted as, again and again."""

from pathlib import Path

import pytest
import torch

from metarl import cli
from metarl.runs import checkpoint
from metarl.runs.lock import run_lock
from metarl.runs.session import Recording

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = ["navigation", "--learner", "maml", "--num-tasks", "2", "--num-envs", "2", "--episodes", "2", "--horizon", "5"]
TINY += ["--eval-interval", "0", "--num-threads", "1", "--outer", "ppo", "--checkpoint-interval", "2"]


def command(runs: Path, *options: str) -> list[str]:
    return ["train", *TINY, "--runs", str(runs), "--start-or-resume", *options]


def weights(run: Path) -> torch.Tensor:
    content = checkpoint.load_newest(run / checkpoint.DIRECTORY, print)
    return torch.cat([value.flatten() for value in content["learner"]["meta"].values()])


class Preempted(BaseException):
    """What no handler of the run expects: it dies as it stands."""


def test_a_preempted_run_ends_with_the_bits_of_an_undisturbed_one_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(command(tmp_path, "--name", "whole", "--iterations", "5"))
    seen = []

    def preempted(self: Recording, *_: object) -> None:
        seen.append(self.iteration)
        if len(seen) == 3:
            raise Preempted

    with monkeypatch.context() as patched:
        original = Recording.log
        patched.setattr(Recording, "log", lambda self, metrics: (preempted(self), original(self, metrics))[1])
        with pytest.raises(Preempted):
            cli.main(command(tmp_path, "--name", "again", "--iterations", "5"))
    assert not torch.equal(weights(tmp_path / "again"), weights(tmp_path / "whole"))  # it was cut
    capsys.readouterr()
    cli.main(command(tmp_path, "--name", "again", "--iterations", "5"))
    assert f"continuing {tmp_path / 'again'} after" in capsys.readouterr().out
    assert torch.equal(weights(tmp_path / "again"), weights(tmp_path / "whole"))
    cli.main(command(tmp_path, "--name", "again", "--iterations", "5"))  # complete: nothing is left to do
    assert torch.equal(weights(tmp_path / "again"), weights(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "start_or_resume needs the run's --name"),
        (["--name", "there", "--inner-lr", "0.3"], "learner.inner_lr is 0.3, the run to resume has 0.5"),
        (["--resume", "{runs}/there"], "start_or_resume is asked for beside resume"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(command(tmp_path, "--name", "there", "--iterations", "1"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(command(tmp_path, "--iterations", "1", *[option.format(runs=tmp_path) for option in options]))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_of_two_jobs_with_one_name_one_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(command(tmp_path, "--name", "one", "--iterations", "1"))
    with run_lock(tmp_path / "one"), pytest.raises(SystemExit):
        cli.main(command(tmp_path, "--name", "one", "--iterations", "2"))
    assert "is in use by another process" in capsys.readouterr().err
