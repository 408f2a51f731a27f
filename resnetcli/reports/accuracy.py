"""Published accuracies under one evaluation protocol; those of two protocols are not comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.frozen import frozen
from resnetcli.reports.profile import Profile
from resnetcli.reports.verdict import Judged
from resnetcli.spec.header import ACCURACY, FIGURES, parse_protocol
from resnetcli.spec.zoo import Zoo


@frozen
class Accuracy:
    """The published accuracies of several models."""

    protocol: str
    """`single-crop-224`."""
    columns: tuple[tuple[str, str], ...]
    """The figure and the dataset of each column."""
    names: Mapping[str, str]
    """Source -> short name: `arXiv:1512.03385` -> `ResNet`."""
    others: tuple[str, ...]
    """Other protocols with published figures of these models."""

    @property
    def keys(self) -> dict[tuple[str, str], str]:
        """Column -> its key: the figure, and the dataset if there are several."""
        several = len({dataset for _, dataset in self.columns}) > 1
        return {(figure, dataset): f"{figure} {dataset}" if several else figure for figure, dataset in self.columns}

    def published(self, profile: Profile, figure: str, dataset: str) -> dict[str, list[str]]:
        """Published value -> the papers that have it. A paper with several values is listed with the detail of each."""
        entries = [e.published for e in profile.judged if _what(e) == (figure, dataset, self.protocol)]
        values = {source: {e.printed for e in entries if e.source == source} for source in self.names}
        papers_by_value: dict[str, list[str]] = {}
        for entry in entries:
            papers, name = papers_by_value.setdefault(entry.printed, []), self.names[entry.source]
            if len(values[entry.source]) > 1 and entry.detail:
                name += f" ({entry.detail})"
            papers += [name] if name not in papers else []
        return papers_by_value

    def best(self, profile: Profile, figure: str, dataset: str) -> float | None:
        """The best published value; None if there is none."""
        values = [e.published.value for e in profile.judged if _what(e) == (figure, dataset, self.protocol)]
        choose = min if "error" in figure else max
        return float(choose(values)) if values else None


def _what(entry: Judged) -> tuple[str, str, str]:
    return entry.published.figure, entry.published.dataset, entry.published.protocol


def accuracy(profiles: Sequence[Profile], protocol: str | None, zoo: Zoo) -> Accuracy:
    """The accuracies under a protocol, by default the one with figures of most models.

    Raises UsageError if there are none.
    """
    accuracies = {id(p): [e for e in p.judged if e.published.figure.startswith(ACCURACY)] for p in profiles}
    protocols = Counter(name for p in profiles
                        for name in dict.fromkeys(e.published.protocol for e in accuracies[id(p)]) if name)  # fmt: skip
    protocol = None if protocol is None else parse_protocol(protocol) or protocol
    if not protocols:
        raise UsageError("no accuracy is published for these models", "see `resnet-cli papers`")
    protocol = protocols.most_common(1)[0][0] if protocol is None else protocol
    if protocol not in protocols:
        known = did_you_mean(protocol, protocols, f"one of {', '.join(protocols)}")
        raise UsageError(f"no accuracy is published for these models under `{protocol}`", known)
    entries = [entry for judged in accuracies.values() for entry in judged if entry.published.protocol == protocol]
    columns = sorted(dict.fromkeys(_what(entry)[:2] for entry in entries), key=lambda c: (c[1], FIGURES.index(c[0])))
    sources = {entry.published.source for entry in entries}
    names = {source: paper.name if (paper := zoo.paper(source)) else source for source in sources}
    return Accuracy(protocol, tuple(columns), names, tuple(name for name in protocols if name != protocol))
