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


def server_url() -> str:
    """Return where W&B is, as wandb finds it: the environment, then `wandb login --host`, then the public server."""
    settings = configparser.ConfigParser(interpolation=None)
    folder = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb"))
    with suppress(configparser.Error, UnicodeDecodeError):
        settings.read((folder / "settings").expanduser())
    chosen = os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback="")
    return (chosen or "https://api.wandb.ai").rstrip("/")


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
    """Return the mode that was asked for; where none was, online with a key and offline without one.

    Raises InputError where online was asked for and there is no key, or a wrong one.
    """
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
