"""A cage around one stdio server: a process that starts it, and owns and ends all that comes of it.

Runs as a program of its own, `python -I -S cage.py`, with nothing but the standard library: its
interpreter takes nothing from the server's environment. On Linux it adopts orphans, so that a
process which forks twice or opens a session stays below it: counted, and ended with the rest.
Elsewhere such a process is lost once its parent has ended; `stdio.py` looks for it by its mark.

Its stdin and stdout become the server's. From the file descriptor that its argument names it reads
an `Order`; when that is closed, by the worker or by the worker's death, it ends everything. Its
stderr carries one report a line:

started PID       the command runs
failed ERRNO      the command can't be started
exited STATUS     the command has ended; what it has started may still run
killed memory     everything was killed: together it used too much memory
killed processes  everything was killed: there were too many processes
"""

# Each import is paid for by each server: there is no `asyncio`, `pathlib` or `subprocess` here.
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn

NOT_EMPTY: Final = 3
"""The exit code if something may be left."""

_PR_SET_CHILD_SUBREAPER: Final = 36
_GRACE_S: Final = 1.0
_KILL_S: Final = 4.0
_LOOK_EVERY_S: Final = 0.25
_SCAN_EVERY_S: Final = 1.0
_POLL_S: Final = 0.01
# So many new processes on the machine are reason enough to look at once.
_STORM: Final = 32
# Servers must not take the processor from the worker.
_NICENESS: Final = 5
_LENGTH: Final = 8
_TEXT: Final = ("utf-8", "surrogateescape")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# Address space is not limited: the runtimes of JavaScript and Go reserve far more than they use.
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 4096),
    (resource.RLIMIT_FSIZE, 1024 * 1024 * 1024),
)
# What Python ignores or handles for itself, and programs expect as it was.
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM)


class Order(NamedTuple):
    """What to run. Of the limits, each holds for the command and all that it starts, together."""

    command: str
    args: Sequence[str]
    env: Mapping[str, str]
    directory: str
    memory_bytes: int
    processes: int

    def encode(self) -> bytes:
        """Return it as bytes. Errors: ValueError for a null character: no argument can have one."""
        numbers = (str(self.memory_bytes), str(self.processes), str(len(self.args)))
        pairs = [text for pair in self.env.items() for text in pair]
        words = (*numbers, self.directory, self.command, *self.args, *pairs)
        if any("\0" in word for word in words):
            raise ValueError("a null character")
        encoded = "\0".join(words).encode(*_TEXT)
        return len(encoded).to_bytes(_LENGTH) + encoded

    @classmethod
    def decode(cls, encoded: bytes) -> "Order":
        """Return what was encoded, behind its length."""
        words = encoded.decode(*_TEXT).split("\0")
        memory_bytes, processes, count = map(int, words[:3])
        directory, command, *rest = words[3:]
        args, pairs = rest[:count], rest[count:]
        env = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return cls(command, args, env, directory, memory_bytes, processes)


class Member(NamedTuple):
    """A process of the machine, and the memory that it has now."""

    pid: int
    parent: int
    memory_bytes: int


