"""`python -m steer_heal_love.report RUN`: the report of a run that another process is writing (`report.command`).

It ends when its input does, as it does when that process is gone: from then on the folder may be another's.
"""

import os
import sys
import threading
from pathlib import Path

from steer_heal_love import report


def ends_with_its_input() -> None:
    while os.read(0, 1):  # sys.stdin would be locked when Python ends
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=ends_with_its_input, daemon=True).start()
    run = Path(sys.argv[1])
    report.write([run], run / "report.html", ours=True)
