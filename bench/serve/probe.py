"""What a server is, and which of the protocol's extensions it takes, before it is measured."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ...runtime.artifact.errors import OptionError
from .client import Client
from .protocol import Dialect, shown
from .records import Failure, Prompt, Record, Work

ASK_SECONDS = 10.0
REJECTED = ("400", "422")


@dataclass(frozen=True)
class Server:
    """One server that answered."""

    url: str
    """As given."""
    base: str
    """With the version: ``http://127.0.0.1:8000/v1``."""
    dialect: Dialect
    models: tuple[str, ...]
    version: Any
    """What ``/version`` says; None: there is no such page."""
    header: str | None
    """Of HTTP: the server's own name for itself."""


def base_url(url: str) -> str:
    """With the version of the protocol: ``/v1`` unless the address ends with one. Raises OptionError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise OptionError(f"a server's address must be like http://127.0.0.1:8000, got {url!r}")
    if "@" in parts.netloc:
        raise OptionError("a server's address must hold no password, as results name it; give --api-key")
    whole = url.rstrip("/")
    last = whole.rpartition("/")[2]
    return whole if last[:1] == "v" and last[1:].isdigit() else f"{whole}/v1"


async def probe(
    session: aiohttp.ClientSession,
    url: str,
    *,
    model: str | None,
    chat: bool,
    prompt: Prompt,
    ignore_eos: bool,
    temperature: float,
    extra: Mapping[str, Any],
    timeout: float,
) -> Server:
    """Ask who it is, and send one short request; the extensions that it rejects are left out from then on. Raises
    OptionError where it does not answer, or rejects the request without them too.
    """
    base = base_url(url)
    listing, header = await _get(session, f"{base}/models")
    models = _model_names(listing)
    if model is None and not models:
        raise OptionError(f"{url} must list its models at {base}/models, and did not; give --model")
    version, _ = await _get(session, f"{base.rpartition('/')[0]}/version")
    chosen = model or models[0]
    work = Work(0, 0.0, prompt, 2)
    failures: list[Failure] = []
    for eos, usage in ((True, True), (False, True), (True, False), (False, False)):
        if eos and not ignore_eos:
            continue
        dialect = Dialect(chosen, chat, eos, usage, temperature, extra)
        record = await _one(Client(session, base, dialect, timeout, retries=3), work)
        if record.failure is None:
            return Server(url, base, dialect, models, version, header)
        failures.append(record.failure)
        if record.failure.kind not in REJECTED:
            break
    hint = "" if failures[-1].kind not in ("400", "404", "422") else _hint(chat, prompt)
    raise OptionError(
        f"{url} must complete a request to {base}{dialect.path} with model {chosen!r}; it ended with "
        f"{failures[-1].kind}: {failures[-1].message}{hint}"
    )


async def _one(client: Client, work: Work) -> Record:
    clock = asyncio.get_running_loop().time
    return await client.prepare([work])(work, clock(), clock)


def _hint(chat: bool, prompt: Prompt) -> str:
    if chat:
        return "; try without --chat"
    return "; try --chat, or without --vocab" if not isinstance(prompt, str) else "; try --chat"


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[Any, str | None]:
    """JSON, or None where there is none; and the server's name. Raises OptionError where nothing answers at all."""
    try:
        async with asyncio.timeout(ASK_SECONDS), session.get(url, allow_redirects=False) as response:
            text, header = await response.text(errors="replace"), response.headers.get("Server")
            if response.status in (401, 403):
                raise OptionError(f"{url} wants another API key ({response.status}); give --api-key")
            if response.status != 200:
                return None, header
    except TimeoutError as problem:
        raise OptionError(f"{url} must answer within {ASK_SECONDS:g} s, and did not; is the server up?") from problem
    except aiohttp.ClientError as problem:
        raise OptionError(f"{url} must answer, got {shown(str(problem))}; is the server up?") from problem
    try:
        return json.loads(text), header
    except ValueError:
        return None, header


def _model_names(listing: Any) -> tuple[str, ...]:
    entries = listing.get("data") if isinstance(listing, dict) else None
    if not isinstance(entries, list):
        return ()
    return tuple(entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str))
