"""TensorBoard's HParams page: what a run's settings are, so that runs can be compared there.

The page reads summaries of a run by name, each a message of its plugin (tensorboard/plugins/hparams): the start with
the settings, and the end with how it ended. A third would say which settings and metrics there are; without it the page
gathers them from all runs, so that different learners compare, too.
"""

import math
import time
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from metarl.runs.config import CLASS, leaves, to_json
from metarl.runs.experiment import CHANGEABLE, Experiment


def settings_of(experiment: Experiment) -> dict[str, float | str | bool]:
    """What an experiment is, flat: numbers, names and truth values by their path."""
    flat = leaves({"algorithm": type(experiment.learner).__name__, "task_name": experiment.task.name})
    for path, value in leaves(to_json(experiment)).items():
        if path == CLASS or (path in CHANGEABLE and path != "iterations"):
            continue
        name = path.removesuffix(f".{CLASS}")
        number = isinstance(value, int | float) and (isinstance(value, bool) or math.isfinite(value))
        flat[name] = value if number else str(value)
    return flat


def beginning(experiment: Experiment, group: str) -> Summary:
    """What makes a run show on the page.

    Args:
        group: runs of one group are averaged there; the name of one run keeps it alone.
    """
    hparams = settings_of(experiment)
    start = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=time.time())
    for name, value in hparams.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    return summary(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start))


def ending(*, complete: bool) -> Summary:
    """How the run ended: complete, or stopped before; one that is resumed ends once more."""
    status = api_pb2.STATUS_SUCCESS if complete else api_pb2.STATUS_RUNNING
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    return summary(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=info))


def summary(tag: str, data: Any) -> Summary:
    value = Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
