"""Measurements as every report shows them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.reports.records import Record


def measurement_record(measured: Measurement) -> Record:
    shares = {name: getattr(measured.environment, name) for name in ("others", "stolen", "throttled")}
    found = asdict(measured)
    for name in ("deviation_maps", "deviation_outputs"):
        if found[name] is not None and not math.isfinite(found[name]):
            found[name] = None  # JSON has no infinity; the rung's `problem` tells
    return {**found, "environment": {**found["environment"], **shares}}
