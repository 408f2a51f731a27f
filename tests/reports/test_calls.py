"""The number of counts does not depend on the depth: a command's work grows with the model, not its square."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest
from typer.testing import CliRunner

from resnetcli.cli.main import app
from tests.support.thin import thinned

SHALLOW, DEEP = "cifar_resnet20", "cifar_resnet110"
OF_A_WHOLE_PLAN = {
    "count", "stage_steps", "memory", "traffic", "training", "receptive", "tally", "step_elements", "lower", "fold",
}  # fmt: skip
PLAN_FILES = ("plan/", "counting/", "reports/", "roofline/")
COMMANDS = (
    "explain NET --device-profile v100",
    "explain NET --device-profile v100 --vs resnet18 --format json",
    "explain NET --device-profile v100 --format csv",
    "estimate NET resnet18 --device-profile v100",
    "profile NET --by layer",
    "profile NET --by block --receptive --format json",
    "profile NET --convention fvcore-train --format csv",
    "compare NET resnet18 --convention thop --baseline resnet18",
    "compare NET resnet18 --format json",
    "diff NET resnet18",
    "max-batch NET --memory 8GB --mode train",
    "check NET --max-memory 1kB --max-params 1k --max-macs 1k",
    "show NET",
    "verify NET",
)


def calls(command: str) -> Counter[str]:
    """How often each of the package's functions is called."""
    found: Counter[str] = Counter()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        _, package, file = code.co_filename.rpartition("resnetcli/")
        if event == "call" and package:
            found[f"{file}:{code.co_name}"] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        result = CliRunner().invoke(app, command.split(), prog_name="resnet-cli")
    finally:
        sys.setprofile(before)
    assert result.exit_code in (0, 1), result.output
    return found


@pytest.mark.parametrize("command", thinned(COMMANDS, 4))
def test_a_deeper_model_is_not_counted_more_often(command: str) -> None:
    calls(command.replace("NET", SHALLOW))  # what is imported or cached at first is so for both
    shallow, deep = calls(command.replace("NET", SHALLOW)), calls(command.replace("NET", DEEP))
    assert sum(deep.values()) < 8 * sum(shallow.values())  # 6 times as many steps
    for name, number in deep.items():
        file, _, function = name.partition(":")
        if function in OF_A_WHOLE_PLAN and file.startswith(PLAN_FILES):
            assert number <= shallow[name], name


def test_a_profile_is_counted_once_however_often_it_is_asked() -> None:
    found = calls(f"check {DEEP} --max-memory 1kB --max-params 1k --max-macs 1k")
    assert found["plan/memory.py:memory"] == 1
    found = calls(f"compare {DEEP} resnet18 --convention thop --baseline resnet18")
    assert found["counting/conventions.py:tally"] == 2
