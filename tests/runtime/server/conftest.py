"""A toy engine behind a server, made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from xllmc.runtime.engine import Engine

from tests.runtime.server.serving import Running, running
from tests.runtime.toy import tokenizer_json, write_toy

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ m.role }}={{ m.content }};{% endfor %}{% if shout %}!{% endif %}"
)


@pytest.fixture(scope="session")
def chatty_engine(toy_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a toy engine with a chat template."""
    files = {"tokenizer.json": tokenizer_json(), "chat_template.jinja": TEMPLATE}
    return write_toy(tmp_path_factory.mktemp("engines") / "toy.engine", toy_library, tokenizer_files=files)


@pytest.fixture(scope="session")
def toy(chatty_engine: Path) -> Iterator[Engine]:
    """It, loaded."""
    with Engine.load(chatty_engine, threads=2, max_tokens=64, max_rows=64, max_sequences=16) as engine:
        yield engine


@pytest.fixture(scope="module")
def other(chatty_engine: Path) -> Iterator[Engine]:
    """Another, for servers that end before the tests do: they leave an engine that takes no more requests."""
    with Engine.load(chatty_engine, threads=1) as engine:
        yield engine


@pytest.fixture(scope="session")
def server(toy: Engine) -> Iterator[Running]:
    """A server that tests leave as it was."""
    with running(toy) as found:
        yield found
