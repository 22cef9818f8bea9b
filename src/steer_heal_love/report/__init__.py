from pathlib import Path
def write(runs: list[Path], to: Path) -> None:
    pass
