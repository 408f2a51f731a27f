"""The largest batch in a memory, as a person reads it."""

from __future__ import annotations

from resnetcli.plan.memory import Memory, Moment
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import TrainingCost
from resnetcli.reports.max_batch import Fit, place
from resnetcli.reports.profile import settings_text
from resnetcli.table.numbers import exact, percent, short, size_of
from resnetcli.table.sheet import Column, Sheet, cell

NAMES = {
    "weights": "weights, BN statistics",
    "optimizer": "optimizer",
    "parameter_gradients": "gradients of parameters",
    "input": "images",
    "activations": "activations",
    "activation_gradients": "gradients of activations",
    "scratch": "operation's own",
}
UPDATES = {"sgd": "SGD with momentum", "adam": "Adam"}


def fit_heading(fit: Fit) -> list[str]:
    """The answer: how many images, and what sets the limit."""
    settings = {name: value for name, value in fit.plan.parameters.items() if name in fit.spec.changed}
    what = "in training" if fit.memory.mode == "train" else "in inference"
    by = f", {UPDATES[fit.memory.optimizer]}" if fit.memory.optimizer else ""
    return [
        "   ".join(filter(None, (fit.spec.title, fit.model, settings_text(settings)))),
        f"largest batch {what} within {size_of(fit.available)}, {fit.memory.dtype}{by}: {exact(fit.batch)}"
        + ("" if fit.batch else " (not even one image fits)"),
    ]


def fit_sheet(fit: Fit) -> Sheet:
    """What the memory goes to at the peak."""
    columns = (
        Column("at the peak", "part", "left", "bold"),
        Column("memory", "bytes"),
        Column("share", "share"),
        Column("batch", "batch", shown=False),
    )
    total = fit.peak_bytes
    rows = tuple(
        (
            cell(part, NAMES[part]),
            cell(size, size_of(size)),
            cell(round(size / total, 6), percent(size / total)),
            cell(fit.batch),
        )
        for part, size in fit.breakdown().items()
        if size
    )
    return Sheet(columns, rows, (cell("total"), cell(total, size_of(total)), cell(1, percent(1)), cell(fit.batch)))


def fit_notes(fit: Fit) -> list[str]:
    """The step at the peak, and the memory of one more image."""
    of = "one image" if fit.shown_batch == 1 else f"{exact(fit.shown_batch)} images"
    lines = [f"{of} of {fit.plan.input}: the peak is {moment_text(fit.plan, fit.peak)}"]
    if fit.batch:
        more = fit.memory.bytes(fit.batch + 1)
        lines.append(f"one image more would need {size_of(more)}, {size_of(more - fit.available)} too much")
    else:
        lines.append(f"{size_of(fit.peak_bytes - fit.available)} more would be needed for one image")
    if fit.spec.aux and fit.memory.mode == "train" and len(fit.plan.outputs) == 1:
        lines.append("without its auxiliary training heads (--aux)")
    return lines


def fit_conditions(fit: Fit) -> str:
    """What the memory figures include and exclude."""
    return (
        f"derived from every tensor PyTorch holds, all in {fit.memory.dtype}, without autocast; excludes "
        "convolution workspaces, the GPU context (about 0.5 GB), fragmentation and the loss"
    )


def moment_text(plan: Plan, moment: Moment) -> str:
    """`backward of conv2_x.0.F.0.conv`."""
    where = place(plan, moment)
    return "in the optimizer's update" if moment.phase == "update" else f"in the {moment.phase} of {where}"


def training_line(cost: TrainingCost) -> str:
    """What one image multiplies in training."""
    return (
        f"one training step (derived): {exact(cost.forward_macs)} MACs forward + "
        f"{exact(cost.backward_macs)} backward = {short(cost.total_macs)}"
    )


def memory_text(plan: Plan, memory: Memory) -> str:
    """Peak memory of one image, and the step at the peak."""
    peak = memory.peak()
    return f"peak {size_of(memory.bytes())}, {size_of(peak.bytes())} above the weights, in {place(plan, peak)}"
