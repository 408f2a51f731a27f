"""The models of the zoo, by family and paper: names, the listing, its table and record."""

from __future__ import annotations

from functools import partial

from resnetcli.errors import SpecError, UsageError, did_you_mean, plural
from resnetcli.failures import ModelFailure, for_each
from resnetcli.frozen import frozen
from resnetcli.ops import Shape
from resnetcli.reports.records import Record, pick, sizes
from resnetcli.spec.papers import Paper
from resnetcli.spec.summary import summarize
from resnetcli.spec.zoo import Zoo
from resnetcli.table.fields import Field
from resnetcli.table.numbers import short
from resnetcli.table.sheet import Sheet


@frozen
class ListedModel:
    """A model in the list."""

    model: str
    family: str
    paper: Paper | None
    """None if `cite:` names no paper of the zoo."""
    params: int
    macs: int
    depth: int
    input: Shape


@frozen
class Listing:
    """Models by family and paper, the oldest paper first."""

    models: tuple[ListedModel, ...]
    failed: tuple[ModelFailure, ...] = ()
    """Patterns without a match, and models with invalid specs."""


def models(*patterns: str, zoo: Zoo | None = None) -> tuple[str, ...]:
    """The names in the zoo that match any of the patterns; all without a pattern.

    Raises UsageError for a pattern without a match.
    """
    zoo = zoo or Zoo()
    for pattern in patterns:
        if not zoo.matching([pattern]):
            hint = did_you_mean(pattern, zoo.files, "`resnet-cli list` shows all")
            raise UsageError(f"no model matches `{pattern}`", hint)
    return tuple(zoo.matching(patterns or ("*",)))


def listing(*patterns: str, zoo: Zoo | None = None) -> Listing:
    """The models that match. Raises ModelsError if there are none."""
    zoo = zoo or Zoo()
    matched, failures = for_each(((pattern, {}) for pattern in patterns or ("*",)), lambda p, _: models(p, zoo=zoo))
    names = sorted({name for found in matched for name in found}, key=list(zoo.files).index)
    listed, invalid = for_each(((name, {}) for name in names), partial(_listed, zoo=zoo))
    papers = list(zoo.papers.values())

    def age(paper: Paper | None) -> int:
        return papers.index(paper) if paper else len(papers)

    oldest = {family: min(age(m.paper) for m in listed if m.family == family) for family in {m.family for m in listed}}
    listed.sort(key=lambda m: (oldest[m.family], m.family, age(m.paper)))
    return Listing(tuple(listed), (*failures, *invalid))


def _listed(name: str, settings: object, *, zoo: Zoo) -> ListedModel:
    """Without lowering and counting the model if its `expect:` states the figures, which tests compare with the counts.

    An invalid header is read again as a whole, which raises SpecError with every problem.
    """
    try:
        summary = summarize(name, zoo)
    except SpecError:
        summary = None
    if summary is not None and summary.input is not None and summary.expect is not None:
        figures = summary.expect.figures
        if {"params", "macs", "depth"} <= figures.keys():
            return ListedModel(
                name, zoo.family(name), zoo.paper(summary.cite), figures["params"], figures["macs"], figures["depth"],
                summary.input,
            )  # fmt: skip
    from resnetcli.reports.profile import profile_model

    profile = profile_model(name, {}, zoo=zoo)
    counts = profile.counts
    return ListedModel(
        name, profile.family, zoo.paper(profile.spec.cite), counts.params, counts.macs, counts.depth, profile.plan.input
    )


FIELDS: tuple[Field[ListedModel], ...] = (
    Field("model", "model", align="left", style="bold", help="name, as every command takes it"),
    Field("family", "family", align="left", style="dim", shown=False, help="directory of the zoo"),
    Field("params", "params", text=short, help="learnable parameters"),
    Field("macs", "MACs", text=short, help="multiply-accumulates of convolutions and fc, for one image"),
    Field("depth", "depth", priority=2, help="weighted layers on the longest path"),
    Field("input", "input", lambda m: f"{m.input.c}x{m.input.h}x{m.input.w}", row_text=lambda m: str(m.input),
          priority=1, help="one image: channels x height x width"),
    Field("paper", "paper", lambda m: m.paper.citation if m.paper else "", align="left", shown=False,
          help="citation of the paper"),
)  # fmt: skip


def listing_sheet(listing: Listing) -> Sheet:
    """One row per model, under its family and paper."""
    headings: dict[int, str] = {}
    for number, model in enumerate(listing.models):
        heading = f"{model.family}: {model.paper.citation}" if model.paper else model.family
        if heading != (list(headings.values()) or [""])[-1]:
            headings[number] = heading
    return Sheet.of(FIELDS, listing.models, headings=headings)


def listing_note(listing: Listing) -> str:
    """`104 models; counted for one image`."""
    return f"{plural(len(listing.models), 'model')}; counted for one image"


def list_record(listing: Listing) -> Record:
    """`resnet-cli/list@1`."""
    return {
        "schema": "resnet-cli/list@1",
        "models": [
            {
                **pick(model, "model", "family"),
                "paper": model.paper.key if model.paper else None,
                **pick(model, "params", "macs", "depth"),
                "input": sizes(model.input),
            }
            for model in listing.models
        ],
    }
