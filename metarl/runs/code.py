"""A file of a user's, of tasks, learners or policies, run because the user named it; a run folder never does."""

import importlib.util
import re
import sys
from pathlib import Path


def run_code(path: Path | None) -> None:
    """Runs a file for the classes that it defines, as an import, not as a script; its neighbours can be imported.

    Raises:
        ValueError: there is no such Python file.
    """
    if path is None:
        return
    name = "code_of_a_user_" + re.sub(r"\W", "_", path.stem)  # apart from others', and from modules of this name
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"code is {path}: there is no such Python file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as for a script
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
