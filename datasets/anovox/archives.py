"""Archives as they are downloaded, read without unpacking: zip, tar and tar.gz behave like folders.

    for entry in open_archive(Path("AnoVox_Static_Mono_Town03.tar.gz")).iterdir(): ...

A member has what the readers use of a pathlib.Path. A gzip stream has no index: the first look at a tar.gz
reads it once from end to end (about a minute per 20 GB) and keeps the state of the decompressor every
`SPACING` bytes, so that any member is then at most that far away.
"""

from __future__ import annotations

import functools
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from utils.run.errors import DataError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
SPACING = 16_000_000  # bytes of the decompressed stream; a state takes about 50 KB
BLOCK = 1_000_000


class ArchivePath:
    """A file or folder inside an archive."""

    def __init__(self, archive: Archive, inner: str):
        self.archive, self.inner = archive, inner
        self.name = PurePosixPath(inner).name or stem_of(archive.path)
        self.suffix = PurePosixPath(inner).suffix

    def __truediv__(self, name: str) -> ArchivePath:
        return ArchivePath(self.archive, f"{self.inner}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.inner}"

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __lt__(self, other: object) -> bool:
        return str(self) < str(other)

    @property
    def parent(self) -> ArchivePath:
        return ArchivePath(self.archive, self.inner.rpartition("/")[0])

    def is_dir(self) -> bool:
        return self.inner in self.archive.folders

    def exists(self) -> bool:
        return self.is_dir() or self.inner in self.archive.sizes

    def iterdir(self) -> Iterator[ArchivePath]:
        return (self / name for name in sorted(self.archive.folders[self.inner]))

    def stat(self) -> os.stat_result:
        """That of the archive, with the size of the member."""
        whole = list(os.stat(self.archive.path))
        whole[6] = self.archive.sizes.get(self.inner, 0)
        return os.stat_result(whole)

    def read_bytes(self) -> bytes:
        return self.archive.read(self.inner)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def open(self, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self.read_bytes())


class Archive:
    """The table of contents of an archive, which each process opens for itself: forks share a position."""

    def __init__(self, path: Path):
        self.path = path
        self.sizes: dict[str, int] = {}
        self.folders: dict[str, set[str]] = {"": set()}
        self.states: list[
            tuple[int, int, object]
        ] = []  # of a gzip stream: position, place in the file, state
        try:
            if path.name.lower().endswith(".zip"):
                members = [
                    (m.filename, m.file_size) for m in zipfile.ZipFile(path).infolist() if not m.is_dir()
                ]
            else:
                with tarfile.open(fileobj=self._stream(), mode="r:") as tar:
                    files = [member for member in tar if member.isfile()]
                members = [(member.name, member.size) for member in files]
                self.places = {_clean(member.name): member.offset_data for member in files}
        except (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
            raise DataError(f"{path}: not a readable archive ({error}).\nDownload it again.") from error
        for name, size in members:
            name = _clean(name)
            self.sizes[name] = size
            while name:
                folder, _, last = name.rpartition("/")
                self.folders.setdefault(folder, set()).add(last)
                name = folder
        self.handle: tuple[int, object] | None = None

    def __reduce__(self):
        return open_archive_file, (self.path,)

    def _stream(self):
        gzipped = self.path.name.lower().endswith((".tar.gz", ".tgz"))
        return GzipStream(self.path, self.states) if gzipped else open(self.path, "rb")

    def read(self, name: str) -> bytes:
        """The content of a member."""
        if name not in self.sizes:
            raise FileNotFoundError(f"{self.path}: no member {name}")
        zipped = self.path.name.lower().endswith(".zip")
        if self.handle is None or self.handle[0] != os.getpid():
            self.handle = (os.getpid(), zipfile.ZipFile(self.path) if zipped else self._stream())
        stream = self.handle[1]
        try:
            if zipped:
                return stream.read(next(m for m in (name, f"./{name}") if m in stream.NameToInfo))
            stream.seek(self.places[name])
            return stream.read(self.sizes[name])
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{self.path}: {name} can not be read ({error}).\nDownload it again.") from error


class GzipStream(io.RawIOBase):
    """A gzip file that seeks: `states` remembers the decompressor every SPACING bytes, in all streams."""

    def __init__(self, path: Path, states: list):
        self.file = open(path, "rb")  # noqa: SIM115 - open as long as the stream
        self.states = states
        self._start(0, 0, zlib.decompressobj(31))

    def _start(self, position: int, place: int, state) -> None:
        self.position, self.state, self.buffer = position, state, b""
        self.file.seek(place)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, target: int, whence: int = io.SEEK_SET) -> int:
        target += self.position if whence == io.SEEK_CUR else 0
        known = [entry for entry in self.states if entry[0] <= target]
        behind = target < self.position
        if behind or (known and known[-1][0] > self.position + len(self.buffer)):
            position, place, state = known[-1] if known else (0, 0, zlib.decompressobj(31))
            self._start(position, place, state.copy())
        while self.position < target and self.read(min(BLOCK, target - self.position)):
            pass
        return self.position

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [], size if size >= 0 else 1 << 62
        while wanted and (self.buffer or self._fill()):
            part, self.buffer = self.buffer[:wanted], self.buffer[wanted:]
            parts.append(part)
            self.position += len(part)
            wanted -= len(part)
        return b"".join(parts)

    def _fill(self) -> bool:
        """Decompress the next piece into the empty buffer; False at the end."""
        if self.position >= (self.states[-1][0] + SPACING if self.states else SPACING):
            self.states.append((self.position, self.file.tell(), self.state.copy()))  # with its leftovers
        while not self.buffer:
            data = self.state.unconsumed_tail or self.state.unused_data or self.file.read(BLOCK)
            if not data.strip(b"\0"):  # the end, or padding behind it
                return False
            if self.state.eof:  # several gzip members, one after the other
                self.state = zlib.decompressobj(31)
            self.buffer = self.state.decompress(data, BLOCK)
        return True


def _clean(name: str) -> str:
    return name.removeprefix("./").strip("/")


def stem_of(path: Path) -> str:
    """The name of an archive without its ending."""
    ending = next(
        ending for ending in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(ending)
    )
    return path.name[: -len(ending)]


def is_archive(path) -> bool:
    return isinstance(path, Path) and path.name.lower().endswith(ENDINGS) and path.is_file()


@functools.cache
def open_archive_file(path: Path) -> Archive:
    return Archive(path)


def open_archive(path: Path) -> ArchivePath:
    """The root folder of an archive."""
    return ArchivePath(open_archive_file(path), "")
