"""``xllmc demo``."""

import json
import time
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...runtime.artifact.errors import CheckpointError
from ...runtime.engine import Engine
from ..driver import compile_model
from ..options import CompileOptions
from .compile_summary import closing_line, pass_table, summary
from .progress_bars import listening

DEMO_PROMPTS = (
    'def read_config(path):\n    """',
    "class Queue:\n    def __init__(self",
    "import os\nimport sys\n",
)
DEMO_TOKENS = 96
DEMO_SAMPLING = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 5}


def demo_command(
    out: Annotated[Path, typer.Option("--output", "-o", help="Where to write the engine.")] = Path("build/demo.engine"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Compile the bundled model, and let it write."""
    with resources.as_file(resources.files("xllmc.models.demo")) as folder:
        model = folder / "checkpoints" / "demo"
        if not model.is_dir():
            raise CheckpointError(f"the bundled model is not at {model}; install xllmc with its package data")
        out.parent.mkdir(parents=True, exist_ok=True)
        with listening() as listener:
            result = compile_model(model, out, CompileOptions(), listener)
    console = Console(stderr=as_json)
    console.print(pass_table(result))
    console.print(closing_line(result, out), highlight=False)
    texts, speeds = [], []
    with Engine.load(out) as engine:
        for prompt in DEMO_PROMPTS:
            params = engine.tokenizer.default_sampling(max_tokens=DEMO_TOKENS, **DEMO_SAMPLING)
            began = time.perf_counter()
            (completion,) = engine.generate([prompt], params)
            speeds.append(len(completion.token_ids) / (time.perf_counter() - began))
            texts.append(completion.text)
            console.rule(style="dim")
            console.print(f"[bold]{escape(prompt)}[/bold]{escape(completion.text)}", highlight=False, soft_wrap=True)
    console.rule(style="dim")
    speed = sorted(speeds)[len(speeds) // 2]
    console.print(
        f"{speed:.0f} tokens/s. Try: xllmc generate {out} --prompt 'def main('", highlight=False, soft_wrap=True
    )
    if as_json:
        print(json.dumps(summary(result, out) | {"tokens_per_second": speed, "texts": texts}))


def escape(text: str) -> str:
    return text.replace("[", r"\[")
