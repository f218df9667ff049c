"""critics, new-critic, check-critic, new-policy, check-policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epvf_data import envs
from epvf_data.cli.app import Debug, Force, Json, Quiet, Set, app, print_json, say
from epvf_data.cli.choices import check_critic_there, choice, environment, hidden_widths, own_policy
from epvf_data.cli.parts import tell, write
from epvf_data.critics.families import CRITICS


@app.command(
    "critics",
    rich_help_panel="Make and learn from rows",
    epilog="Examples: `epvf-data critics` · `epvf-data critics --env cartpole --hidden 32,32 --set probes=64`",
)
def critics(
    env: Annotated[str, typer.Option(**environment("Whose policies are read."))] = "ant",
    hidden: Annotated[str, typer.Option(help="Hidden widths of the policies.")] = "64,64",
    set_: Set = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the critics, with their sizes and what one policy costs them."""
    from epvf_data import config as configuration
    from epvf_data.critics.families import CRITICS, MEASURED_ON
    from epvf_data.critics.settings import CriticSettings
    from epvf_data.policies.spec import PolicySpec

    task = envs.ENVS.get(env) or envs.make(env)
    spec = PolicySpec(task.observation_size, task.action_size, hidden_widths(hidden))
    settings = configuration.build(CriticSettings, configuration.parse_overrides(set_ or []))
    if (spec, settings) == (MEASURED_ON, CriticSettings()):
        found = {name: (family.parameters, family.operations) for name, family in CRITICS.items()}
    else:
        from epvf_data.critics.cost import cost
        from epvf_data.runtime import prepare

        prepare()
        found = {name: cost(name, settings, spec) for name in CRITICS}
    if json:
        keys = ("parameters", "operations")
        print_json(
            {name: {**dict(zip(keys, one, strict=True)), "about": CRITICS[name].about} for name, one in found.items()}
        )
        return
    say(f"for policies {spec} of {spec.size:,} parameters; operations of one policy, forward and backward")
    say(f"{'critic':16}{'parameters':>12}{'operations':>12}  ")
    for name, (parameters, operations) in found.items():
        say(f"{name:16}{parameters:12,}{_count(operations):>12}  {CRITICS[name].about} ({CRITICS[name].source})")


def _count(number: float) -> str:
    """1234567.0 → "1.2 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def _python(name: str) -> Path:
    """The file of that name, with its ending or without."""
    return Path(name if name.endswith(".py") else f"{name}.py")


@app.command("new-critic", rich_help_panel="This machine", epilog="Example: `epvf-data new-critic mine.py`")
def new_critic(
    name: Annotated[str, typer.Argument(help="The new file.", metavar="NAME.py", show_default=False)],
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a file with a small critic of your own, ready to be fitted and to be changed."""
    following = ("check-critic FILE", "train-offline DATASET --critic FILE")
    write("critic", _python(name), "epvf_data.critics", "a hidden layer", following, force=force, json=json)


@app.command("check-critic", rich_help_panel="This machine", epilog="Example: `epvf-data check-critic mine.py:make`")
def check_critic(
    critic: Annotated[
        str,
        typer.Argument(
            show_default=False,
            **choice("critic", CRITICS, "What is checked.", others="FILE.py:FUNCTION", check=check_critic_there),
        ),
    ],
    env: Annotated[str, typer.Option(**environment("Whose policies are read."))] = "cartpole",
    hidden: Annotated[str, typer.Option(help="Hidden widths of the policies.")] = "64,64",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the usual mistakes of a critic: shapes, seeds, impure functions, batches, gradients, NaN.

    Exits with 1 when there is one.
    """
    from epvf_data.conformance import check_critic as examine
    from epvf_data.policies.spec import PolicySpec
    from epvf_data.runtime import prepare

    task = envs.ENVS.get(env) or envs.make(env)
    spec = PolicySpec(task.observation_size, task.action_size, hidden_widths(hidden))
    prepare()
    found = examine(critic, spec)
    told = f"on policies {spec} of {spec.size:,} parameters"
    tell("critic", critic, found, told, json)


@app.command("new-policy", rich_help_panel="This machine", epilog="Example: `epvf-data new-policy mine.py`")
def new_policy(
    name: Annotated[str, typer.Argument(help="The new file.", metavar="NAME.py", show_default=False)],
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a file with a small policy architecture of your own, ready to be collected and to be changed."""
    following = ("check-policy FILE", "collect --env cartpole --policy FILE")
    write("policy", _python(name), "epvf_data.policies", "a hidden layer of sines", following, force=force, json=json)


@app.command("check-policy", rich_help_panel="This machine", epilog="Example: `epvf-data check-policy mine.py:make`")
def check_policy(
    policy: Annotated[str, typer.Argument(show_default=False, **own_policy("What is checked."))],
    env: Annotated[str, typer.Option(**environment("Whose observations and actions it has."))] = "cartpole",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the usual mistakes of a policy architecture: shapes, seeds, impure functions, wild actions, gradients, NaN.

    Exits with 1 when there is one.
    """
    from epvf_data.conformance import check_policy as examine
    from epvf_data.runtime import prepare

    task = envs.ENVS.get(env) or envs.make(env)
    prepare()
    found = examine(policy, task.observation_size, task.action_size)
    told = f"with {task.observation_size} observations and {task.action_size} actions"
    tell("policy", policy, found, told, json)
