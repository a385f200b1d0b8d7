"""What goes on in a thread while something else does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(work: Callable[[threading.Event], None], name: str, *, is_daemon: bool = True) -> Iterator[None]:
    """``work`` runs until the block is over, which it is told by the event, and has ended when this returns.

    is_daemon: the interpreter does not wait for it at its own end.
    """
    is_over = threading.Event()
    thread = threading.Thread(target=work, args=(is_over,), name=name, daemon=is_daemon)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
