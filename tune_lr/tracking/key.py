"""The W&B server, the key for it, and the mode in which a study reports. Nothing here imports wandb at the start."""

import base64
import configparser
import http.client
import json
import netrc
import os
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

from tune_lr.errors import InputError, ResourceError, one_line

ASK_TIMEOUT_S = 5.0  # for the server to say whether it knows the key
ENTITY_TIMEOUT_S = 8

Mode = Literal["online", "offline", "disabled"]
# What WANDB_MODE may say, and what it means here; the last two are the older words.
_MODES: dict[str, Mode] = {
    "online": "online", "shared": "online", "offline": "offline", "disabled": "disabled",
    "run": "online", "dryrun": "offline",
}  # fmt: skip


def server_url() -> str:
    """Return where W&B is, as wandb finds it: the environment, then `wandb login --host`, then the public server."""
    return (os.environ.get("WANDB_BASE_URL") or _setting("base_url") or "https://api.wandb.ai").rstrip("/")


def _setting(name: str) -> str:
    """Return what a settings file of W&B says, "" for nothing: that of the current directory, else the user's own.

    `wandb login --host` writes the user's, `wandb offline` and `wandb disabled` that of the current directory.
    """
    settings = configparser.ConfigParser(interpolation=None)
    folders = (
        Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"),
        Path(".wandb" if Path(".wandb").exists() else "wandb"),
    )
    for folder in folders:  # what is read last holds
        with suppress(configparser.Error, UnicodeDecodeError, OSError):
            settings.read((folder / "settings").expanduser(), encoding="utf-8")
    return settings.get("default", name, fallback="")


def run_folder(study: Path) -> Path:
    """Return the folder in which wandb makes its own folder `wandb`: WANDB_DIR, else the study directory."""
    chosen = os.environ.get("WANDB_DIR")
    return Path(chosen).expanduser().absolute() if chosen else study


def tags() -> list[str]:
    """Return the tags that WANDB_TAGS wants every run to have."""
    return [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]


def find_key() -> str | None:
    """Return the W&B key that is configured, as far as can be told without importing wandb; None without one."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    # Given a path, Python leaves out a check of the file's mode that wandb does not make either.
    for path in filter(None, (os.environ.get("NETRC"), "~/.netrc", "~/_netrc")):
        with suppress(OSError, netrc.NetrcParseError):
            login = netrc.netrc(str(Path(path).expanduser())).authenticators(urlparse(server_url()).netloc)
            return login[2] if login else None
    return None


def has_key() -> bool:
    """Return whether a W&B key is configured."""
    return find_key() is not None


def choose_mode(asked: Mode | None) -> Mode:
    """Return the mode that was asked for, by `--wandb` or else by W&B's own variables WANDB_MODE and WANDB_DISABLED;
    where none was, online with a key and offline without one.

    Raises InputError for a WANDB_MODE that is unknown, and where `--wandb online` has no key, or a wrong one.
    """
    if asked is None:
        asked = _mode_of_environment()
        if asked == "online" and not has_key():
            raise InputError("WANDB_MODE: online needs a key and none is configured; set WANDB_API_KEY, or unset it")
        if asked is not None:
            return asked
    if asked == "online":
        if not has_key():
            raise InputError(
                "--wandb: online needs a key and none is configured; set WANDB_API_KEY, or use --wandb offline"
            )
        with suppress(ResourceError):  # it may answer later; until then, nothing is lost
            check_server("--wandb", "or use --wandb offline")
    if asked is not None:
        return asked
    return "online" if has_key() else "offline"


def _mode_of_environment() -> Mode | None:
    """Return the mode that W&B's own variables and settings ask for; None where they ask for nothing."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        return "disabled"
    said = os.environ.get("WANDB_MODE")
    if not said:
        written = _MODES.get(_setting("mode").lower())  # by `wandb offline` or `wandb disabled`
        return None if written == "online" else written
    if said.lower() not in _MODES:
        raise InputError(f"WANDB_MODE: is no mode of W&B (got {said!r}); allowed: online, offline, disabled")
    return _MODES[said.lower()]


def check_server(what: str, otherwise: str) -> None:
    """Ask the server whether it knows the key, for `ASK_TIMEOUT_S` at most.

    Raises InputError where there is no key or the server refuses it, ResourceError where there is no answer.
    `what` begins the message; `otherwise` is what else can be done.
    """
    key, url = find_key(), server_url()
    if key is None:
        raise InputError(f"{what}: needs a W&B key and none is configured; set WANDB_API_KEY, {otherwise}")
    refused = InputError(f"{what}: {url} refuses the key that is configured; set another WANDB_API_KEY, {otherwise}")
    try:
        known = _viewer_is_known(url, key)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise refused from None
        raise ResourceError(f"{what}: {url} answers with HTTP {error.code}; try again later, {otherwise}") from None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        why = one_line(getattr(error, "reason", error)) or type(error).__name__
        raise ResourceError(f"{what}: {url} gives no answer ({why}); try again later, {otherwise}") from None
    if not known:
        raise refused


def default_entity() -> str:
    """Return under whose name the server keeps the runs of this key. To be asked after `check_server`."""
    import wandb

    return str(wandb.Api(timeout=ENTITY_TIMEOUT_S).default_entity)


def _viewer_is_known(url: str, key: str) -> bool:
    """Raises whatever urllib and json raise where the server does not answer as W&B does."""
    request = urllib.request.Request(
        f"{url}/graphql",
        data=json.dumps({"query": "query Viewer { viewer { id } }"}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode(),
        },
    )
    with urllib.request.urlopen(request, timeout=ASK_TIMEOUT_S) as response:
        answer = json.load(response)
    return answer["data"]["viewer"] is not None
