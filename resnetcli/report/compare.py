"""Several nets side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.report.accuracy import Accuracy
from resnetcli.report.accuracy import accuracy as printed_accuracy
from resnetcli.report.convention import DEFAULT
from resnetcli.report.profile import Profile, Size, profile_model, settings_text
from resnetcli.spec.header import FIGURES
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

        return pd.DataFrame([figures(p) | self.accuracies(p) for p in self.profiles]).set_index("model")

    def accuracies(self, profile: Profile) -> dict[str, float | None]:
        """The best printed figure of each column, by name; with the dataset where there are several."""
        if self.accuracy is None:
            return {}
        keys = self.accuracy.keys
        return {keys[column]: self.accuracy.best(profile, *column) for column in self.accuracy.columns}


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
    tally = profile.tally
    found.setdefault(tally.name, tally.total)
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
    convention: str = DEFAULT,
    zoo: Zoo | None = None,
) -> Comparison:
    """The models' profiles: names, or (name, parameters). Without any, ResNet-50 and ResNeXt-50.

    `convention` is how work is counted: a tool's way (`fvcore`, `thop`, ...), which each profile's `tally` has.
    `accuracy` adds what papers print under one evaluation protocol: the one named, or that of most of the nets. `sort`
    is a figure, a printed one of that protocol among them, largest first with a leading `-`. Raises what `profile`
    raises, and UsageError for a figure, baseline or protocol that there is not.
    """
    zoo = zoo or Zoo()
    asked = [(model, {}) if isinstance(model, str) else model for model in models or HEADLINE]
    profiles = [
        profile_model(
            name, given, input=input, batch=batch, device=device, zoo=zoo, modules=True, convention=convention
        )
        for name, given in asked
    ]
    printed = printed_accuracy(profiles, protocol, zoo) if accuracy or protocol else None
    found = Comparison(tuple(profiles), _baseline(profiles, baseline), printed)
    return found if sort is None else replace(found, profiles=_sorted(found, sort))


def _sorted(comparison: Comparison, sort: str) -> tuple[Profile, ...]:
    """By a figure; nets without it last, whatever the direction."""
    first = comparison.profiles[0]
    key, known = sort.removeprefix("-"), (*SORTS, first.convention.name, *comparison.accuracies(first))
    if key not in known:
        hint = "with `--accuracy`" if key in FIGURES else did_you_mean(key, known, f"one of {', '.join(known)}")
        raise UsageError(f"cannot sort by `{key}`", hint)
    values = [(figures(p) | comparison.accuracies(p)).get(key) for p in comparison.profiles]
    if all(value is None for value in values):
        raise UsageError(f"`{key}` is measured only with `--device`")
    places = [place for place, value in enumerate(values) if value is not None]
    places.sort(key=lambda place: values[place] or 0, reverse=sort.startswith("-"))
    places += [place for place, value in enumerate(values) if value is None]
    return tuple(comparison.profiles[place] for place in places)


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
