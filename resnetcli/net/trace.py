"""Turn any PyTorch model into a plan: run it once; each call of a module becomes a step with the recorded cost.

A copy runs on the meta device, whose tensors have shapes and no values: nothing is computed, and the model itself never
runs. For models with data-dependent control flow, which cannot run like this, a copy with values runs.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress

from torch import nn

from resnetcli.errors import UsageError
from resnetcli.net.feed import RunError, guesses
from resnetcli.net.guard import is_model_error, isolate, line_of, model_error_text
from resnetcli.net.meta_copy import meta_copy
from resnetcli.net.recorder import Recorder
from resnetcli.net.trace_plan import Trace, trace_of
from resnetcli.ops import Shape, Traced
from resnetcli.spec.inputs import FORMS, Inputs, describe_inputs, image_of, of_image


def trace(module: nn.Module, input: Shape | Inputs, *, name: str, title: str) -> Trace:
    """Trace a model for one image, in evaluation. The model and the state of random number generators do not change.

    Stages are its children, in the order they are called; a child that is called again later is a stage again. Raises
    UsageError for a model that cannot be copied, takes other inputs, or fails.
    """

    def copy_with_values() -> nn.Module:
        try:
            return copy.deepcopy(module)
        except Exception as error:
            hint = "only a copy runs, because running may change a model"
            raise UsageError(f"`{title}` cannot be copied: {model_error_text(error)}", hint) from None

    with isolate():
        return first_to_run([lambda: meta_copy(module), copy_with_values], input, name, title)


def first_to_run(
    attempts: Sequence[Callable[[], nn.Module]], input: Shape | Inputs, name: str, title: str, file: str = ""
) -> Trace:
    """Trace the first model that can be constructed and run. Raises UsageError with the last one's error.

    A model that does not run on one image is run on two and on four, and counted if all figures are proportional.
    `file` is the user's, for the line in an error message.
    """
    inputs = of_image(input) if isinstance(input, Shape) else input
    try:
        return _first_to_run(attempts, inputs, 1, name, title, file)
    except RunError as problem:
        with suppress(RunError, UsageError):
            two, four = (_first_to_run(attempts, inputs, batch, name, title, file) for batch in (2, 4))
            return per_image(two, four)
        problem.hint = _hint(attempts, inputs, name, title, problem.message) or problem.hint
        raise UsageError(problem.message, problem.hint) from None


def _first_to_run(
    attempts: Sequence[Callable[[], nn.Module]], inputs: Inputs, batch: int, name: str, title: str, file: str
) -> Trace:
    problem: Exception = ValueError("no attempt")
    for make in attempts:
        recorder = None
        try:
            module = make()
            recorder = Recorder(module, inputs, batch)
            return trace_of(recorder, recorder.run(title), name, title)
        except UsageError as error:
            problem = error
        except BaseException as error:  # a model must not end this process
            if not is_model_error(error):
                raise
            problem = _failed(error, recorder, inputs, title, file)
    raise problem


def per_image(two: Trace, four: Trace) -> Trace:
    """The cost of two images, halved. Raises UsageError unless four images cost twice as much."""
    steps, title = [two.plan.steps[0]], two.plan.title
    if [step.path for step in two.plan.steps] != [step.path for step in four.plan.steps]:
        what = "runs other layers on four than on two"
        raise UsageError(f"`{title}` does not run on one image, and {what}", _OTHER_INPUT)
    for step, other in zip(two.plan.steps[1:], four.plan.steps[1:], strict=True):
        assert isinstance(step.op, Traced)
        assert isinstance(other.op, Traced)
        products, elements = step.op.products, step.op.elements
        if (products * 2, elements * 2) != (other.op.products, other.op.elements) or products % 2 or elements % 2:
            what = f"`{step.path}` does not cost twice as much on four as on two"
            raise UsageError(f"`{title}` does not run on one image, and {what}", _OTHER_INPUT)
        op = dataclasses.replace(step.op, products=products // 2, elements=elements // 2)
        batched = step.shape.n * 2 == other.shape.n
        shape = dataclasses.replace(step.shape, n=step.shape.n // 2) if batched else step.shape
        steps.append(dataclasses.replace(step, op=op, shape=shape))
    plan = dataclasses.replace(two.plan, steps=tuple(steps))
    note = "does not run on one image: counted on two and halved; on four it costs twice as much"
    return Trace(plan, (note, *two.notes))


def _failed(error: BaseException, recorder: Recorder | None, inputs: Inputs, title: str, file: str) -> UsageError:
    where = f" in `{recorder.failed_in}`" if recorder and recorder.failed_in else ""
    line = f" ({line})" if (line := line_of(error, file)) else ""
    image = image_of(inputs)
    on = f"an image of {image}" if image else f"an input of {describe_inputs(inputs)}"
    text = f"`{title}` fails on {on}{where}: {model_error_text(error)}{line}"
    if recorder is None or not isinstance(error, Exception):
        return UsageError(text, "construct and run it in Python to see the traceback")
    return RunError(text, _OTHER_INPUT)


_OTHER_INPUT = f"`--input` takes other sizes and kinds: {FORMS}"


def _hint(attempts: Sequence[Callable[[], nn.Module]], inputs: Inputs, name: str, title: str, problem: str) -> str:
    """An input that the model does run on, of those that its layers suggest; empty if it runs on none of them."""
    try:
        module = attempts[0]()
    except BaseException as error:
        if not is_model_error(error):
            raise
        return ""
    for guess in guesses(module, inputs, problem):
        with suppress(UsageError):
            _first_to_run(attempts[:1], guess, 1, name, title, "")
            return f"it runs on `--input {','.join(each.text for each in guess)}`"
    return ""
