"""Archives as they are downloaded: zip, tar and tar.gz are unpacked once, into the cache, and read there."""

import errno
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

ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
# RuntimeError: a zip with a password, or of a method that Python does not know.
BROKEN = (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)
PLACE = "unpacked-"  # how the folders in the cache begin
APPLE = re.compile(r"(.*/)?(__MACOSX/|\._).*")  # what a Mac adds


def unpack(path: Path, cache_dir: Path | None = None, limit_gb: float = 4.0) -> Path:
    """The folder that an archive holds, called like it or, where it is the only one in it, as it is in there;
    any other path as it is. Of several processes one unpacks, the others wait.

    DataError for a damaged archive and for names that lead out of it, CommandError for one that takes more
    than `limit_gb` (1e9 bytes) or can not be unpacked where the cache is.
    """
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if ending is None or not path.is_file():
        return path
    directory = Path(cache_dir or cache.CACHE_DIR)
    key = cache.fingerprint("archive", cache.describe_files([path]))
    place, name = directory / f"{PLACE}{key[:20]}", path.name[: -len(ending)]

    def build(folder: Path) -> None:
        LOG.info(f"archive {path.name}: unpacking it into {place}")
        try:
            _extract(path, folder / name, limit_gb)
        except BROKEN as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # the cache says so
            reason = str(error).partition("\n")[0]
            what = f"not a readable archive, or not to be unpacked into {directory} ({reason})"
            raise DataError(f"{path}: {what}.\nDownload it again, or unpack it.") from error

    cache.build_once(place, f"archive {path.name}", lambda: place if place.is_dir() else None, build)
    folder, inside = place / name, list((place / name).iterdir())
    # What is in the folder of a scenario are its sensors.
    alone = len(inside) == 1 and inside[0].is_dir() and not folder.name.startswith("Scenario_")
    return inside[0] if alone else folder


def _extract(path: Path, folder: Path, limit_gb: float) -> None:
    """Write the files of an archive; links and the like are left out."""
    folder.mkdir(parents=True)
    total = 0
    with zipfile.ZipFile(path) if path.name.lower().endswith(".zip") else tarfile.open(path) as archive:
        for name, size, open_member in _members(archive):
            name = posixpath.normpath(name.replace("\\", "/")).strip("/")  # Windows; absolute ones
            if APPLE.fullmatch(name):
                continue
            if (total := total + size) > limit_gb * 1e9:
                more = "Unpack it where there is room, or raise --cache_limit_gb (predict.py has the run's)."
                raise CommandError(f"{path}: unpacks to more than the limit of {limit_gb:g} GB.\n{more}")
            target = folder / check_relative_name(name, str(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[tuple]:
    """Name, bytes and what opens it, of each file."""
    if isinstance(archive, zipfile.ZipFile):
        for file in archive.infolist():
            if not file.is_dir() and not stat.S_ISLNK(file.external_attr >> 16):
                yield file.filename, file.file_size, partial(archive.open, file)
    else:
        for file in archive:
            if file.isfile():
                yield file.name, file.size, partial(archive.extractfile, file)
        while archive.fileobj.read(1_000_000):  # behind what damage looks like the end: gzip's checksum
            pass
