"""A device's ceilings, which no net can pass: arithmetic, memory and the cost of starting an operation.

They are measured (`resnetcli.roofline.calibrate`) or taken from a datasheet, stored as JSON, and read without torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from resnetcli.bench.device import cpu_name
from resnetcli.errors import UsageError, did_you_mean
from resnetcli.files import cache_dir, load_json, write_json

SCHEMA = "resnet-cli/ceilings@1"
METHOD = "2"
"""Raised when `calibrate` measures otherwise: what an earlier version has kept is then measured again."""
DTYPE_BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
"""What one can compute in, and the bytes an element takes in memory."""
SHIPPED = Path(__file__).resolve().parent.parent / "devices"
Source = Literal["measured", "datasheet"]
MAX_PROFILE = 2**20
"""Bytes of a file; one that was measured takes 3 KB."""
_FASTEST, _LONGEST_S, _LARGEST = 1e21, 1.0, 2**50
"""What a profile may have at most: operations or bytes a second, seconds of a launch, bytes of a working set. Within
these a floor can be computed of any net, and two working sets can be told apart by their logarithms."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The most floating-point operations a second in one dtype; a multiply-accumulate is two."""

    matmul: float
    conv: float
    """Of a dense 3x3 convolution, counted as if nobody saved any by a transform."""

    @property
    def best(self) -> float:
        """The quicker of the two: what a convolution cannot pass, which may be done as either."""
        return max(self.matmul, self.conv)


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a second where what is read and written is `working_set` bytes together."""

    working_set: int
    copy: float
    """Read and written, each byte of both counted."""
    read: float
    """Read only; no less than `copy`."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a device does at most."""

    name: str
    """What its maker calls it."""
    device: str
    """`cpu`, `cuda`."""
    source: Source
    peaks: Mapping[str, Peak]
    """By dtype; one that is missing is not supported or was not measured."""
    rates: tuple[Rate, ...]
    """By rising working set."""
    launch_s: float
    """Seconds that one operation takes to be asked for, one after the other; 0 where nobody says."""
    gap_s: float
    """Seconds that the device loses to each operation when they are asked for early enough; on a CPU `launch_s`."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """Under what they were measured, or where they were printed."""
    noisy: tuple[str, ...] = ()
    """Why they are not to be relied upon, if they are not: what else went on while they were measured."""

    def seconds(self, read: int, written: int) -> float:
        """The least time to read and write so many bytes.

        What is written is copied at the copy's rate; what is read beyond that comes at the reading rate. Both are those
        of a working set as large as all of it, between measured sizes in proportion to the logarithm.
        """
        copy, only = self.rates_at(read + written)
        both = min(read, written)
        return (both + written) / copy + (read - both) / only

    def rates_at(self, working_set: int) -> tuple[float, float]:
        """Bytes a second of copying, and of only reading, at a working set."""
        rates = self.rates
        above = bisect_right([rate.working_set for rate in rates], working_set)
        if above in {0, len(rates)}:
            nearest = rates[0 if above == 0 else -1]
            return nearest.copy, nearest.read
        low, high = rates[above - 1], rates[above]
        part = math.log(working_set / low.working_set) / math.log(high.working_set / low.working_set)
        return low.copy + part * (high.copy - low.copy), low.read + part * (high.read - low.read)

    def peak(self, dtype: str) -> Peak:
        """Raises UsageError for a dtype it has no figure for."""
        if dtype not in self.peaks:
            known = ", ".join(self.peaks)
            raise UsageError(f"no ceiling of {self.name} in `{dtype}`", f"there is {known}")
        return self.peaks[dtype]


def to_json(ceilings: Ceilings) -> dict[str, Any]:
    """`resnet-cli/ceilings@1`."""
    return {
        "schema": SCHEMA,
        "name": ceilings.name,
        "device": ceilings.device,
        "source": ceilings.source,
        "peaks": [
            {"dtype": dtype, "matmul_flop_s": peak.matmul, "conv_flop_s": peak.conv}
            for dtype, peak in ceilings.peaks.items()
        ],
        "bandwidth": [
            {"working_set_bytes": rate.working_set, "copy_bytes_s": rate.copy, "read_bytes_s": rate.read}
            for rate in ceilings.rates
        ],
        "launch_s": ceilings.launch_s,
        "gap_s": ceilings.gap_s,
        "conditions": [{"name": name, "value": value} for name, value in ceilings.conditions.items()],
        "noisy": list(ceilings.noisy),
    }


def from_json(found: Any) -> Ceilings:
    """The ceilings of such an object. Raises ValueError, saying why, for anything else."""
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"it is no `{SCHEMA}`")
    try:
        source = found["source"]
        peaks = [
            (_dtype(each["dtype"]), Peak(_rate(each["matmul_flop_s"]), _rate(each["conv_flop_s"])))
            for each in found["peaks"]
        ]
        rates = tuple(
            Rate(_size(each["working_set_bytes"]), _rate(each["copy_bytes_s"]), _rate(each["read_bytes_s"]))
            for each in found["bandwidth"]
        )
        launch, gap = _seconds(found["launch_s"]), _seconds(found["gap_s"])
        conditions = {_text(each["name"]): _text(each["value"]) for each in found["conditions"]}
        name, device = _text(found["name"]), _text(found["device"])
        noisy = found.get("noisy", [])  # files of earlier versions say nothing of it
    except KeyError as error:
        raise ValueError(f"`{error.args[0]}` is missing") from None
    except TypeError:
        raise ValueError("a value is of the wrong kind") from None
    if source not in ("measured", "datasheet"):
        raise ValueError("`source` is `measured` or `datasheet`")
    if type(noisy) is not list or any(type(reason) is not str for reason in noisy):
        raise ValueError("`noisy` is a list of text")
    if not peaks or not rates:
        raise ValueError("`peaks` and `bandwidth` may not be empty")
    if len(dict(peaks)) < len(peaks):
        raise ValueError("`peaks` has a dtype twice")
    if any(low.working_set >= high.working_set for low, high in pairwise(rates)):
        raise ValueError("`bandwidth` goes by rising `working_set_bytes`")
    if any(rate.read < rate.copy for rate in rates):
        raise ValueError("`read_bytes_s` is no less than `copy_bytes_s`")
    return Ceilings(name, device, source, dict(peaks), rates, launch, gap, conditions, tuple(noisy))


def _dtype(word: Any) -> str:
    if word not in DTYPE_BYTES:
        raise ValueError(f"a dtype is one of {', '.join(DTYPE_BYTES)}")
    return str(word)


def _rate(value: Any) -> float:
    if type(value) not in {int, float} or not 1 <= value <= _FASTEST:
        raise ValueError(f"rates are numbers from 1 to {_FASTEST:g} a second")
    return float(value)


def _size(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise ValueError(f"`working_set_bytes` is a whole number from 1 to {_LARGEST:,}")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in {int, float} or not 0 <= value <= _LONGEST_S:
        raise ValueError(f"`launch_s` and `gap_s` are numbers of seconds, from 0 to {_LONGEST_S:g}")
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("`name`, `device` and `conditions` are text")
    return value


# --- files -------------------------------------------------------------------------------------------------------


_HINT = "`resnet-cli calibrate --format json` writes one"


def shipped() -> tuple[str, ...]:
    """The names of the profiles that come with the package: `a100-40gb`, ..."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))


