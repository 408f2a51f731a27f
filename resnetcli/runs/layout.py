"""The files of a run directory, by name.

config.json   everything the run depends on, resolved
spec.yaml     the model's spec as written
model.yaml    the same spec, self-contained: it makes the directory a model
recipe.yaml   every value of the recipe
metrics.jsonl one line per reading; metrics.csv has the same
events.out.tfevents.N.resnet-cli  the same for TensorBoard, with `--tensorboard`
checkpoint-00032000.safetensors   the last two
result.json   the final result; only a completed run has one

A directory of several runs has group.json instead, and a folder for each run.
"""

from __future__ import annotations

from fnmatch import fnmatch

from resnetcli.files import draft_targets

CONFIG_FILE, RESULT_FILE, SUMMARY_FILE, GROUP_FILE = "config.json", "result.json", "summary.json", "group.json"
SPEC_FILE, MODEL_FILE, RECIPE_FILE = "spec.yaml", "model.yaml", "recipe.yaml"
METRICS_FILE, TABLE_FILE, LOCK_FILE = "metrics.jsonl", "metrics.csv", ".lock"
EVENT_FILES = "events.out.tfevents.*.resnet-cli"
_INITIAL = {CONFIG_FILE, SPEC_FILE, MODEL_FILE, RECIPE_FILE, METRICS_FILE, TABLE_FILE, GROUP_FILE, LOCK_FILE}
"""Files a run has before its first reading, except event files."""
_LATER = (EVENT_FILES, "checkpoint-*.safetensors", RESULT_FILE, SUMMARY_FILE, "curves.png")


def is_initial_file(name: str) -> bool:
    """Whether a run without progress may have a file of that name: an initial file, or a draft of any file."""
    return name in _INITIAL or fnmatch(name, EVENT_FILES) or is_draft(name)


def is_run_file(name: str) -> bool:
    """Whether a run writes a file of that name."""
    return name in _INITIAL or any(fnmatch(name, pattern) for pattern in _LATER)


def is_draft(name: str) -> bool:
    """Whether it is the name of an unfinished file of a run."""
    return any(map(is_run_file, draft_targets(name)))


def is_folder_name(name: object) -> bool:
    """Whether a run's folder in a group may have that name: printable, directly inside, and not the name of a file."""
    if not isinstance(name, str) or is_initial_file(name) or is_run_file(name):
        return False
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()


EDITED = "edited, damaged or written by another version: restore it, or train again"
"""The hint for an invalid file of a run."""
