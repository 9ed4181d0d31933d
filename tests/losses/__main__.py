"""Send 200 000 visitors for each of 20 seeds, and tell whether losses spare or favour a variation.

``python -m tests.losses [visitors] [seeds]``
"""

from __future__ import annotations

import sys
import time

from tests.losses.simulation import combined, simulate


def main(arguments: list[str]) -> int:
    visitors, seeds = map(int, arguments) if arguments else (200_000, 20)
    began, found = time.monotonic(), []
    for losses in simulate(visitors, seeds):
        found.append(losses.p)
        shares = " ".join(
            f"{lost}/{number} ({lost / number:.3%})"
            for lost, number in zip(losses.lost, losses.visitors, strict=True)
        )
        print(f"seed {losses.seed}: lost {shares}, p = {losses.p:.4f}", flush=True)
    together = combined(found)
    print(f"least p = {min(found):.4f}, together p = {together:.4f}; {time.monotonic() - began:.0f} s")
    return 0 if together > 0.001 and min(found) > 0.001 / seeds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
