"""The options of passes that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="PASS.OPTION=VALUE", help="Set an option of a pass.")
]
Disabled = Annotated[list[str] | None, typer.Option("--disable-pass", metavar="PASS", help="Leave a pass out.")]
Plugins = Annotated[bool, typer.Option("--plugins/--no-plugins", help="Use the passes of installed plugins.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file with options of passes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
