"""The entry point's small parts: arguments, and the token from its file."""

import base64

import pytest

from shardwright_api import names
from shardwright_shard.__main__ import check_bot, parse, token_reader
from shardwright_shard.errors import ConfigError

BOT = "1000000000000000001"
TOKEN = f"{base64.urlsafe_b64encode(BOT.encode()).decode().rstrip('=')}.aaaaaa.secret"


def test_a_token_of_this_bot_is_taken():
    assert check_bot(TOKEN, BOT) == TOKEN


@pytest.mark.parametrize("token", [TOKEN.replace("M", "N", 1), "no-token", "..", "ÿ.b.c"])
def test_a_token_of_another_bot_is_refused_without_being_shown(token):
    with pytest.raises(ConfigError, match="correct the Secret") as caught:
        check_bot(token, BOT)
    assert token not in str(caught.value) or token == ".."


def test_the_token_is_read_without_its_line_end(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert token_reader(path) == TOKEN


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_file_without_a_token_is_named(tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="token"):
        token_reader(path)


def test_range_and_namespace_must_be_named():
    options = parse(["--namespace", "a", "--range", "mybot-1-0-0"])
    assert (options.namespace, options.range) == ("a", "mybot-1-0-0")
    assert str(options.state_dir) == names.STATE_DIR
    with pytest.raises(SystemExit):
        parse(["--namespace", "a"])
