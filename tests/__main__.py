"""Everything: the tests in a browser beside all others, as most of either is waiting. `make test` runs this.

What the browser's tests print comes when the others are done; the first exit code that is not 0 is the whole run's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PYTEST = [sys.executable, "-m", "pytest"]
BROWSER = "tests/browser"
NOTEBOOKS = ["--nbval", "--nbval-sanitize-with", "tests/notebooks/sanitize.cfg", "notebooks"]


def main() -> int:
    """Run both, show both, and give the exit code."""
    with tempfile.TemporaryFile() as printed:
        browser = subprocess.Popen([*PYTEST, BROWSER], cwd=Path(__file__).parents[1], stdout=printed, stderr=subprocess.STDOUT)
        try:
            others = subprocess.run([*PYTEST, "tests", f"--ignore={BROWSER}", *NOTEBOOKS], cwd=Path(__file__).parents[1], check=False)
            print(f"\n{BROWSER} began at the same time:", flush=True)
            browser.wait()
        finally:
            browser.kill()  # after Ctrl-C, which reached it too; where it has ended this does nothing
        printed.seek(0)
        sys.stdout.buffer.write(printed.read())
    return others.returncode or browser.returncode


if __name__ == "__main__":
    raise SystemExit(main())
