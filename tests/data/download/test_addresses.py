"""Which addresses and redirects are followed."""

import io
import shutil
import ssl
import subprocess
from pathlib import Path
from urllib.request import Request

import pytest

from resnet_cifar100.constants import ARCHIVE, ARCHIVE_URL
from resnet_cifar100.data import download
from resnet_cifar100.data.download import ARCHIVE_NAME, how_to_get_it
from resnet_cifar100.errors import DataError
from tests.data.download.client import (
    assert_complete,
    files_in,
    obtain,
    refusal,
    resumed_at,
    write_part,
)
from tests.data.download.server import DATA, Exchange, Server, redirect, status


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/x", "data:,x", "/etc/passwd", "host/x", "", "https:"],
)
def test_only_http_and_https_addresses_are_accepted(data_dir: Path, url: str) -> None:
    assert "only ['http', 'https'] will do" in refusal(data_dir, url)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:port/", "http://h/a b", "http://h/a\nb", "http://h/\u00e9"]
)
def test_an_address_that_makes_no_sense_ends_in_one_message(data_dir: Path, url: str) -> None:
    assert "not a usable address" in refusal(data_dir, url)


def test_an_address_with_a_password_is_refused_without_showing_it(data_dir: Path) -> None:
    message = refusal(data_dir, "https://me:secret@mirror.example/x.tar.gz")
    assert "no user and no password" in message
    assert "mirror.example/x.tar.gz" in message
    assert "secret" not in message


def test_what_signs_an_address_is_sent_and_not_shown(
    server: Server, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [status(403)]
    message = refusal(data_dir, f"{server.url}?Signature=secret")
    assert server.exchanges[0].path.endswith("?Signature=secret")
    assert f"{server.url}: HTTP Error 403" in message
    assert "secret" not in message + "".join(capsys.readouterr())


def test_a_redirect_within_http_is_followed_and_keeps_the_range(
    server: Server, data_dir: Path
) -> None:
    write_part(data_dir, DATA[:12_345])
    server.script = [redirect("/elsewhere")]
    obtain(data_dir, server.url)
    assert server.exchanges[1] == Exchange("/elsewhere", resumed_at(12_345))
    assert_complete(data_dir)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(
    server: Server, data_dir: Path, target: str
) -> None:
    server.script = [redirect(target)]
    refusal(data_dir, server.url)
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("target", ["http://h/x", "HTTP://h/x", "ftp://h/x", "file:///x"])
def test_a_redirect_from_https_to_anything_less_is_refused(target: str) -> None:
    handler, request = download._SafeRedirects(), Request("HTTPS://secure.example/x")
    with pytest.raises(DataError, match="refused"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, target)


def test_a_redirect_from_http_to_https_is_welcome() -> None:
    handler, request = download._SafeRedirects(), Request("http://plain.example/x")
    better = handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "https://h/x")
    assert better is not None
    assert better.full_url == "https://h/x"


@pytest.fixture
def secure_server(server: Server, tmp_path: Path) -> Server:
    """The same server behind TLS, with a certificate nobody trusts yet (tmp_path/cert.pem)."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("needs the openssl command to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def test_a_real_https_server_cannot_send_us_to_http(
    secure_server: Server, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    secure_url = secure_server.url.replace("http:", "https:")
    secure_server.script = [redirect("http://127.0.0.1:9/x")]
    assert "only ['https'] will do" in refusal(data_dir, secure_url)
    assert not files_in(data_dir)
    secure_server.script = [redirect(secure_url + "?moved")]
    obtain(data_dir, secure_url)
    assert_complete(data_dir)


def test_an_untrusted_certificate_is_refused_at_once(
    secure_server: Server, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cannot be trusted" in refusal(data_dir, secure_server.url.replace("http:", "https:"))
    assert secure_server.exchanges == []
    assert "Next try" not in capsys.readouterr().err


def test_the_advice_names_address_path_checksum_mirror_flag_and_synthetic_data() -> None:
    advice = how_to_get_it(Path("some/data"), "https://mirror.example/x.tar.gz")
    path = str(Path("some/data") / ARCHIVE_NAME)
    for fact in ("https://mirror.example/x.tar.gz", path, ARCHIVE.sha256, ARCHIVE_URL):
        assert fact in advice
    assert "--data-url" in advice
    assert "--dataset synthetic" in advice
