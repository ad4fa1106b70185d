"""Owns Ctrl-C while an answer streams: it becomes a call instead of an exception.

While the person is asked something in its midst, it is an exception again.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_call(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` on the running loop at each Ctrl-C, instead of raising KeyboardInterrupt.

    Only the main thread gets signals; in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)

    # signal.signal rather than loop.add_signal_handler, which Windows lacks.
    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C, whatever else it is to do around this.

    Only the main thread gets signals; in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
