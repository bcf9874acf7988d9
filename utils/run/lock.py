"""A lock file that also works on file systems without locks (some NFS, Lustre)."""

import contextlib
import errno
import os
import socket
import threading
import time
from pathlib import Path

from utils.run.errors import CommandError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
SETTLE_SECONDS, BEAT_SECONDS = 0.1, 5.0
QUIET_SECONDS = 60.0  # after so long without a beat an owner on another machine counts as gone


class Lock:
    """A lock on `path` until `release` or the end of this process; forked children do not inherit it.

    The system's own lock ends with its process. Where there is none, the owner creates PATH.held, which only
    one process can do, and keeps touching it. Others take it over when that process is gone or, if it was on
    another machine (or before a reboot), when the file is no longer touched."""

    def __init__(self, path: Path):
        self.path, self.held = path, path.with_name(f"{path.name}.held")
        self.file, self.taken, self.released = None, False, threading.Event()

    def take(self) -> bool:
        """Try to take the lock, without waiting; whether it is ours now. CommandError if locking fails."""
        try:
            self.file = open(self.path, "a")  # noqa: SIM115
            if fcntl is None:
                return self.make()
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return self.make()
            if self.file and error.errno in (errno.EAGAIN, errno.EACCES):  # somebody else holds it
                self.file.close()
                return False
            remedy = "make its folder writable, or choose another one"
            raise CommandError(f"cannot lock {self.path}: {error.strerror}\n{remedy}") from error
        # If the last owner removed the file after we opened it, the next process will open a new one.
        mine = os.fstat(self.file.fileno())
        self.taken = os.path.exists(self.path) and os.path.samestat(mine, os.stat(self.path))
        return self.taken

    def make(self) -> bool:
        """Take the lock by creating PATH.held."""
        if self.is_stale():
            self.held.unlink(missing_ok=True)
        try:
            with open(self.held, "x") as file:
                file.write(owner := f"{machine()} {os.getpid()}")
            time.sleep(SETTLE_SECONDS)  # another that saw the last owner gone may remove this file as his
            self.taken = self.held.read_text() == owner
        except (FileExistsError, FileNotFoundError):
            self.taken = False
        if not self.taken:
            self.file.close()
            return False
        threading.Thread(target=self.beat, name="lock", daemon=True).start()
        return True

    def beat(self) -> None:
        """In a thread: touch PATH.held as a sign of life for other machines."""
        while not self.released.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.held)

    def is_stale(self) -> bool:
        """Whether the owner of PATH.held is gone or is this very process."""
        try:
            *owner, pid = self.held.read_text().split() or [""]
            os.utime(self.path)  # both times then come from the file system's own clock
            quiet = self.path.stat().st_mtime - self.held.stat().st_mtime
        except FileNotFoundError:
            return False
        if " ".join(owner) == machine() and os.name == "posix":
            return int(pid) == os.getpid() or not is_alive(int(pid))
        return quiet > QUIET_SECONDS

    def release(self) -> None:
        """Remove the file, if the lock was taken, and let others have it."""
        self.released.set()
        if self.taken:
            with contextlib.suppress(OSError):  # Windows does not remove open files
                self.held.unlink(missing_ok=True)
                self.path.unlink()
        self.taken = False
        self.file.close()


def machine() -> str:
    """The name and boot id of this machine: a process number means something only until a reboot."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.is_file() else ''}".strip()


def is_alive(pid: int) -> bool:
    """Whether this process exists on this machine (POSIX)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists and belongs to another user
        pass
    return True