class Tree:
    """The processes below this one. Those that have ended are reaped."""

    def __init__(self, leader: int, report: Callable[[str], None], *, adopts: bool) -> None:
        self._leader: int | None = leader
        self._group = leader
        self._report = report
        self._adopts = adopts
        self._known: tuple[int, ...] = (leader,)

    def reap(self) -> bool:
        """Take note of what has ended; return whether anything is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                # Without adoption, orphans are left of which nothing is known.
                return not self._adopts and bool(self.scan())
            if not pid:
                return True
            if pid == self._leader:
                self._leader = None
                self._report(f"exited {os.waitstatus_to_exitcode(status)}")

    def scan(self) -> tuple[int, ...]:
        """Find all processes of the tree."""
        found = {os.getpid()}
        members = list(_processes())
        # A child may be listed before its parent.
        while new := {one.pid for one in members if one.parent in found} - found:
            found |= new
        if not self._adopts:
            found |= {one.pid for one in members if _group_of(one.pid) == self._group}
        self._known = tuple(found - {os.getpid()})
        return self._known

    def memory_bytes(self) -> int:
        """Return the memory of the known processes; what they share counts for each."""
        members = filter(None, map(_process, self._known))
        return sum(member.memory_bytes for member in members)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of them, by groups: a group gets it as a whole, while it forks."""
        for pid in self.scan():
            _send(pid, number)

    def kill(self) -> bool:
        """Kill all of them; return whether that succeeded.

        They are stopped first: something that forks faster than it is killed would win.
        """
        until = time.monotonic() + _KILL_S
        while self.reap() and time.monotonic() < until:
            self.send(signal.SIGSTOP)
            for orphan in _processes():
                # One that forks and ends, again and again, is gone by the end of a list.
                if orphan.parent == os.getpid():
                    _send(orphan.pid, signal.SIGKILL)
            self.send(signal.SIGKILL)
        return not self.reap()

    def has_ended(self, *, within_s: float) -> bool:
        """Wait until nothing is left."""
        until = time.monotonic() + within_s
        while self.reap():
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)
        return True


class Watch:
    """Looks for what is more than a server may use."""

    def __init__(self, tree: Tree, order: Order) -> None:
        self._tree = tree
        self._order = order
        self._scanned_at = 0.0
        self._newest = 0

    def excess(self) -> str | None:
        """Return what there is too much of, if anything.

        The memory of the known processes is looked at each time.
        """
        if self._is_time_to_scan() and len(self._tree.scan()) > self._order.processes:
            return "processes"
        return "memory" if self._tree.memory_bytes() > self._order.memory_bytes else None

    def _is_time_to_scan(self) -> bool:
        """Return whether to list the machine's processes, which takes some milliseconds.

        That is once a second if there are new ones, and at once if there are many.
        """
        newest = _newest_process()
        if newest and newest == self._newest:
            return False
        now = time.monotonic()
        is_storm = newest < self._newest or newest >= self._newest + _STORM
        if not is_storm and now < self._scanned_at + _SCAN_EVERY_S:
            return False
        self._newest, self._scanned_at = newest, now
        return True


def main(control: int) -> int:
    """Run the order that comes from `control`, until that is closed or nothing is left of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Those that ask the worker to end come to it; it closes `control` when it is ready.
        signal.signal(number, signal.SIG_IGN)
    _close_inherited(control)
    order = _order(control)
    if order is None:
        return 0
    adopts = _adopt_orphans()
    try:
        leader = _start(order)
    except OSError as error:
        _report(f"failed {error.errno}")
        return 0
    _leave_streams()
    _report(f"started {leader}")
    tree = Tree(leader, _report, adopts=adopts)
    excess = _run(control, tree, Watch(tree, order))
    if excess is None:
        is_empty = _end(tree)
    else:
        _report(f"killed {excess}")
        is_empty = tree.kill()
    return 0 if is_empty and adopts else NOT_EMPTY


def _close_inherited(control: int) -> None:
    """Close what the worker's event loop left open: it would keep the streams open, too."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 -- as for the imports
        if int(name) > sys.stderr.fileno() and int(name) != control:
            with suppress(OSError):
                os.close(int(name))
    os.set_inheritable(control, False)  # noqa: FBT003 -- takes no keyword


def _order(control: int) -> Order | None:
    """Return what to run, or None if the worker has gone."""
    length = _read(control, _LENGTH)
    encoded = _read(control, int.from_bytes(length)) if length else None
    return Order.decode(encoded) if encoded else None


def _read(control: int, size: int) -> bytes | None:
    """Return so many bytes, or None if they don't come any more."""
    read = bytearray()
    while len(read) < size:
        chunk = os.read(control, size - len(read))
        if not chunk:
            return None
        read += chunk
    return bytes(read)


