"""What trackers are told: Weights & Biases' own reader and TensorBoard's own HParams page say what arrived."""

import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from run_checks import TINY, newest, run_quietly

from metarl import cli
from metarl.cli.train import execute_tracked
from metarl.runs import checkpoint
from metarl.runs.folder import create_run
from metarl.runs.recorded import read_progress
from metarl.runs.tracking import Tracker

pytestmark = pytest.mark.usefixtures("one_thread")


def records(log: bytes, block: int = 1 << 15) -> Iterator[bytes]:
    """The records of a file of Weights & Biases: LevelDB's log format, after 7 bytes that say what it is."""
    assert log.startswith(b":W&B")
    position, parts = 7, b""
    while position + 7 <= len(log):
        left = block - position % block
        if left < 7:  # no record begins so close to the end of a block
            position += left
            continue
        length, kind = struct.unpack_from("<HB", log, position + 4)  # after a checksum
        parts += log[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


class Arrived:
    """What an offline run's files of Weights & Biases hold, one for each time it was begun."""

    def __init__(self, run: Path) -> None:
        from wandb.proto.wandb_internal_pb2 import Record

        self.ends = 0
        self.ids, self.config, self.rows, self.summary = (
            set[str](),
            dict[str, str](),
            list[dict[str, str]](),
            set[str](),
        )
        for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
            for data in records(path.read_bytes()):
                record = Record()
                record.ParseFromString(data)
                kind = record.WhichOneof("record_type")
                if kind == "run":
                    self.ids.add(record.run.run_id)
                    self.config |= {item.key: item.value_json for item in record.run.config.update}
                elif kind == "history":
                    row = {".".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                    self.rows.append(row)
                elif kind == "exit":
                    self.ends += 1
                elif kind == "summary":
                    self.summary |= {".".join(x.nested_key) or x.key for x in record.summary.update}

    def metrics(self) -> list[tuple[float, float]]:
        rows = [row for row in self.rows if "meta_train/return_post" in row]
        return [(float(row["env_steps"]), float(row["meta_train/return_post"])) for row in rows]


def recorded(run: Path) -> list[tuple[float, float]]:
    return [(float(row["env_steps"]), float(row["meta_train/return_post"])) for row in read_progress(run)]


@pytest.mark.filterwarnings("ignore")  # of wandb's own imports
def test_an_offline_run_holds_settings_metrics_plots_and_videos_and_resumes_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    plain, run = create_run(TINY, tmp_path, "plain"), create_run(replace(TINY, iterations=1), tmp_path, "tracked")
    run_quietly(TINY, plain)
    assert execute_tracked(replace(TINY, iterations=1), run, "p") == 0
    (run / "videos").mkdir()
    imageio.imwrite(run / "videos" / "clip.gif", np.zeros((2, 8, 8, 3), np.uint8))
    imageio.imwrite(run / "curves.png", np.zeros((8, 8, 3), np.uint8))
    assert execute_tracked(TINY, run, "p") == 0  # resumed
    deadline = time.monotonic() + 60
    while (arrived := Arrived(run)).ends < 2 and time.monotonic() < deadline:
        time.sleep(0.1)  # a process of wandb's own writes
    assert len(arrived.ids) == 1
    assert arrived.metrics() == recorded(run) == recorded(plain)
    assert arrived.config["learner.inner_lr"] == "0.1"
    assert arrived.config["learner.outer"] == '"PPO"'
    media = {name for row in arrived.rows for name in row if name.endswith(".path")}
    assert media == {"media/curves.path", "media/videos/clip.path"}
    files = [path.suffix for path in run.glob("wandb/offline-run-*/files/media/**/*") if path.is_file()]
    assert sorted(files) == [".gif", ".png"]
    ours, theirs = (checkpoint.load(newest(folder))["learner"]["meta"] for folder in (run, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def broken(where: str) -> Any:
    """A tracker that fails in one of its calls."""

    class Run:
        def __getattr__(self, name: str) -> Any:
            if name == where:
                raise RuntimeError("the server is on fire")
            return lambda *_, **__: None

    module: Any = ModuleType("wandb")
    module.Settings = lambda **_: None
    module.init = lambda **_: Run() if where != "init" else Run().init
    return module


@pytest.mark.parametrize("where", ["init", "define_metric", "log", "finish", "import"])
def test_a_tracker_that_fails_costs_one_line(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None if where == "import" else broken(where))  # type: ignore[arg-type]
    run = create_run(TINY, tmp_path, "run")
    assert execute_tracked(TINY, run, "p") == 0
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert ("not installed" if where == "import" else "on fire") in said
    assert len(read_progress(run)) == TINY.iterations


def test_a_mirror_that_fails_afterwards_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = create_run(replace(TINY, iterations=1), tmp_path, "run")
    run_quietly(replace(TINY, iterations=1), run)
    monkeypatch.setitem(sys.modules, "wandb", broken("log"))
    with pytest.raises(SystemExit):
        cli.main(["track", str(run)])
    assert capsys.readouterr().err == "error: wandb: the server is on fire\n"


def test_a_mirror_sends_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(TINY, tmp_path, "run")
    run_quietly(TINY, run)
    sent: list[dict[str, float]] = []
    module = broken("")
    module.init = lambda **_: type(
        "Run", (), {"log": lambda _, row: sent.append(row), "define_metric": lambda *_, **__: None}
    )()
    monkeypatch.setitem(sys.modules, "wandb", module)
    tracker = Tracker(TINY, run, print)
    tracker.mirror(iter(read_progress(run)))
    assert [(row["env_steps"], row["meta_train/return_post"]) for row in sent] == recorded(run)


# --- TensorBoard ---------------------------------------------------------------------------------


def test_runs_compare_on_tensorboards_hparams_page(tmp_path: Path) -> None:
    """Its own backend finds two runs with the settings that differ, their metrics, and how they ended."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    slow = replace(TINY, learner=replace(TINY.learner, inner_lr=0.01))
    for name, experiment in (("fast", TINY), ("slow", slow)):
        run = create_run(experiment, tmp_path, name)
        run_quietly(replace(experiment, iterations=1), run)
        run_quietly(experiment, run)  # resumed: it is still one run
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    asked = RequestContext()
    found = context.hparams_metadata(asked, "")
    experiment_proto = context.experiment_from_metadata(asked, "", True, found, 1000)
    tags = {info.name.tag for info in experiment_proto.metric_infos}
    assert {"meta_train/return_post", "train/kl"} <= tags
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, include_metrics=True, allowed_statuses=[api_pb2.STATUS_SUCCESS]
    )
    handler = list_session_groups.Handler(
        request_context=asked, backend_context=context, experiment_id="", request=request
    )
    groups = {group.name: group for group in handler.run().session_groups}
    assert set(groups) == {"fast", "slow"}
    assert groups["slow"].hparams["learner.inner_lr"].number_value == 0.01
    assert groups["fast"].hparams["learner.inner_lr"].number_value == 0.1
    assert groups["fast"].hparams["learner.outer"].string_value == "PPO"
    values = {value.name.tag: value.value for value in groups["fast"].metric_values}
    assert values["meta_train/return_post"] == pytest.approx(recorded(tmp_path / "fast")[-1][1], rel=1e-6)
