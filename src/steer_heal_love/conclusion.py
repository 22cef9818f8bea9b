"""What is worked out of all steps, anew after each round: the one adapter, the summary, the report.

Where the model computes on a GPU, the processor has little to do. There the adapter is written in a thread, and the report
drawn by another process, while the next round is computed. Nobody waits for that report: where it isn't there yet when the
next round is concluded, the report of that one is left out; and the last round's is drawn here. The thread asks no GPU for
anything: one that records a graph meanwhile would lose it.
"""

from __future__ import annotations

from steer_heal_love import bake, base, report
from steer_heal_love.ground import identity, made, models, records, team
from steer_heal_love.nouns import Adapter, Json
from steer_heal_love.session import Run


def conclude(r: Run, *, goes_on: bool = False) -> None:
    """Write everything that is derived; the report says whether the run `goes_on`. Raises `UserError` for what the disk
    refuses; where it refused what the round before left to be written, now."""
    if not team.leads():
        return
    r.aside.finish()
    path, rounds = r.folder.path, r.history  # which the next round replaces, and doesn't change
    r.folder.still_there()
    r.folder.event("memory", peak_memory_gb=records.peak_memory_gb(r.model.device))
    records.write_json(path / "summary.json", summary(r, goes_on=goes_on))
    r.folder.wrote(["summary.json"])

    def write(adapter: bake.PeftFiles | None) -> None:
        if adapter:
            adapter.write(path / "adapter")
        r.folder.wrote(made.RESULTS)

    if goes_on and processor_is_free(r) and drawn_beside(r):
        r.aside.begin(lambda: write(adapter_of(r, rounds)))
        return
    r.aside.stop()
    adapter = adapter_of(r, rounds)  # not in the thread, whose calls of torch would each wait for what draws
    r.aside.begin(lambda: write(adapter))
    try:
        report.write([path], path / "report.html", ours=True)
    finally:
        r.aside.finish()
    r.folder.wrote(made.PAGES)


def drawn_beside(r: Run) -> bool:
    """Have another process draw the report, unless one is still at it. Whether that can be: where the last one failed, it is to
    be drawn here, which tells why."""
    if r.aside.running:
        return True
    status = r.aside.ended()
    if status is not None:
        r.folder.wrote(made.PAGES)
    command = report.command(r.folder.path)
    if status or not command:
        return False
    try:
        r.aside.start(command)
    except OSError:
        return False
    return True


def processor_is_free(r: Run) -> bool:
    """Whether it has little to do while the model computes."""
    return r.model.device.type != "cpu"  # type: ignore[no-any-return]


def adapter_of(r: Run, rounds: list[Adapter]) -> bake.PeftFiles | None:
    """These rounds, which are on the host as they were read back, as the one adapter that users get; None before there are any."""
    if not rounds:
        return None
    name, note = models.base_name(r.config.model), identity.of_run(r.folder.path).note()
    return bake.peft_files(bake.stack(rounds), base_model=name, note=note)


def summary(r: Run, *, goes_on: bool) -> Json:
    """What `summary.json` holds."""
    return {
        "schema": records.SCHEMA,
        "goes_on": goes_on,
        "persona": r.persona.name,
        "model": r.config.model,
        "seed": r.config.seed,
        "rounds": len(r.history),
        "stages": [
            {"round": s.round, "stage": s.stage, "dose": s.dose, "scores": s.scores} for s in r.stages
        ],
        "prompt": records.read_json(r.folder.path / "base" / base.WORDING.file),
        "walks": [this.row for this in r.rounds],
        "gates": r.gates,
        "seconds": r.folder.seconds(),
        "peak_memory_gb": r.folder.peak_memory_gb(),
    }
