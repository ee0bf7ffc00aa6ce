"""Builds and installs everything that is measured."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from .results import ROOT

TOOLS = ROOT / "target/bench"

NCHAN = "usr/lib/nginx/modules/ngx_nchan_module.so"

# Program or file, and the Debian package that brings it.
PACKAGES = [
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("nginx", "nginx"),
    (f"/{NCHAN}", "libnginx-mod-nchan"),
    ("node", "nodejs"),
    ("npm", "npm"),
]


@dataclass
class Programs:
    """Where the programs are, and a directory for what the servers write."""

    whimbrel: Path
    floor: Path
    bare_publish: Path
    socket_io: Path
    folder: Path


@contextmanager
def everything():
    _debian_packages()
    _socket_io()
    # Together: each of several builds would choose its own features of shared dependencies and build them all.
    programs = ["--bin", "whimbrel", "--example", "floor", "--example", "bare_publish"]
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *programs], cwd=ROOT, check=True)
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    with TemporaryDirectory(prefix="whimbrel-bench-") as folder:
        # nginx's workers are not root.
        Path(folder).chmod(0o755)
        yield Programs(
            whimbrel=built / "whimbrel",
            floor=built / "examples/floor",
            bare_publish=built / "examples/bare_publish",
            socket_io=TOOLS / "socket-io",
            folder=Path(folder),
        )


def plot_tools():
    """The Python of the environment that the plot is drawn in."""
    python = TOOLS / "python/bin/python"
    wanted, have = ROOT / "bench/requirements.txt", TOOLS / "requirements.txt"
    if not _same(wanted, have):
        subprocess.run([sys.executable, "-m", "venv", "--clear", TOOLS / "python"], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", wanted], check=True, stdout=sys.stderr)
        shutil.copy(wanted, have)
    return python


def _socket_io():
    source, place = ROOT / "bench/socket-io", TOOLS / "socket-io"
    place.mkdir(parents=True, exist_ok=True)
    if not _same(source / "package-lock.json", place / "package-lock.json"):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, place)
        try:
            subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=place, check=True, stdout=sys.stderr)
        except BaseException:
            (place / "package-lock.json").unlink()
            raise
    shutil.copy(source / "server.mjs", place)


def _same(one, other):
    return other.exists() and one.read_bytes() == other.read_bytes()


def _debian_packages():
    missing = [package for wanted, package in PACKAGES if not (shutil.which(wanted) or Path(wanted).exists())]
    if not missing:
        return
    apt = (["sudo", "-n"] if os.getuid() else []) + ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]
    print(f"missing: {' '.join(missing)}: installing with apt-get", file=sys.stderr)
    try:
        # One unreachable source of packages must not hide that another has it.
        subprocess.run([*apt, "update"], stdout=sys.stderr)
        subprocess.run([*apt, "install", "-y", "--no-install-recommends", *missing], check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(f"install these Debian packages first: {' '.join(missing)}")
