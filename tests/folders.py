"""One folder for what is made once per session, such as samples and runs of them; conftest.py removes it."""

import functools
import tempfile
from pathlib import Path


@functools.cache
def session_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tests_of_this_session_"))


@functools.cache
def new_folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{name}_", dir=session_folder()))
