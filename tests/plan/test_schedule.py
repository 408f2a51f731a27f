from __future__ import annotations

import pytest

from resnetcli.ops import Add, BatchNorm, Concat, Conv, Dropout, LeakyReLU, Linear, Op, PoolTo, ReLU
from resnetcli.plan.schedule import FusedConv, fused_convs, last_uses, overwrites
from tests.support.sketch import Sketch

CONV = Conv(3, (1, 1))


def test_a_value_is_dropped_after_its_last_reader_and_an_output_never() -> None:
    s = Sketch(3, 4, 4)
    a = s.step("a", CONV)
    b = s.step("b", CONV)
    c = s.step("c", Add(), a, b)
    assert last_uses(s.plan()) == [(), (0,), (), (a, b)]
    assert last_uses(s.plan(a, c)) == [(), (0,), (), (b,)]


def test_a_value_that_nobody_reads_is_dropped_at_once() -> None:
    s = Sketch(3, 4, 4)
    aside = s.step("aside", CONV, 0)
    s.step("a", CONV, 0)
    assert last_uses(s.plan())[aside] == (aside,)


@pytest.mark.parametrize("op", [CONV, BatchNorm(), Linear(3)], ids=lambda op: type(op).__name__)
def test_a_relu_overwrites_what_its_only_input_computed(op: Op) -> None:
    s = Sketch(3, 4, 4)
    a = s.step("a", op)
    relu = s.step("relu", ReLU())
    assert overwrites(s.plan()) == {relu: a}


@pytest.mark.parametrize("op", [ReLU(), Dropout(0.5), PoolTo("max", (2, 2))], ids=lambda op: type(op).__name__)
def test_what_a_gradient_needs_or_may_be_another_value_is_not_overwritten(op: Op) -> None:
    s = Sketch(3, 4, 4)
    s.step("a", op)
    s.step("relu", ReLU())
    assert overwrites(s.plan()) == {}


def test_the_image_is_not_overwritten() -> None:
    s = Sketch(3, 4, 4)
    s.step("relu", ReLU())
    assert overwrites(s.plan()) == {}


def test_a_value_with_two_readers_is_not_overwritten() -> None:
    s = Sketch(3, 4, 4)
    a = s.step("a", CONV)
    relu = s.step("relu", ReLU(), a)
    s.step("concat", Concat(), relu, a)
    assert overwrites(s.plan()) == {}


def test_an_output_is_not_overwritten() -> None:
    s = Sketch(3, 4, 4)
    a = s.step("a", CONV)
    relu = s.step("relu", ReLU())
    assert overwrites(s.plan(a, relu)) == {}


def test_a_sum_overwrites_the_first_of_two_terms_that_may_be_and_never_the_third() -> None:
    s = Sketch(3, 4, 4)
    relu = s.step("relu", ReLU())
    a, b, c = (s.step(name, CONV, 0) for name in "abc")
    first = s.step("first", Add(), a, b)
    second = s.step("second", Add(), relu, first)
    third = s.step("third", Add(), 0, relu, c)
    assert overwrites(s.plan(second, third)) == {first: a, second: first}


def test_the_sum_of_one_value_is_that_value_and_not_overwritten() -> None:
    s = Sketch(3, 4, 4)
    a = s.step("a", CONV)
    one = s.step("one", Add(), a)
    relu = s.step("relu", ReLU())
    both = s.step("both", Add(), relu, a)
    assert overwrites(s.plan()) == {}
    assert (one, both) == (2, 4)


def test_the_sum_of_a_value_and_itself_overwrites_nothing() -> None:
    s = Sketch(3, 4, 4)
    a = s.step("a", CONV)
    s.step("twice", Add(), a, a)
    assert overwrites(s.plan()) == {}


def test_a_convolution_is_fused_with_the_relu_behind_it_and_a_sum_of_two() -> None:
    s = Sketch(3, 4, 4)
    conv = s.step("conv", CONV)
    relu = s.step("relu", ReLU())
    other = s.step("other", CONV)
    total = s.step("sum", Add(), relu, other)
    last = s.step("last", ReLU())
    assert fused_convs(s.plan()) == (FusedConv(relu, conv), FusedConv(last, other, total, relu))


def test_of_two_convolutions_that_are_added_the_later_one_is_fused() -> None:
    for swapped in (False, True):
        s = Sketch(3, 4, 4)
        a, b = s.step("a", CONV, 0), s.step("b", CONV, 0)
        total = s.step("sum", Add(), *((b, a) if swapped else (a, b)))
        relu = s.step("relu", ReLU())
        assert fused_convs(s.plan()) == (FusedConv(relu, b, total, a),)
        assert fused_convs(s.plan(a, relu)) == (FusedConv(relu, b, total, a),)
        assert fused_convs(s.plan(b, relu)) == (FusedConv(relu, a, total, b),)
        assert fused_convs(s.plan(total, relu)) == ()


@pytest.mark.parametrize("between", [BatchNorm(), Dropout(0.5), LeakyReLU(0.1)], ids=lambda op: type(op).__name__)
def test_nothing_is_fused_across_another_operation(between: Op) -> None:
    s = Sketch(3, 4, 4)
    s.step("conv", CONV)
    s.step("between", between)
    s.step("relu", ReLU())
    assert fused_convs(s.plan()) == ()


def test_nothing_is_fused_whose_value_another_step_reads() -> None:
    s = Sketch(3, 4, 4)
    conv = s.step("conv", CONV)
    relu = s.step("relu", ReLU())
    s.step("sum", Add(), relu, conv)
    assert fused_convs(s.plan()) == ()
    twice = Sketch(3, 4, 4)
    conv = twice.step("conv", CONV)
    twice.step("sum", Add(), conv, conv)
    twice.step("relu", ReLU())
    assert fused_convs(twice.plan()) == ()
    three = Sketch(3, 4, 4)
    three.step("sum", Add(), *(three.step(name, CONV, 0) for name in "abc"))
    three.step("relu", ReLU())
    assert fused_convs(three.plan()) == ()
    flat = Sketch(3, 4, 4)
    flat.step("fc", Linear(3))
    flat.step("relu", ReLU())
    assert fused_convs(flat.plan()) == ()
