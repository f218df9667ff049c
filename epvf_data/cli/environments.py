"""envs, new-env, check-env."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epvf_data import envs
from epvf_data.cli.app import Debug, Force, Json, Quiet, app, print_json, print_table, say
from epvf_data.cli.choices import choice, environment
from epvf_data.cli.parts import tell, write
from epvf_data.config import BACKENDS
from epvf_data.envs.names import PLAYGROUND


@app.command("envs", rich_help_panel="This machine", epilog="Example: `epvf-data envs`")
def list_envs(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """The environments."""
    keys = ("name", "observation_size", "action_size", "horizon", "digest")
    found = [{"name": name} | {key: getattr(envs.ENVS[name], key) for key in keys[1:]} for name in sorted(envs.ENVS)]
    if json:
        print_json(
            [{**env, "objectives": [f"{env['name']}.{one}" for one in envs.objectives(env["name"])]} for env in found]
        )
        return
    print_table(
        ["environment", "observations", "actions", "horizon", "digest", "other objectives"],
        [
            [*(str(env[key]) for key in keys[:-1]), env["digest"][:12], " ".join(envs.objectives(env["name"]))]
            for env in found
        ],
    )
    say(f"With epvf-data[playground] also playground: and one of {', '.join(PLAYGROUND)}.")


@app.command("new-env", rich_help_panel="This machine", epilog="Example: `epvf-data new-env cartwheel`")
def new_env(
    name: Annotated[str, typer.Argument(help="Its name; the file gets it too.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The new file.  [default: NAME.py]")] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a file with a small environment of your own, ready to run and to be changed."""
    from epvf_data.untrusted import check_name

    path = out or Path(f"{check_name(name, 'an environment').replace('-', '_')}.py")
    following, renamed = ("check-env FILE", "collect --env FILE --envs 256"), {'"my-pendulum"': f'"{name}"'}
    write("env", path, "epvf_data.envs", "a pendulum", following, force=force, json=json, renamed=renamed)


@app.command("check-env", rich_help_panel="This machine", epilog="Example: `epvf-data check-env my_env.py:make`")
def check_env(
    env: Annotated[str, typer.Argument(show_default=False, **environment("What is checked."))],
    backend: Annotated[
        str, typer.Option(**choice("backend", ("both", *BACKENDS[1:]), "On which it is tried."))
    ] = "both",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the usual mistakes of an environment: impure functions, wrong sizes, NaN, backends that disagree.

    Exits with 1 when there is one.
    """
    from epvf_data.conformance import check_env as examine
    from epvf_data.runtime import prepare

    prepare()
    made = envs.make(env)
    found = examine(made, ("native", "mjx") if backend == "both" else (backend,))
    tell("env", made.name, found, f"with the digest {made.digest[:12]}", json)
