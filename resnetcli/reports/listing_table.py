"""What there is in the zoo, as a table."""

from __future__ import annotations

from resnetcli.reports.listing import Listing
from resnetcli.table.numbers import short
from resnetcli.table.sheet import Cell, Column, Sheet, cell


def listing_sheet(listing: Listing) -> Sheet:
    """A row a model of the zoo, under its family and the paper it is from."""
    columns = (
        Column("model", "model", "left", "bold"),
        Column("family", "family", "left", "dim", shown=False),
        Column("params", "params"),
        Column("MACs", "macs"),
        Column("depth", "depth", spare=2),
        Column("input", "input", spare=1),
        Column("paper", "paper", "left", shown=False),
    )
    rows: list[tuple[Cell, ...]] = []
    headings: dict[int, str] = {}
    for group in listing.groups:
        paper = group.paper.citation if group.paper else ""
        headings[len(rows)] = f"{group.family}: {paper}" if paper else group.family
        for profile in group.profiles:
            size, counts = profile.plan.input, profile.counts
            rows.append(
                (
                    cell(profile.model),
                    cell(profile.family),
                    cell(counts.params, short(counts.params)),
                    cell(counts.macs, short(counts.macs)),
                    cell(counts.depth),
                    cell(f"{size.c}x{size.h}x{size.w}", str(size)),
                    cell(paper),
                )
            )
    return Sheet(columns, tuple(rows), headings=headings)
