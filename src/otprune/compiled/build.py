"""Compile the C loops once and keep the library in a cache folder.

The file's name says what it was made of (source, compiler and its options, processor) and what is
in it, so a library of another version or machine, or a damaged file, is never loaded. It is moved
into place when it is complete: several processes may build at the same time.
"""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(name) for name in ("loops.c", "loops.h", "products.h"))
VERSION = 4
"""What ``otprune_loops_version`` returns."""

_COMPILERS = ("cc", "gcc", "clang")
_OPTIONS = ("-std=gnu11", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fPIC", "-shared", "-pthread")
_SECONDS = 120
"""Time that a compiler is given; it takes about one."""


class CannotBuildError(RuntimeError):
    """The loops cannot be compiled or loaded here; the message says why."""


def default_folder() -> Path:
    """Return the folder that keeps libraries: ``.cache/otprune`` in the user's home."""
    return Path("~/.cache/otprune").expanduser()


def load(folder: Path | None = None) -> ctypes.CDLL:
    """Return the library of the loops: the one in ``folder``, or one compiled now.

    A folder that cannot be written, or that other users can write to, is not used; the library is
    then compiled into a temporary folder for this process alone.

    Args:
        folder: where libraries are kept; `default_folder` if None.

    Raises:
        CannotBuildError: no compiler, or what it made does not run.
    """
    try:
        folder = folder or default_folder()
        compiler = _compiler()
        key = _key(compiler)
        found = _kept(folder, key)
        if found is not None:
            return found
        with tempfile.TemporaryDirectory(prefix="otprune-") as private:
            built = _compile(compiler, Path(private) / "loops.so")
            library = _opened(_keep(built, folder, key) or built)
            # Where programs may not run from the kept file's folder, they may from another.
            library = library or _opened(built)
        if library is None:
            raise CannotBuildError("the compiled library cannot be loaded")
        return library
    # RuntimeError: the user has no home folder.
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        if isinstance(error, CannotBuildError):
            raise
        raise CannotBuildError(f"{type(error).__name__}: {error}") from error


def _compiler() -> str:
    for name in _COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    raise CannotBuildError(f"no C compiler: none of {', '.join(_COMPILERS)} is installed")


def _key(compiler: str) -> str:
    """Return a hash of all that the library depends on; it may be on a disk of many machines."""
    file = Path(compiler).resolve()
    made_of = [*(source.read_text() for source in SOURCES), *_OPTIONS, str(file)]
    made_of += [str(file.stat().st_size), str(file.stat().st_mtime_ns), platform.machine()]
    made_of.append(_processor())
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:32]


def _processor() -> str:
    """Return the instruction sets of this processor, as Linux lists them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    lines = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, flags=re.M)
    return "\n".join(sorted(set(lines)))


def _compile(compiler: str, target: Path) -> Path:
    """Compile for this very processor, or if the compiler cannot, for its family."""
    message = ""
    for native in [["-march=native"], []] if _processor() else [[]]:
        done = subprocess.run(
            [compiler, *_OPTIONS, *native, "-o", str(target), str(SOURCES[0]), "-lm"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode == 0 and target.exists():
            return target
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        message = lines[0]
    raise CannotBuildError(f"{compiler} failed: {message}")


def _trusted(folder: Path) -> bool:
    """Whether the folder is this user's, and nobody else can put a library into it."""
    about = folder.stat()
    return hasattr(os, "getuid") and about.st_uid == os.getuid() and not about.st_mode & 0o022


def _kept(folder: Path, key: str) -> ctypes.CDLL | None:
    if not folder.is_dir() or not _trusted(folder):
        return None
    for file in sorted(folder.glob(f"loops-{key}-*.so")):
        try:
            if file.name == _name(key, file.read_bytes()):
                return _opened(file)
        # Removed or made unreadable by another process: compiled again.
        except OSError:
            continue
    return None


def _name(key: str, content: bytes) -> str:
    return f"loops-{key}-{hashlib.sha256(content).hexdigest()[:32]}.so"


def _keep(built: Path, folder: Path, key: str) -> Path | None:
    """Copy the library into the folder and return its place there, or None if that cannot be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _trusted(folder):
            return None
        target = folder / _name(key, built.read_bytes())
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            complete = Path(shutil.copy(built, beside))
            complete.replace(target)
    except OSError:
        return None
    for damaged in folder.glob(f"loops-{key}-*.so"):
        if damaged != target and damaged.name != _name(key, damaged.read_bytes()):
            damaged.unlink(missing_ok=True)
    return target


def _opened(file: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(file))
        version = library.otprune_loops_version
    except (OSError, AttributeError):
        return None
    version.restype = ctypes.c_int64
    return library if version() == VERSION else None
