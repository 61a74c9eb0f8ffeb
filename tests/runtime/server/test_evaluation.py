"""lm-evaluation-harness, over HTTP, scores as transformers does in this process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import compile_engine
from tests.project.sources import ROOT
from tests.runtime.server.serving import Serving

MODEL = ROOT / "models/demo/checkpoints/demo"
TASK = """\
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {documents}}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
DOCUMENTS = [
    {"context": "def add(a, b):\n    return", "choices": [" a + b", " a - b", " None"]},
    {"context": "import numpy as", "choices": [" np", " numpy", " pd"]},
    {"context": "for index, value in", "choices": [" enumerate(values):", " range(values):", " print:"]},
    {"context": "class Grüße:\n    def __init__(", "choices": ["self", "self,", "cls", "東京"]},
    {"context": "#" + " a long comment," * 60, "choices": ["and its end", "x = 1"]},
    {"context": "try:\n    value = int(text)\nexcept", "choices": [" ValueError:", " KeyError:"]},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The bundled model in float32, in a process of its own."""
    engine = compile_engine(MODEL, tmp_path_factory.mktemp("engines") / "demo.engine", "fp32")
    with Serving(engine, "--port", 0) as server:
        server.wait("ready")
        yield server


def evaluate(server: Serving, directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The harness's samples of the task."""
    # Its data sets are copied to a cache, which is to be gone after the test.
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(directory / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    documents = directory / "documents.jsonl"
    documents.write_text("".join(json.dumps({**each, "label": 0}) + "\n" for each in DOCUMENTS))
    (directory / "choices.yaml").write_text(TASK.format(documents=documents))
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    arguments = {
        "model": "demo",
        "base_url": f"{server.url}/v1/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": str(MODEL),
        "batch_size": 4,
    }
    found = simple_evaluate(
        model="local-completions",
        model_args=arguments,
        tasks=["choices"],
        task_manager=TaskManager(include_path=str(directory), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    samples: list[dict[str, Any]] = found["samples"]["choices"]
    return samples


def score(context: str, continuation: str, model: Any, tokenizer: Any) -> tuple[float, bool]:
    """The log-likelihood by transformers, and whether it is what greedy decoding would write."""
    import torch

    start = len(tokenizer.encode(context))
    ids = tokenizer.encode(context + continuation)
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)[start - 1 :]
    picked = logprobs[range(len(ids) - start), ids[start:]]
    return float(picked.sum()), logprobs.argmax(-1).tolist() == ids[start:]


def test_the_harness_scores_as_transformers_does(
    served: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    samples = evaluate(served, tmp_path, monkeypatch)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    assert len(samples) == len(DOCUMENTS)
    checked = 0
    for sample in samples:
        for request, response in zip(sample["arguments"], sample["filtered_resps"], strict=True):
            expected, greedy = score(*request, model, tokenizer)
            found, found_greedy = response
            assert float(found) == pytest.approx(expected, abs=1e-3), request
            assert found_greedy == greedy
            checked += 1
    assert checked == sum(len(document["choices"]) for document in DOCUMENTS)
