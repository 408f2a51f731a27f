"""The accuracies that papers print, one evaluation protocol at a time: figures of two protocols are not comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.reports.profile import Profile
from resnetcli.reports.verdict import Judged
from resnetcli.spec.header import ACCURACY, FIGURES, parse_protocol
from resnetcli.spec.zoo import Zoo


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Which printed figures stand beside each other."""

    protocol: str
    """`single-crop-224`."""
    columns: tuple[tuple[str, str], ...]
    """Figure and dataset of each column."""
    names: Mapping[str, str]
    """What each source is called: `arXiv:1512.03385` -> `ResNet`."""
    others: tuple[str, ...]
    """The other protocols under which some of the nets have figures."""

    @property
    def keys(self) -> dict[tuple[str, str], str]:
        """What a column is called: its figure, and the dataset if there are several."""
        several = len({dataset for _, dataset in self.columns}) > 1
        return {(figure, dataset): f"{figure} {dataset}" if several else figure for figure, dataset in self.columns}

    def published(self, profile: Profile, figure: str, dataset: str) -> dict[str, list[str]]:
        """What papers print for a net, and which of them; empty where none does: nothing is filled in.

        A paper that prints several figures, for nets trained in several ways, is named with what it says of each.
        """
        entries = [e.published for e in profile.judged if _what(e) == (figure, dataset, self.protocol)]
        values = {source: {e.printed for e in entries if e.source == source} for source in self.names}
        found: dict[str, list[str]] = {}
        for entry in entries:
            papers, name = found.setdefault(entry.printed, []), self.names[entry.source]
            if len(values[entry.source]) > 1 and entry.detail:
                name += f" ({entry.detail})"
            papers += [name] if name not in papers else []
        return found

    def best(self, profile: Profile, figure: str, dataset: str) -> float | None:
        """The best of what papers print; None where none does."""
        values = [e.published.value for e in profile.judged if _what(e) == (figure, dataset, self.protocol)]
        choose = min if "error" in figure else max
        return float(choose(values)) if values else None


def _what(entry: Judged) -> tuple[str, str, str]:
    return entry.published.figure, entry.published.dataset, entry.published.protocol


def accuracy(profiles: Sequence[Profile], protocol: str | None, zoo: Zoo) -> Accuracy:
    """The columns of a protocol; without one, of that under which most of the nets have a figure.

    Raises UsageError if no net has a figure under it.
    """
    accuracies = {id(p): [e for e in p.judged if e.published.figure.startswith(ACCURACY)] for p in profiles}
    nets = Counter(name for p in profiles
                   for name in dict.fromkeys(e.published.protocol for e in accuracies[id(p)]) if name)  # fmt: skip
    protocol = None if protocol is None else parse_protocol(protocol) or protocol
    if not nets:
        raise UsageError("no accuracy is published for these nets", "`resnet-cli papers` shows what papers print")
    protocol = nets.most_common(1)[0][0] if protocol is None else protocol
    if protocol not in nets:
        known = did_you_mean(protocol, nets, f"there is {', '.join(nets)}")
        raise UsageError(f"nothing is published for these nets under `{protocol}`", known)
    entries = [entry for each in accuracies.values() for entry in each if entry.published.protocol == protocol]
    columns = sorted(dict.fromkeys(_what(entry)[:2] for entry in entries), key=lambda c: (c[1], FIGURES.index(c[0])))
    sources = {entry.published.source for entry in entries}
    names = {source: paper.name if (paper := zoo.paper(source)) else source for source in sources}
    return Accuracy(protocol, tuple(columns), names, tuple(name for name in nets if name != protocol))
