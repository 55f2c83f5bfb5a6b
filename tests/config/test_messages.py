"""What is said of bad input stays word for word as it is: `FILE:LINE FIELD: what is wrong (got X); what is allowed`.

`tests/data/messages.json` holds the message about every file of the corpus, as the version before the packages gave it.
Whoever changes a message on purpose changes it there as well.
"""

import json
from pathlib import Path

import pytest

from faults.inputs import CORPUS
from paths import DATA
from tune_lr.config.load import load_config
from tune_lr.errors import InputError

MESSAGES: dict[str, str] = json.loads((DATA / "messages.json").read_text())


def test_there_is_a_message_for_every_file_of_the_corpus() -> None:
    assert MESSAGES.keys() == CORPUS.keys()


@pytest.mark.parametrize("name", CORPUS)
def test_the_message_is_word_for_word_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, _ = CORPUS[name]
    Path("space.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_config("space.yaml")
    assert str(caught.value) == MESSAGES[name]
