"""`featlab forget`: remove people from a workspace, and show that nothing of them is left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from featlab.cli.session import Session, leave, names_in, workspace_command
from featlab.errors import InputError


@workspace_command("pseudonymise", "device", then="featlab verify{dir}")
def forget(
    session: Session,
    subject: Annotated[str, Option(metavar="ID,ID,…", help="Whom; with --pseudonymise by their real names.")],
    dry_run: Annotated[bool, Option("--dry-run", help="List what would go, and change nothing.")] = False,
    retrain: Annotated[bool, Option("--retrain", help="Make the model bundle again, without them.")] = False,
) -> None:
    """Remove people: their rows, what was trained on them, their results. With --cache and no -C: of that cache alone.

    Reads every file again at the end; exit code 1 where one still holds a name or a row.
    """
    from featlab.extraction.items import read_pseudonyms
    from featlab.workspace.contents import plan_forgetting

    output, key = session.output, session["pseudonymise"]
    if key is not None and not key.exists():
        raise InputError(f"{key}: no such file; name the key that the cache was made with")
    secret = read_pseudonyms(key, output.note)
    given = names_in(subject)
    names = [secret.subject(name) for name in given] if secret else given
    alone = session["cache"] is not None and session.workspace == Path(".")
    cache = session.cache_file(session["cache"])
    plan = plan_forgetting(None if alone else session.workspace, cache, names, given)
    going = [(str(each.path), each.why) for each in plan.holders]
    if plan.people:
        going.append((str(plan.cache), f"{len(plan.traces.rows):,} rows of {', '.join(plan.people)}"))
    output.columns(("Would go" if dry_run else "Goes", "Why"), going, text_columns=2)
    if dry_run:
        output.json({"cache": cache, "subjects": names, "goes": going})
        session.then = "without --dry-run it goes; nothing is changed yet"
        return
    plan.run()
    files, named, rows = plan.left()
    facts = {"subjects": names, "goes": going, "files": files, "hold_the_name": named, "hold_a_row": rows}
    output.json({"cache": cache, **facts})
    left = [(str(path), "still holds the name") for path in named]
    left += [(str(path), "still holds a row") for path in rows if path not in named]
    output.warn_of_failures(left, "files hold something of theirs; featlab did not write them, and leaves them")
    if plan.seen:
        output.warn(f"the backbone was trained on pictures of {', '.join(plan.seen)}: train it again, then extract")
    looked_for = int(plan.traces.telling.sum())
    if looked_for < len(plan.traces.rows) or not plan.people:
        output.warn(f"rows looked for: {looked_for}; those of fewer than 8 different values, or gone before, can't be")
    output.show(f"{len(named)} of {files} files hold the name, {len(rows)} hold a row of theirs")
    if retrain:
        from featlab.workspace.stages import bundle_stage

        with output.stages() as progress:
            opened = session.open(on_epoch=progress)
            source = opened.source(session.held_out(opened))
            _, made = bundle_stage(source, [opened.config.adapt.method])
        output.show(f"made again: {made.folder}, of {len(source.subjects)} source subjects")
    elif any("bundles" in each.path.parts for each in plan.holders):
        session.then = "featlab pretrain{at} makes the model bundle again, without them"
    leave(failed=len(left), runs=len(left))
