"""One owner each: a file that one process holds, also where the file system has no locks (some NFS, Lustre),
and so the folder that a run works in."""

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
from utils.run.folder import create_run_folder, is_finished, plain, read_json
from utils.run.log import format_duration
from utils.tasks import TASKS

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
BEAT_SECONDS = 5.0
QUIET_SECONDS = 60.0  # without a beat, after which the owner on another machine is gone


class Lock:
    """`path`, held until `release` or the end of this process; forked children do not inherit it.

    The system's own lock ends with its process. Where there is none, PATH.held is made exclusively and its
    owner touches it. It is taken over when that process is gone, or when it was made on another machine (or
    before a restart) and is no longer touched.
    """

    def __init__(self, path: Path):
        self.path, self.held = path, path.with_name(f"{path.name}.held")
        self.file, self.taken, self.released = None, False, threading.Event()

    def take(self) -> bool:
        """Whether it is ours now; waits for nobody. Raises CommandError where nothing can be held."""
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
            raise CommandError(f"cannot lock {self.path}: {error.strerror}") from error
        # Who held it before removed it: what was opened before that is another file than the next one opens.
        mine = os.fstat(self.file.fileno())
        self.taken = os.path.exists(self.path) and os.path.samestat(mine, os.stat(self.path))
        return self.taken

    def make(self) -> bool:
        """Hold by a file that only one process can make."""
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
        """In a thread: a sign of life for other machines."""
        while not self.released.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.held)

    def is_stale(self) -> bool:
        """Whether the owner is gone, or was this very process."""
        try:
            *owner, pid = self.held.read_text().split() or [""]
            os.utime(self.path)  # by the clock of the file system, which its machines share
            quiet = self.path.stat().st_mtime - self.held.stat().st_mtime
        except FileNotFoundError:
            return False
        if " ".join(owner) == machine() and os.name == "posix":
            return int(pid) == os.getpid() or not is_alive(int(pid))
        return quiet > QUIET_SECONDS

    def release(self) -> None:
        """Let others have it; what was never taken is left alone."""
        self.released.set()
        if self.taken:
            with contextlib.suppress(OSError):  # Windows keeps what is open
                self.held.unlink(missing_ok=True)
                self.path.unlink()
        self.taken = False
        self.file.close()


def machine() -> str:
    """This machine since it was started, where a process number means something."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.is_file() else ''}".strip()


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is there (posix)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


def claim_folder(args: argparse.Namespace, script: str) -> tuple[Path, Lock]:
    """The folder to work in and what holds it, where args.resume is 'auto' set to what was found or None.
    Raises CommandError for a run that another process trains, but with --force."""
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
            raise CommandError(f"--resume {run}: is being trained by {who}; --force if that is wrong")
        for unfinished in [] if args.force else run.glob(f".*.{pid}.tmp"):
            unfinished.unlink()  # what its last process was writing when it was killed
        return run, lock
    parent = args.output_dir
    if args.dry_run or args.check_data:
        parent = tempfile.mkdtemp(prefix="trial_")
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
    lock = Lock(create_run_folder(parent, f"{TASKS[script]['folder']}_experiment") / ".lock")
    lock.take()
    return lock.path.parent, lock


def is_unfinished(run: Path, args: argparse.Namespace, script: str) -> bool:
    """Whether this is a run of the same script and flags that can go on and is not at its end."""
    if not (run / "config.json").is_file() or not (run / "last.pth").is_file():
        return False
    config, fixed = read_json(run / "config.json"), vars(args).keys() - MAY_CHANGE_ON_RESUME | {"epochs"}
    fixed -= {"intensity_range"}  # recorded as the data resolved it
    same = all(config["args"].get(key) == plain(vars(args)[key]) for key in fixed)
    return same and config["script_name"] == script and not is_finished(run, args.epochs, args.patience)
