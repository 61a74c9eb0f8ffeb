import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from xllmc.runtime.artifact.errors import ArtifactError, OptionError
from xllmc.runtime.sampling import SamplingParams
from xllmc.runtime.tokenizer import Tokenizer

from tests.runtime.toy import END, tokenizer_json

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
MESSAGES = [{"role": "user", "content": "Grüße"}]


def tokenizer(directory: Path, config: object = None, **files: str) -> Tokenizer:
    (directory / "tokenizer.json").write_text(tokenizer_json())
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return Tokenizer(directory, (END,))


def test_text_goes_in_and_comes_back(tmp_path: Path) -> None:
    made = tokenizer(tmp_path)
    ids = made.encode("naïve 東京")
    assert made.decode([*ids, END]) == "naïve 東京"
    assert made.eos_token_ids == {END}


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"bos_token": {"content": "<s>"}}, {"chat_template__jinja": TEMPLATE}),
        ({"bos_token": "<s>", "chat_template": TEMPLATE}, {}),
        ({"bos_token": "<s>", "chat_template": [{"name": "default", "template": TEMPLATE}]}, {}),
    ],
)
def test_chat_templates_are_found_wherever_they_are_kept(tmp_path: Path, config: object, files: dict[str, str]) -> None:
    made = tokenizer(tmp_path, config, **files)
    assert made.render_chat(MESSAGES) == "<s>user: Grüße\nassistant:"
    assert made.render_chat(MESSAGES, add_generation_prompt=False) == "<s>user: Grüße\n"
    assert made.decode(made.encode_chat(MESSAGES)) == "<s>user: Grüße\nassistant:"


def test_templates_have_what_hugging_face_gives_them(tmp_path: Path) -> None:
    text = "{% for m in messages %}{% break %}{% endfor %}{{ tools | tojson }}{{ strftime_now('%Y') }}"
    rendered = tokenizer(tmp_path, {}, chat_template__jinja=text).render_chat(MESSAGES, tools=[{"a": "é"}])
    assert rendered.startswith('[{"a": "é"}]20')


def test_models_without_a_chat_template_say_so(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no chat template, as base models have none"):
        tokenizer(tmp_path, {}).render_chat(MESSAGES)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.append(1) }}", "refuses these messages"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses these messages"),
    ],
)
def test_templates_run_in_a_sandbox(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tokenizer(tmp_path, {}, chat_template__jinja=template).render_chat(MESSAGES)


@pytest.mark.parametrize("do_sample", [True, False])
def test_generation_defaults_of_another_kind_name_their_file(tmp_path: Path, do_sample: bool) -> None:
    config = json.dumps({"do_sample": do_sample, "temperature": "hot"})
    with pytest.raises(ArtifactError, match=r"generation_config\.json: temperature must be a number .* got 'hot'"):
        tokenizer(tmp_path, {}, generation_config__json=config).default_sampling()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    with pytest.raises(ArtifactError, match="not valid jinja2"):
        tokenizer(tmp_path, {}, chat_template__jinja="{% if").render_chat(MESSAGES)
    with pytest.raises(ArtifactError, match=r"generation_config\.json is damaged"):
        tokenizer(tmp_path, {}, generation_config__json="{").default_sampling()
    for text in ("[]", "[" * 100_000, '"x"'):
        with pytest.raises(ArtifactError, match=r"generation_config\.json (is damaged|must hold a JSON object)"):
            tokenizer(tmp_path, {}, generation_config__json=text).default_sampling()
    with pytest.raises(ArtifactError, match=r"tokenizer_config\.json must hold a JSON object, got list"):
        tokenizer(tmp_path / "chat", ["a"]).render_chat(MESSAGES)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"no tokenizer\.json: give token ids"):
        Tokenizer(tmp_path, ()).encode("a")


def test_generation_defaults_are_the_models_own(tmp_path: Path) -> None:
    config = json.dumps({"do_sample": True, "temperature": 0.6, "top_k": 20, "max_length": 9})
    made = tokenizer(tmp_path, {}, generation_config__json=config)
    assert made.default_sampling() == SamplingParams(temperature=0.6, top_k=20)
    assert made.default_sampling(top_k=5, seed=1) == SamplingParams(temperature=0.6, top_k=5, seed=1)
    (tmp_path / "generation_config.json").unlink()
    assert made.default_sampling().temperature == 0


def test_truncation_and_padding_kept_in_the_file_do_not_touch_prompts(tmp_path: Path) -> None:
    made = Backend.from_str(tokenizer_json())
    made.enable_truncation(4)
    made.enable_padding(length=9)
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    assert len(Tokenizer(tmp_path, ()).encode("abcdef")) == 6
