"""Several nets side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.report.accuracy import Accuracy
from resnetcli.report.accuracy import accuracy as accuracies
from resnetcli.report.profile import Profile, Size, profile_model, settings_text
from resnetcli.spec.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd

HEADLINE = ("resnet50", "resnext50_32x4d")
"""The pair of Xie et al. 2017, Table 1, which `compare` shows unless told otherwise."""
Model = str | tuple[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Profiles in the order asked for, or sorted."""

    profiles: tuple[Profile, ...]
    baseline: Profile | None = None
    """What relative columns are relative to."""
    accuracy: Accuracy | None = None
    """The printed accuracies to be shown, of one protocol."""

    def to_frame(self) -> pd.DataFrame:
        """One row a model, exact integers, indexed by model; imports pandas."""
        import pandas as pd

        return pd.DataFrame([figures(p) for p in self.profiles]).set_index("model")


def figures(profile: Profile) -> dict[str, Any]:
    """What a comparison compares: exact counts, and the first measurement if there is one."""
    counts = profile.counts
    found: dict[str, Any] = {
        "model": label(profile),
        "name": profile.spec.title,
        "input": str(profile.plan.input),
        "params": counts.params,
        "macs": counts.macs,
        "flops": counts.flops,
        "activations": counts.activations,
        "depth": counts.depth,
    }
    if profile.measurements:
        m = profile.measurements[0]
        found |= {
            "device": m.device,
            "batch": m.batch,
            "median_s": m.median_s,
            "iqr_s": m.iqr_s,
            "n": m.n,
            "throughput_img_s": m.throughput_img_s,
            "peak_memory_bytes": m.peak_memory_bytes,
        }
    return found


def label(profile: Profile) -> str:
    """The model with the parameters that were set: `resnext50_32x4d C=8 d=14`."""
    return " ".join(filter(None, (profile.model, settings_text(profile.settings))))


SORTS = ("name", "params", "macs", "flops", "activations", "depth", "median_s", "throughput_img_s", "peak_memory_bytes")


def compare(
    *models: Model,
    input: Size | None = None,
    batch: int = 1,
    device: str | None = None,
    sort: str | None = None,
    baseline: str | None = None,
    accuracy: bool = False,
    protocol: str | None = None,
    zoo: Zoo | None = None,
) -> Comparison:
    """The models' profiles: names, or (name, parameters). Without any, ResNet-50 and ResNeXt-50.

    `sort` is a figure, largest first with a leading `-`. `accuracy` adds what papers print under one evaluation
    protocol: the one named, or that of most of the nets. Raises what `profile` raises, and UsageError for a figure,
    baseline or protocol that there is not.
    """
    zoo = zoo or Zoo()
    asked = [(model, {}) if isinstance(model, str) else model for model in models or HEADLINE]
    profiles = [profile_model(name, given, input=input, batch=batch, device=device, zoo=zoo) for name, given in asked]
    printed = accuracies(profiles, protocol, zoo) if accuracy or protocol else None
    return Comparison(_sorted(profiles, sort), _baseline(profiles, baseline), printed)


def _sorted(profiles: list[Profile], sort: str | None) -> tuple[Profile, ...]:
    if sort is None:
        return tuple(profiles)
    key = sort.removeprefix("-")
    if key not in SORTS:
        raise UsageError(f"cannot sort by `{key}`", did_you_mean(key, SORTS, f"one of {', '.join(SORTS)}"))
    if profiles and key not in figures(profiles[0]):
        raise UsageError(f"`{key}` is measured only with `--device`")

    def value(profile: Profile) -> Any:
        found = figures(profile)[key]
        return (found is None, found)

    return tuple(sorted(profiles, key=value, reverse=sort.startswith("-")))


def _baseline(profiles: list[Profile], name: str | None) -> Profile | None:
    if name is None:
        return None
    known = {p.model: p for p in reversed(profiles)} | {label(p): p for p in profiles}
    if name not in known:
        raise UsageError(
            f"the baseline `{name}` is not among the models compared",
            did_you_mean(name, known, f"one of {', '.join(known)}"),
        )
    return known[name]
