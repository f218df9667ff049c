"""A task's MuJoCo model: the files that it names, taken in once, and how it is compiled."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epvf_data.errors import ConfigError
from epvf_data.untrusted import printable

if TYPE_CHECKING:
    from epvf_data.envs.base import Env

# Elements that name files → the attribute of `compiler` that says where these lie.
_FOLDERS = {
    "mesh": "meshdir",
    "hfield": "meshdir",
    "skin": "meshdir",
    "flexcomp": "meshdir",
    "texture": "texturedir",
    "model": "",
}
_ATTRIBUTES = ("file", "fileright", "fileleft", "fileup", "filedown", "filefront", "fileback")
_CURE = {
    "actuators with states of their own": "take ones without, as motor, position and velocity are",
    "delays": "leave `delay` and `nsample` out",
    "plugins": "leave them out",
    "bodies that sleep": "leave the flag `sleep` out",
}


def embed(xml: str, folder: Path, assets: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """The model with its includes written out, and the other files that it names, called by their content there.

    Whoever has both needs no folder any more, a change of any file is a change of the text, and a later edit of the
    files changes nothing. Files are those of `assets`, or lie in `folder`, whatever the working directory is. Text
    that names no file comes back as it is. Raises ConfigError where a file cannot be read.
    """
    if "file" not in xml:
        return xml, {}
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return xml, {}  # MuJoCo says what is wrong with it
    found: dict[str, bytes] = {}
    included = _include(root, (folder,), assets, set())
    places: dict[str, str] = {}
    for compiler in root.iter("compiler"):
        if "assetdir" in compiler.attrib:
            places |= dict.fromkeys(("meshdir", "texturedir"), compiler.attrib.pop("assetdir"))
        places |= {name: compiler.attrib.pop(name) for name in ("meshdir", "texturedir") if name in compiler.attrib}
        places |= {"strippath": compiler.attrib.pop("strippath")} if "strippath" in compiler.attrib else {}
    for element in root.iter():
        names = {key: element.attrib[key] for key in _ATTRIBUTES if element.attrib.get(key)}
        if element.tag not in _FOLDERS or not names:
            continue
        if "file" in names and element.tag != "flexcomp":
            element.attrib.setdefault("name", Path(names["file"]).stem)  # as MuJoCo names it
        for key, name in names.items():
            element.attrib[key] = _take(element.tag, name, folder, places, assets, found)
    return (ElementTree.tostring(root, encoding="unicode") if included or found else xml), found


def _include(element: Any, folders: tuple[Path, ...], assets: Mapping[str, bytes], seen: set[str]) -> bool:
    """Puts the elements of included files in the place of each `include`; whether there was one."""
    found = False
    for child in list(element):
        if child.tag != "include":
            found |= _include(child, folders, assets, seen)
            continue
        name, found = child.get("file", ""), True
        if name in seen:
            raise ConfigError(f"the model includes {printable(name)} twice; MuJoCo takes each file once.")
        seen.add(name)
        try:
            part = ElementTree.fromstring(_read(name, folders, assets))
        except ElementTree.ParseError as error:
            raise ConfigError(f"{printable(name)}, which the model includes, is not XML ({error}).") from error
        _include(part, (*folders, (folders[0] / name).parent), assets, seen)
        place = list(element).index(child)
        element[place : place + 1] = list(part)
    return found


def _take(
    tag: str,
    name: str,
    folder: Path,
    places: Mapping[str, str],
    assets: Mapping[str, bytes],
    found: dict[str, bytes],
) -> str:
    """Reads a file into `found`, and what it names itself; the name that it has there."""
    path = Path(name).name if places.get("strippath") == "true" else name
    where = Path(places.get(_FOLDERS[tag], "")) / path
    data = assets[name] if name in assets else _read(str(where), (folder,), assets)
    if tag == "model":  # another model, to be attached to this one
        text, more = embed(data.decode(), (folder / where).parent, assets)
        data, _ = text.encode(), found.update(more)
    called = hashlib.sha256(data).hexdigest() + Path(name).suffix.lower()
    found[called] = data
    return called


def _read(name: str, folders: tuple[Path, ...], assets: Mapping[str, bytes]) -> bytes:
    if name in assets:
        return assets[name]
    for folder in folders:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"{folder / name}, which the model names, cannot be read ({error.strerror}).") from error
    raise ConfigError(
        f"the model names the file {printable(name)}, which is not in {folders[0]}; names in a model's text begin at "
        "the folder of the environment's file."
    )


@lru_cache(maxsize=8)
def compile_model(env: Env) -> Any:
    """The environment's mujoco.MjModel, the one door to it; callers copy it before they change it.

    Raises ConfigError where MuJoCo refuses the model, or where it has state that episodes do not carry.
    """
    import mujoco  # imported late: takes a while, and lists of environments do without

    assert env.xml is not None
    try:
        model = mujoco.MjModel.from_xml_string(env.xml, dict(env.assets))
    except ValueError as error:
        told = printable(" ".join(str(error).split()), 300)
        raise ConfigError(f"MuJoCo cannot compile the model of environment {env.name}: {told}") from error
    check_carried(model, env.name)
    return model


def check_carried(model: Any, name: str) -> None:
    """Raises ConfigError where a model has state beyond positions and velocities: a backend would forget it.

    What cannot change in an episode (mocap bodies, equalities switched off, user data) is no such state.
    """
    import mujoco

    sleeps = model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP
    for has, what in zip((model.na, model.nhistory, model.nplugin, sleeps), _CURE, strict=True):
        if has:
            raise ConfigError(
                f"the model of environment {name} has {what}, which episodes do not carry along, so that returns would "
                f"depend on the backend; {_CURE[what]}."
            )