def read_profile(reference: str) -> Ceilings:
    """A file of ceilings, or a profile that comes with the package. Raises UsageError if it is none."""
    known = shipped()
    path = SHIPPED / f"{reference}.json" if reference in known else Path(reference)
    try:
        missing = not path.exists()
    except OSError:  # a name that is too long
        missing = True
    if missing:
        hint = did_you_mean(reference.lower(), known, f"a file of `resnet-cli calibrate`, or {', '.join(known)}")
        raise UsageError(f"no device profile `{reference}`", hint)
    try:
        return from_json(load_json(path, MAX_PROFILE, _HINT))
    except ValueError as error:
        raise UsageError(f"`{reference}` is no device profile: {error}", _HINT) from None


def write_profile(ceilings: Ceilings, path: Path) -> None:
    """Atomically write a profile, creating its directory. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, to_json(ceilings))


def cached(device: str) -> Ceilings | None:
    """What `calibrate` found on this machine earlier; None if it never ran, or its file cannot be read any more."""
    with suppress(UsageError, ValueError):
        return from_json(load_json(cache_file(device), MAX_PROFILE, _HINT))
    return None


def cache_file(device: str) -> Path:
    """Where the ceilings of a device of this machine are kept: another machine, torch or thread count has another.

    Raises UsageError where there is no home directory.
    """
    return cache_dir() / "ceilings" / f"{device.replace(':', '-')}-{fingerprint(device)}.json"


def fingerprint(device: str) -> str:
    """Sixteen hex digits of what a device's ceilings depend on."""
    return hashlib.sha256("\n".join(_identity(device)).encode()).hexdigest()[:16]


def _identity(device: str) -> Sequence[str]:
    facts = [
        SCHEMA,
        METHOD,
        device,
        platform.machine(),
        cpu_name(Path("/proc/cpuinfo")),
        str(processors()),
        _torch_version(),
    ]
    facts += [f"{name}={os.environ.get(name, '')}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    if device.startswith("cuda"):
        from resnetcli.bench.device import describe

        facts.append(describe(device))
    return facts


def processors() -> int:
    """Those this process may run on."""
    with suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""
