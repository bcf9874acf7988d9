"""Downloaded archives (zip, tar, also compressed): unpacked once into the cache and read from there."""

import errno
import lzma
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from datasets import cache
from datasets.images import check_relative_name
from utils.run.errors import CommandError, DataError
from utils.run.log import LOG

ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
# Other archives, parts of one, and downloads half done.
UNREAD = re.compile(r".*\.(7z|rar|zst|crdownload|z\d\d|(part|(zip|7z|rar|(tar\.|t)gz)\.)[-\w]*)")
# RuntimeError: a zip with a password or an unknown compression method.
BROKEN = (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
PLACE = "unpacked-"  # prefix of the folders in the cache
APPLE = re.compile(r"(.*/)?(__MACOSX/|\._).*")  # files that macOS adds


def unpack(path: Path, cache_dir: Path | None = None, limit_gb: float = 4.0) -> Path:
    """The unpacked folder of an archive, or the only folder in it; any other path is returned as it is.

    One process unpacks while the others wait. DataError for a damaged archive or a member whose name leads
    outside. CommandError if it unpacks to more than `limit_gb` (1e9 bytes) or the cache is not writable."""
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if ending is None or not path.is_file():
        return path
    directory = Path(cache_dir or cache.CACHE_DIR)
    key = cache.fingerprint("archive", cache.describe_files([path]))
    cached, name = directory / f"{PLACE}{key[:20]}", path.name[: -len(ending)]

    def build(folder: Path) -> None:
        LOG.info(f"archive {path.name}: unpacking it into {cached}")
        try:
            _extract(path, folder / name, limit_gb)
        except BROKEN as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # build_once explains it
            reason = str(error).partition("\n")[0]
            what = f"not a readable archive, or cannot be unpacked into {directory} ({reason})"
            raise DataError(f"{path}: {what}.\nDownload it again, or unpack it.") from error

    cache.build_once(cached, f"archive {path.name}", lambda: cached if cached.is_dir() else None, build)
    folder, entries = cached / name, list((cached / name).iterdir())
    # The only folder in Scenario_....zip is a sensor of the scenario, not the scenario itself.
    single = len(entries) == 1 and entries[0].is_dir() and not folder.name.startswith("Scenario_")
    return entries[0] if single else folder


def _extract(path: Path, folder: Path, limit_gb: float) -> None:
    """Write the regular files of an archive, and links to these; other links and devices are skipped."""
    folder.mkdir(parents=True)
    total, links = 0, {}
    with zipfile.ZipFile(path) if path.name.lower().endswith(".zip") else tarfile.open(path) as archive:
        for name, size, open_member in _members(archive):
            name = posixpath.normpath(name.replace("\\", "/")).strip("/")  # Windows, absolute paths
            if APPLE.fullmatch(name):
                continue
            if (total := total + size) > limit_gb * 1e9:
                over = f"{path}: unpacks to more than the limit of {limit_gb:g} GB."
                raise CommandError(f"{over}\nUnpack it yourself, or raise --cache_limit_gb.")
            target = folder / check_relative_name(name, str(path))
            if isinstance(open_member, str):
                links[target] = posixpath.normpath(open_member).strip("/")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)
    for target, name in links.items():
        if not name.startswith("..") and (folder / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.hardlink_to(folder / name)


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[tuple]:
    """Name, size in bytes and opening function of each file; of a link in tar, what it leads to."""
    if isinstance(archive, zipfile.ZipFile):
        for file in archive.infolist():
            if not file.is_dir() and not stat.S_ISLNK(file.external_attr >> 16):
                yield file.filename, file.file_size, partial(archive.open, file)
    else:
        for file in archive:
            if file.isfile():
                yield file.name, file.size, partial(archive.extractfile, file)
            elif file.islnk() or file.issym():
                place = posixpath.dirname(file.name) if file.issym() else ""
                yield file.name, 0, posixpath.join(place, file.linkname)
        while archive.fileobj.read(1_000_000):  # damage can look like the end: gzip's checksum is behind it
            pass
