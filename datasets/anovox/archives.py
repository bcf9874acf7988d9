"""Archives as they are downloaded, read without unpacking: zip, tar and tar.gz behave like folders.

    for entry in open_archive(Path("AnoVox_Static_Mono_Town03.tar.gz")).iterdir(): ...

A gzip stream has no index: the first look at a tar.gz reads it once from end to end (about a minute per
20 GB) and keeps the state of the decompressor every `SPACING` bytes, so that any member is then at most that
far away.
"""

import contextlib
import functools
import io
import os
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

from utils.run.errors import DataError

GZIPPED = (".tar.gz", ".tgz")
ENDINGS = (*GZIPPED, ".tar", ".zip")
# RuntimeError: a zip with a password, or of a method that Python does not know.
BROKEN = (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)
SPACING = 16_000_000  # bytes of the decompressed stream; a state takes about 50 KB
BLOCK = 1_000_000


def open_archive(path: "Path | ArchivePath") -> "Path | ArchivePath":
    """The root folder of an archive; any other path as it is."""
    found = isinstance(path, Path) and path.name.lower().endswith(ENDINGS) and path.is_file()
    return ArchivePath(path, "") if found else path


def find_beside(root: Path, name: str) -> "Path | ArchivePath":
    """Where a file of the data set lies: in `root`, or in the one folder of that archive that holds it."""
    top = open_archive(root)
    below = top.iterdir() if isinstance(top, ArchivePath) and not (top / name).exists() else ()
    found = [place / name for place in below if (place / name).exists()]
    return found[0] if len(found) == 1 else top / name


@dataclass(frozen=True)
class ArchivePath:
    """A file or folder inside an archive, with what the readers use of a pathlib.Path."""

    archive: Path
    inner: str

    def __str__(self) -> str:
        return f"{self.archive}/{self.inner}"

    def __truediv__(self, name: str) -> "ArchivePath":
        return ArchivePath(self.archive, f"{self.inner}/{name}".lstrip("/"))

    @property
    def name(self) -> str:
        """Of the root, that of the archive without its ending."""
        ending = next(ending for ending in ENDINGS if self.archive.name.lower().endswith(ending))
        return PurePosixPath(self.inner).name or self.archive.name[: -len(ending)]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.inner).suffix

    def is_dir(self) -> bool:
        return self.inner in _list(self.archive).folders

    def exists(self) -> bool:
        return self.is_dir() or self.inner in _list(self.archive).members

    def iterdir(self) -> "Iterator[ArchivePath]":
        return (self / name for name in sorted(_list(self.archive).folders[self.inner]))

    def stat(self) -> SimpleNamespace:
        """The size of the member and the time of the archive."""
        size, time = _list(self.archive).members.get(self.inner, (0,))[0], os.stat(self.archive).st_mtime_ns
        return SimpleNamespace(st_size=size, st_mtime_ns=time)

    def read_bytes(self) -> bytes:
        return _list(self.archive).read(self.inner)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def open(self, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self.read_bytes())


class Archive:
    """The table of contents of an archive, and its members."""

    def __init__(self, path: Path):
        self.path, self.states = path, []  # of a gzip stream: (position, place in the file, decompressor)
        self.owner = 0  # the process that has it open: forks would share a position
        with self._explained("not a readable archive"):
            stream = self._stream()
            if isinstance(stream, zipfile.ZipFile):
                found = [(file.filename, file.file_size, file) for file in stream.infolist()]
                found = [item for item in found if not item[2].is_dir()]
            else:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    found = [(file.name, file.size, file.offset_data) for file in tar if file.isfile()]
        named = {posixpath.normpath(n.replace("\\", "/")).strip("/"): tuple(rest) for n, *rest in found}
        apple = re.compile(r"(.*/)?(__MACOSX/|\._).*")  # what a Mac adds
        self.members = {name: rest for name, rest in named.items() if not apple.fullmatch(name)}
        self.folders: dict[str, set[str]] = {"": set()}
        for name in self.members:
            while name:
                folder, _, last = name.rpartition("/")
                self.folders.setdefault(folder, set()).add(last)
                name = folder

    @contextlib.contextmanager
    def _explained(self, problem: str) -> Iterator[None]:
        try:
            yield
        except BROKEN as error:
            raise DataError(f"{self.path}: {problem} ({error}).\nDownload it again, or unpack it.") from error

    def _stream(self):
        """This process's own zip file, or bytes of the tar file."""
        if self.owner != os.getpid():
            name = self.path.name.lower()
            zipped = name.endswith(".zip")
            stream = zipfile.ZipFile(self.path) if zipped else open(self.path, "rb")  # noqa: SIM115
            self.stream = GzipStream(stream, self.states) if name.endswith(GZIPPED) else stream
            self.owner = os.getpid()
        return self.stream

    def read(self, name: str) -> bytes:
        """The content of a member."""
        if name not in self.members:
            raise FileNotFoundError(f"{self.path}: no member {name}")
        size, place = self.members[name]
        with self._explained(f"{name} can not be read"):
            stream = self._stream()
            if isinstance(stream, zipfile.ZipFile):
                return stream.read(place)
            stream.seek(place)
            return stream.read(size)


_list = functools.cache(Archive)


class GzipStream:
    """A gzip file that seeks: `states` remembers the decompressor every SPACING bytes, in all streams."""

    def __init__(self, file: io.BufferedReader, states: list):
        self.file, self.states, self.position, self.buffer = file, states, 0, b""
        self.state = zlib.decompressobj(31)

    def tell(self) -> int:
        return self.position

    def seek(self, target: int) -> None:
        known = [(0, 0, zlib.decompressobj(31)), *(entry for entry in self.states if entry[0] <= target)]
        position, place, state = known[-1]
        if target < self.position or position > self.position + len(self.buffer):
            self.position, self.state, self.buffer = position, state.copy(), b""
            self.file.seek(place)
        while self.position < target and self.read(min(BLOCK, target - self.position)):
            pass

    def read(self, size: int) -> bytes:
        parts = []
        while size and (self.buffer or self._fill()):
            part, self.buffer = self.buffer[:size], self.buffer[size:]
            parts.append(part)
            self.position += len(part)
            size -= len(part)
        return b"".join(parts)

    def _fill(self) -> bool:
        """Decompress the next piece into the empty buffer; False at the end."""
        if self.position >= (self.states[-1][0] + SPACING if self.states else SPACING):
            self.states.append((self.position, self.file.tell(), self.state.copy()))  # with its leftovers
        while not self.buffer:
            data = self.state.unconsumed_tail or self.state.unused_data or self.file.read(BLOCK)
            if not data or (self.state.eof and not data.strip(b"\0")):  # the end, or padding behind it
                return False
            if self.state.eof:  # several gzip members, one after the other
                self.state = zlib.decompressobj(31)
            self.buffer = self.state.decompress(data, BLOCK)
        return True
