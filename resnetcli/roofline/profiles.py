"""Device profiles: peak rates of a device as a JSON file, shipped, given or cached."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from resnetcli.bench.device import cpu_name
from resnetcli.errors import UsageError, did_you_mean, plural
from resnetcli.files import cache_dir, read_bounded, write_json
from resnetcli.frozen import frozen
from resnetcli.roofline.peaks import DevicePeaks
from resnetcli.structure import parse_json, structure

SCHEMA = "resnet-cli/device-profile@1"
METHOD = "2"
"""Raised when `calibrate` measures differently, which invalidates cached profiles."""
SHIPPED = Path(__file__).resolve().parent.parent / "devices"
MAX_PROFILE = 2**20
"""Maximum bytes of a file; a measured profile takes 3 KB."""
_HINT = "`resnet-cli calibrate --format json` writes one"


@frozen
class Validation:
    """Comparison of lower bounds with published latencies of a device."""

    dtype: str
    batch_size: int
    source: str
    latency_s: Mapping[str, float]
    """Published, by model."""
    attained: tuple[float, float, float]
    """Lower bound / published latency: minimum, median, maximum."""

    @property
    def text(self) -> str:
        """`80% to 98% (median 93%) of PyTorch Image Models' published ..., 11 models`."""
        low, median, high = (f"{share:.0%}" for share in self.attained)
        return f"{low} to {high} (median {median}) of {self.source}, {plural(len(self.latency_s), 'model')}"

    def covers(self, dtype: str, batch_size: int) -> bool:
        """Whether this dtype and batch size were compared."""
        return (dtype, batch_size) == (self.dtype, self.batch_size)


def read_validation(reference: str) -> Validation | None:
    """The validation of a shipped profile; None for one without, and for a user's file."""
    path = SHIPPED / "validation" / f"{reference}.json"
    if reference not in shipped() or not path.exists():
        return None
    return structure(Validation, parse_json(path.read_bytes()))


def device_profile_record(peaks: DevicePeaks) -> dict[str, Any]:
    """`resnet-cli/device-profile@1`."""
    record = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(peaks).items()}
    return {"schema": SCHEMA, **record}


def from_json(record: Any) -> DevicePeaks:
    """The peaks of a parsed profile. Raises ValueError with the reasons for anything else."""
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"`schema` must be `{SCHEMA}`")
    return structure(DevicePeaks, record)


def shipped() -> tuple[str, ...]:
    """Names of the profiles in the package: `a100-40gb`, ..."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))


def read_profile(reference: str) -> DevicePeaks:
    """Read a shipped profile or a file. Raises UsageError if there is none or it is invalid."""
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
        return _read(path)
    except ValueError as error:
        raise UsageError(f"`{reference}` is not a device profile: {error}", _HINT) from None


def _read(path: Path) -> DevicePeaks:
    return from_json(parse_json(read_bounded(path, MAX_PROFILE, _HINT)))


def write_profile(peaks: DevicePeaks, path: Path) -> None:
    """Atomically write a profile, creating its directory. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, device_profile_record(peaks))


def read_cached(device: str) -> DevicePeaks | None:
    """The profile `calibrate` cached on this machine; None if there is none, or it is unreadable."""
    with suppress(UsageError, ValueError):
        return _read(cache_file(device))
    return None


def cache_file(device: str) -> Path:
    """Where a device's profile is cached, by machine, version of torch and number of threads.

    Raises UsageError without a home directory.
    """
    return cache_dir() / "devices" / f"{device.replace(':', '-')}-{fingerprint(device)}.json"


def fingerprint(device: str) -> str:
    """Sixteen hex digits of everything a device's peaks depend on."""
    return hashlib.sha256("\n".join(_identity(device)).encode()).hexdigest()[:16]


def _identity(device: str) -> Sequence[str]:
    from resnetcli.bench.environment import own_processors

    facts = [SCHEMA, METHOD, device, platform.machine(), cpu_name(Path("/proc/cpuinfo")), str(len(own_processors())),
             _torch_version()]  # fmt: skip
    facts += [f"{name}={os.environ.get(name, '')}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    if device.startswith("cuda"):
        from resnetcli.bench.device import describe_device

        facts.append(describe_device(device))
    return facts


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""
