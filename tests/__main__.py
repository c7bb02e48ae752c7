"""Everything, in three parts at the same time, as most of each is waiting: `make test` runs this.

What the first part prints is shown at once, and the others' when they are done. The first exit code that is not 0 is the whole run's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTEST = [sys.executable, "-m", "pytest"]
BROWSER = "tests/browser"
OTHERS = ["tests/test_bench.py", "tests/test_model.py", "tests/test_openai.py"]
"""With the browser, so that all parts take about as long."""
PATIENT = ["tests/promises/test_p8_slow_reader.py", "tests/promises/test_cluster.py", "tests/test_document.py"]
"""With JupyterLab, for the same reason."""


def _files(folder: str, pattern: str) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / folder).glob(pattern))]


LAB, CHAPTERS = _files(BROWSER, "test_*jupyterlab.py"), ["tests/notebooks", *_files("tests", "test_chapter_*.py")]
NOTEBOOKS = ["--nbval", "--nbval-sanitize-with", "tests/notebooks/sanitize.cfg", "notebooks"]
PARTS = (
    ["tests", *(f"--ignore={path}" for path in (BROWSER, *OTHERS, *PATIENT, *CHAPTERS))],
    [*CHAPTERS, *PATIENT, *LAB],  # in this order: what drives JupyterLab keeps an event loop to itself
    [*NOTEBOOKS, *OTHERS, BROWSER, *(f"--ignore={path}" for path in LAB)],
)


def main() -> int:
    """Run all parts, show all, and give the exit code."""
    codes = []
    with ExitStack() as stack:
        printed = [stack.enter_context(tempfile.TemporaryFile()) if i else None for i in range(len(PARTS))]
        running = []
        for part, out in zip(PARTS, printed, strict=True):
            running.append(subprocess.Popen([*PYTEST, *part], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT if out else None))
            stack.callback(running[-1].kill)  # after Ctrl-C, which reached it too; where it has ended this does nothing
        for part, process, out in zip(PARTS, running, printed, strict=True):
            codes.append(process.wait())
            if out:
                print(f"\n{' '.join(part)} began at the same time:", flush=True)
                out.seek(0)
                sys.stdout.buffer.write(out.read())
                sys.stdout.flush()
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    raise SystemExit(main())
