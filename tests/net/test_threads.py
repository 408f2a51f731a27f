"""Operations of threads that a model starts are recorded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import resnetcli as rc
from tests.support.pytorch import IMAGE, JIT, Computes, counted, rows

POOL = ThreadPoolExecutor(2)


def by_pool(s: Any, x: Tensor) -> Any:
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda layer: layer(x), [s.a, s.b]))


def by_a_pool_there_was(s: Any, x: Tensor) -> Any:
    return sum(POOL.map(lambda layer: layer(x), [s.a, s.b]))


def by_threads(s: Any, x: Tensor) -> Any:
    put: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda i=i, f=f: put.update({i: f(x)})) for i, f in enumerate([s.a, s.b])]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return put[0] + put[1]


def by_a_worker(s: Any, x: Tensor) -> Any:
    todo: queue.Queue[Any] = queue.Queue()
    done: queue.Queue[Any] = queue.Queue()

    def work() -> None:
        while (layer := todo.get()) is not None:
            done.put(layer(x))

    worker = threading.Thread(target=work)
    worker.start()
    for each in (s.a, s.b, None):
        todo.put(each)
    worker.join()
    return done.get() + done.get()


def by_functions(s: Any, x: Tensor) -> Any:
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda layer: F.conv2d(x, layer.weight, layer.bias), [s.a, s.b]))


def by_forks(s: Any, x: Tensor) -> Any:
    futures = [JIT.fork(layer, x) for layer in (s.a, s.b)]
    return sum(JIT.wait(each) for each in futures)


@pytest.mark.parametrize(
    "how", [by_pool, by_a_pool_there_was, by_threads, by_a_worker, by_functions, by_forks], ids=lambda f: f.__name__
)
def test_what_other_threads_compute_is_counted(how: Callable[[Any, Tensor], Any]) -> None:
    POOL.submit(abs, 1).result()
    module = Computes(lambda s, x: s.c(how(s, x).flatten(1)), a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(3, 8, 3),
                      c=nn.Linear(32, 5))  # fmt: skip
    found = counted(module, IMAGE)
    assert (found.counts.params, found.counts.macs, found.counts.depth) == (448 + 165, 1728 + 160, 2)
    assert [each for each in rows(found) if each[1]] == [("a", 224, 864), ("b", 224, 864), ("c", 165, 160)]
    assert len(found.notes) == 1
    assert threading.Thread.start.__qualname__ == "Thread.start"
    assert ThreadPoolExecutor.submit.__qualname__ == "ThreadPoolExecutor.submit"


def test_a_thread_that_cannot_be_followed_is_refused() -> None:
    import _thread

    def raw(s: Any, x: Tensor) -> Any:
        put: queue.Queue[Any] = queue.Queue()
        _thread.start_new_thread(lambda: put.put(s.a(x)), ())
        return put.get(timeout=60)

    with pytest.raises(rc.UsageError, match="calls `a` in a thread that cannot be recorded"):
        rc.profile_module(Computes(raw, a=nn.Conv2d(3, 8, 3)), input=IMAGE)


def test_an_error_in_another_thread_is_the_model_s() -> None:
    module = Computes(lambda s, x: by_pool(s, x[:, :2]), a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(3, 8, 3))
    with pytest.raises(rc.UsageError, match="fails on an image of 3 x 4 x 4 in `a`"):
        rc.profile_module(module, input=IMAGE)