def _run(control: int, tree: Tree, watch: Watch) -> str | None:
    """Watch until the worker closes `control`, or all have ended; return what was too much."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while not poll.poll(_LOOK_EVERY_S * 1_000):
        if not tree.reap():
            return None
        excess = watch.excess()
        if excess is not None:
            return excess
    return None


def _end(tree: Tree) -> bool:
    """End everything: by the end of its input, which the worker has closed, SIGTERM, SIGKILL."""
    if tree.has_ended(within_s=_GRACE_S):
        return True
    tree.send(signal.SIGTERM)
    return tree.has_ended(within_s=_GRACE_S) or tree.kill()


def _adopt_orphans() -> bool:
    """Become the parent of all orphans below; return whether the platform can do that.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    if sys.platform != "linux":  # pragma: no cover -- tests run on Linux
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def _start(order: Order) -> int:
    """Return the id of the command's process. Errors: OSError if it can't be started."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        _become(order, writing)
    os.close(writing)
    failure = os.read(reading, 4)
    os.close(reading)
    if failure:
        os.waitpid(pid, 0)
        number = int.from_bytes(failure)
        raise OSError(number, os.strerror(number))
    return pid


def _become(order: Order, failures: int) -> NoReturn:
    """Become the command. Its start closes `failures`; otherwise the reason is written there."""
    try:
        # A session of its own: its own terminal, if it wants one, and no signals meant for others.
        os.setsid()
        os.nice(_NICENESS)
        # It may contain secrets, and is not read.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        for number in (*_DEFAULT_SIGNALS, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for kind, wanted in _LIMITS:
            _, hard = resource.getrlimit(kind)
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(kind, (limit, limit))
        os.chdir(order.directory)
        command = [order.command, *order.args]
        os.execvpe(order.command, command, order.env)  # noqa: S606 -- an administrator's command
    except OSError as error:
        os.write(failures, (error.errno or 1).to_bytes(4))
    finally:
        os._exit(127)


def _leave_streams() -> None:
    """Give up stdin and stdout: only the server's own ends of them keep them open."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)
    os.close(null)


def _report(line: str) -> None:
    try:
        os.write(2, f"{line}\n".encode())
    except BrokenPipeError:
        return  # the worker has gone, and so will this


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and its group; not if it has ended, or is another user's."""
    group = _group_of(pid)
    for send, receiver in ((os.killpg, group), (os.kill, pid)):
        if receiver not in {0, os.getpgrp()}:
            with suppress(ProcessLookupError, PermissionError):
                send(receiver, number)


def _group_of(pid: int) -> int:
    with suppress(OSError):
        return os.getpgid(pid)
    return 0


def _processes() -> Iterator[Member]:
    """Yield the machine's processes that can be seen, the newest first."""
    with suppress(FileNotFoundError):
        names = filter(str.isdecimal, os.listdir("/proc"))  # noqa: PTH208 -- as for the imports
        yield from filter(None, map(_process, sorted(map(int, names), reverse=True)))
        return
    yield from _processes_by_ps()  # pragma: no cover -- for macOS


def _process(pid: int) -> Member | None:
    """Return a process as it is now. Source: proc(5), `/proc/pid/stat`."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 -- as for the imports
            # The name before it is in brackets, and may contain anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Member(pid, int(fields[1]), int(fields[21]) * _PAGE)


def _processes_by_ps() -> Iterator[Member]:  # pragma: no cover -- for macOS
    with os.popen("ps -axo pid=,ppid=,rss=") as lines:  # noqa: S605, S607 -- a constant
        for line in lines:
            pid, parent, kilobytes = map(int, line.split())
            yield Member(pid, parent, kilobytes * 1024)


def _newest_process() -> int:
    """Return the id that was given last, or 0. Source: proc(5), `/proc/loadavg`."""
    try:
        with open("/proc/loadavg", "rb", buffering=0) as file:  # noqa: PTH123 -- as for the imports
            return int(file.read().split()[-1])
    except (OSError, ValueError, IndexError):
        return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
