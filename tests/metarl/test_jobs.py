"""Jobs of a cluster: submitit's local executor runs them, and a preempted one goes on."""

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from metarl import cli
from metarl.runs.jobs import Cluster, Command, submit, words_of


def test_a_command_runs_as_jobs_of_the_local_executor(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    script = tmp_path / "work.py"
    script.write_text("import os, sys, pathlib; pathlib.Path(sys.argv[1], str(os.getpid())).touch()")
    (tmp_path / "done").mkdir()
    where = Cluster(cluster="local", jobs=2, job_hours=0.1, cpus=1, logs=tmp_path / "logs")
    jobs = submit(["python", str(script), str(tmp_path / "done")], where)
    assert [job.result() for job in jobs] == [0, 0]
    assert len(list((tmp_path / "done").iterdir())) == 2
    (failing,) = submit(["python", "-c", "raise SystemExit(3)"], Cluster(cluster="local", logs=tmp_path / "logs"))
    assert "ended with 3" in str(failing.exception())


def test_a_preempted_command_ends_in_order_and_is_submitted_anew(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    saved, ready = tmp_path / "saved", tmp_path / "ready"
    code = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(saved)!r}).touch(), sys.exit(143)))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )
    command = Command((sys.executable, "-c", code))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            command()
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    anew = command.checkpoint()
    thread.join(60)
    assert saved.exists()
    assert str(128 + signal.SIGTERM) in str(failures[0])
    assert anew.function.words == command.words


def test_what_is_submitted_is_metarl_or_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert words_of(["metarl", "tune", "bandit"]) == (sys.executable, "-m", "metarl", "tune", "bandit")
    for arguments in (["submit", "--cluster", "local"], ["submit", "--", "rm", "x"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert "nothing to submit: metarl submit" in capsys.readouterr().err
