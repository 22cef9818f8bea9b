"""`python -m steer_heal_love.report RUN`: the report of a run that another process is writing (`report.command`)."""

import sys
from pathlib import Path

from steer_heal_love import report

if __name__ == "__main__":
    run = Path(sys.argv[1])
    report.write([run], run / "report.html", ours=True)
