"""A lock file that also works on file systems without locks (some NFS, Lustre), and claiming a run folder."""

import argparse
import atexit
import contextlib
import errno
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

from utils.run.arguments import MAY_CHANGE_ON_RESUME
from utils.run.errors import CommandError
from utils.run.find import list_runs
from utils.run.folder import create_run_folder, is_finished, plain, read_json, read_record
from utils.run.log import format_duration
from utils.tasks import TASKS

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
BEAT_SECONDS = 5.0
QUIET_SECONDS = 60.0  # after so long without a beat an owner on another machine counts as gone


class Lock:
    """A lock on `path` until `release` or the end of this process; forked children do not inherit it.

    The system's own lock ends with its process. Where there is none, the owner creates PATH.held, which only
    one process can do, and keeps touching it. Others take it over when that process is gone or, if it was on
    another machine (or before a reboot), when the file is no longer touched.
    """

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
                file.write(f"{machine()} {os.getpid()}")
        except FileExistsError:
            self.file.close()
            return False
        self.taken = True
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


def claim_folder(args: argparse.Namespace, script: str) -> tuple[Path, Lock]:
    """The run folder to work in and its lock; sets args.resume 'auto' to the run found, or None.
    Raises CommandError for a run that another process is training, except with --force."""
    if args.resume == "auto":
        args.resume = None
        for run in reversed(list_runs(Path(args.output_dir))):
            lock = Lock(run / ".lock")
            if is_unfinished(run, args, script) and lock.take():
                args.resume = str(run)
                break
    elif args.resume:
        run = Path(args.resume)
        lock = Lock(run / ".lock")
        lock.take()
    if args.resume:
        status = read_json(run / "status.json") if (run / "status.json").is_file() else {}
        pid, ago = status.get("pid"), format_duration(max(0.0, time.time() - status.get("time", 0)))
        if not lock.taken and not args.force:
            who = f"pid {pid} on {status.get('host')}, last sign of life {ago} ago"
            raise CommandError(f"--resume {run}: it is being trained by {who}; if it is not, add --force")
        for unfinished in [] if args.force else run.glob(f".*.{pid}.tmp"):
            unfinished.unlink()  # its last process was killed while writing this file
        return run, lock
    parent = args.output_dir
    if args.dry_run or args.check_data:
        parent = tempfile.mkdtemp(prefix="trial_")
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
    lock = Lock(create_run_folder(parent, f"{TASKS[script]['folder']}_experiment") / ".lock")
    lock.take()
    return lock.path.parent, lock


def is_unfinished(run: Path, args: argparse.Namespace, script: str) -> bool:
    """Whether this run has the same script and flags, can be resumed, and has not finished."""
    if not (run / "config.json").is_file() or not (run / "last.pth").is_file():
        return False
    config = read_record(run / "config.json", "args", "script_name")
    resolved = {"intensity_range"}  # recorded is what the data resolved it to
    fixed = vars(args).keys() - MAY_CHANGE_ON_RESUME - resolved | {"epochs"}
    same = all(config["args"].get(key) == plain(vars(args)[key]) for key in fixed)
    return same and config["script_name"] == script and not is_finished(run, args.epochs, args.patience)
