"""Wheelhouse: the wheels that set machines up without a network, in one folder. `make wheelhouse` runs this.

pip chooses wheels for other machines, but judges a lock's markers by the machine that it runs on: so that is done here. What has no
wheel is not built: the folder must do on machines without a compiler.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
IN_PLACE = "editables~=0.3"  # hatchling asks for it when it installs a checkout in place
PLATFORMS = {
    "linux-x86_64": {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64"},
    "linux-aarch64": {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "platform_machine": "aarch64"},
    "macos-arm64": {"sys_platform": "darwin", "os_name": "posix", "platform_system": "Darwin", "platform_machine": "arm64"},
    "windows-amd64": {"sys_platform": "win32", "os_name": "nt", "platform_system": "Windows", "platform_machine": "AMD64"},
}
"""What markers ask about. Intel Macs are missing, as are wheels for them of what is locked."""


def tags(platform: str) -> list[str]:
    """What pip calls it: the oldest macOS there is on arm64, every glibc up to 2.28 (of 2018)."""
    match platform.split("-"):
        case ["linux", machine]:
            return [f"manylinux_2_{minor}_{machine}" for minor in range(28, 4, -1)] + [f"manylinux2014_{machine}"]
        case ["macos", machine]:
            return [f"macosx_11_0_{machine}"]
        case _:
            return ["win_amd64"]


def wanted(lock: str, python: str, platform: str | None) -> list[str]:
    """The lines of a lock that are meant for a platform (None: this one) and any patch release of a Python such as `3.12`."""
    lines = [Requirement(line) for line in lock.splitlines() if line and not line.startswith("#")]
    there = {**default_environment(), **PLATFORMS.get(platform or "", {}), "python_version": python}
    patches = [{**there, "python_full_version": f"{python}.{patch}"} for patch in (0, 99)]
    chosen = [line for line in lines if not line.marker or any(line.marker.evaluate(patch) for patch in patches)]
    return [f"{line.name}{line.specifier}" for line in chosen]


def download(folder: Path, *arguments: str) -> bool:
    """Whether pip found a wheel of everything; it says what it did not find."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    return subprocess.run([*command, f"--dest={folder}", *arguments], check=False).returncode == 0  # noqa: S603  # no shell


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the folder; gives the exit status."""
    here = "{}.{}".format(*sys.version_info)
    parser = argparse.ArgumentParser(prog="make wheelhouse")
    parser.add_argument("folder", type=Path)
    parser.add_argument("more", nargs="*", help="requirements beside the lock")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--platforms", default="", help=f"{', '.join(PLATFORMS)}; without it, this machine")
    parser.add_argument("--pythons", default="", help="such as '3.11 3.12'; without it, this one")
    options = parser.parse_args(arguments)
    if unknown := set(options.platforms.split()) - set(PLATFORMS):
        parser.error(f"PLATFORMS: {', '.join(sorted(unknown))} unknown; there are {', '.join(PLATFORMS)}")
    for platform in options.platforms.split() or [None]:
        for python in options.pythons.split() or [here]:
            name = f"{platform or 'this machine'}, Python {python}"
            lines = [*wanted(options.lock.read_text(), python, platform), *options.more]
            machine = [part for tag in (tags(platform) if platform else []) for part in ("--platform", tag)]
            machine += ["--python-version", python] if platform or python != here else []
            print(f"{name}: {len(lines)} packages", flush=True)
            if not download(options.folder, "--no-deps", *machine, *lines):
                print(f"For {name} a wheel is missing (see above): the folder does not do there.", file=sys.stderr)
                return 1
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    if not download(options.folder, "-c", str(ROOT / "requirements-test.lock"), *build, IN_PLACE):
        return 1
    wheels = list(options.folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    print(f"""{options.folder}/ holds {len(wheels)} wheels, {size:.0f} MB. Copy it together with the checkout; there, without a network:
  make lab WHEELHOUSE={options.folder}
Without make: python -m venv .venv, then
  .venv/bin/pip install --no-index --find-links {options.folder} -r requirements.lock -e .
  .venv/bin/python -m kit lab""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
