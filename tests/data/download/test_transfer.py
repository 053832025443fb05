"""Bytes over the wire: the network at its best and at its worst."""

import random
import socket
from pathlib import Path
from threading import Thread

import pytest

from resnet_cifar100.constants import FOLDER
from resnet_cifar100.data import download
from resnet_cifar100.data.download import (
    ARCHIVE_NAME,
    BACKOFF_S,
    verify_file,
)
from tests.data.download.client import (
    assert_complete,
    files_in,
    obtain,
    refusal,
    resumed_at,
    write_part,
)
from tests.data.download.server import (
    CONTENTS,
    DATA,
    FACTS,
    Handler,
    Server,
    crawl,
    drop_half_way,
    hang,
    hang_half_way,
    sends,
    spoiled,
    status,
    whole,
    wrong_range,
)


def test_a_file_is_verified_only_if_size_and_sha256_agree(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not verify_file(path, FACTS)
    assert not verify_file(tmp_path, FACTS)
    path.write_bytes(DATA)
    assert verify_file(path, FACTS)
    assert not verify_file(path, FACTS._replace(size=len(DATA) + 1))
    assert not verify_file(path, FACTS._replace(sha256="0" * 64))


def test_a_download_ends_with_exactly_the_three_files(server: Server, data_dir: Path) -> None:
    assert obtain(data_dir, server.url) == data_dir / FOLDER
    assert_complete(data_dir)


def test_files_that_are_there_already_cost_no_request(server: Server, data_dir: Path) -> None:
    obtain(data_dir, server.url)
    server.exchanges.clear()
    obtain(data_dir, server.url)
    assert server.exchanges == []


def test_a_damaged_file_is_replaced(server: Server, data_dir: Path) -> None:
    folder = obtain(data_dir, server.url)
    (folder / "train").write_bytes(spoiled(CONTENTS["train"]))
    obtain(data_dir, server.url)
    assert_complete(data_dir)


def test_without_a_terminal_there_is_a_line_at_the_start_and_one_each_tenth(
    server: Server, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    obtain(data_dir, server.url)
    out, err = capsys.readouterr()
    first, *others = err.splitlines()
    assert out == ""
    assert server.url in first
    assert [line.split()[0] for line in others] == [f"{tenth}0%" for tenth in range(1, 11)]


def test_on_a_terminal_there_is_a_bar_with_speed(
    server: Server,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    server.script = [crawl]
    obtain(data_dir, server.url)
    err = capsys.readouterr().err
    assert "CIFAR-100" in err
    assert "B/s" in err
    assert "10% of" not in err


def test_an_archive_put_there_by_hand_is_used_and_kept(server: Server, data_dir: Path) -> None:
    write_part(data_dir, b"left over").rename(data_dir / ARCHIVE_NAME)
    (data_dir / ARCHIVE_NAME).write_bytes(DATA)
    obtain(data_dir, server.url)
    assert server.exchanges == []
    assert (data_dir / ARCHIVE_NAME).read_bytes() == DATA
    (data_dir / ARCHIVE_NAME).unlink()
    assert_complete(data_dir)


def test_no_flipped_bit_in_an_archive_put_there_by_hand_goes_unseen(data_dir: Path) -> None:
    data_dir.mkdir(parents=True)
    noise = random.Random(1)
    for _ in range(200):
        flipped = bytearray(DATA)
        flipped[noise.randrange(len(DATA))] ^= 1 << noise.randrange(8)
        (data_dir / ARCHIVE_NAME).write_bytes(flipped)
        assert ARCHIVE_NAME in refusal(data_dir, "http://unused.invalid/").splitlines()[0]
        assert not (data_dir / FOLDER).exists()


def test_after_a_dropped_connection_only_the_missing_bytes_are_fetched(
    server: Server, data_dir: Path
) -> None:
    server.script = [drop_half_way]
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [None, resumed_at(len(DATA) // 2)]
    assert_complete(data_dir)


def test_a_partial_file_of_an_earlier_run_is_resumed(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA[:12_345])
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [resumed_at(12_345)]
    assert_complete(data_dir)


def test_a_server_that_ignores_ranges_is_read_from_the_start(
    server: Server, data_dir: Path
) -> None:
    write_part(data_dir, DATA[:12_345])
    server.script = [whole]
    obtain(data_dir, server.url)
    assert len(server.exchanges) == 1
    assert_complete(data_dir)


def test_a_range_that_was_not_asked_for_is_thrown_away(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA[:12_345])
    server.script = [wrong_range]
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [resumed_at(12_345), None]
    assert_complete(data_dir)


def test_a_range_that_cannot_be_satisfied_means_a_new_start(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA[:12_345])
    server.script = [status(416)]
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [resumed_at(12_345), None]
    assert_complete(data_dir)


def test_a_partial_file_that_is_too_long_is_thrown_away(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA + b"more")
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [None]
    assert_complete(data_dir)


def test_a_complete_partial_file_needs_no_request(server: Server, data_dir: Path) -> None:
    write_part(data_dir, DATA)
    obtain(data_dir, server.url)
    assert server.exchanges == []
    assert_complete(data_dir)


def test_a_resumed_file_with_a_wrong_checksum_is_fetched_once_more(
    server: Server, data_dir: Path
) -> None:
    write_part(data_dir, spoiled(DATA)[:12_345])
    obtain(data_dir, server.url)
    assert [e.range_header for e in server.exchanges] == [resumed_at(12_345), None]
    assert_complete(data_dir)


def test_wrong_bytes_are_refused_after_a_second_look_and_not_kept(
    server: Server, data_dir: Path
) -> None:
    server.script = [sends(spoiled(DATA))] * 9
    assert "checksums differ" in refusal(data_dir, server.url)
    assert len(server.exchanges) == 2
    assert files_in(data_dir) == []


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_that_is_busy_twice_is_asked_again(
    server: Server, data_dir: Path, code: int
) -> None:
    server.script = [status(code), status(code)]
    obtain(data_dir, server.url)
    assert_complete(data_dir)


def test_a_server_that_stays_broken_is_given_up_after_four_tries(
    server: Server, data_dir: Path
) -> None:
    server.script = [status(500)] * 9
    assert "500" in refusal(data_dir, server.url)
    assert len(server.exchanges) == 4


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_plain_refusal_is_not_asked_again(server: Server, data_dir: Path, code: int) -> None:
    server.script = [status(code)] * 9
    assert str(code) in refusal(data_dir, server.url)
    assert len(server.exchanges) == 1


def test_a_silent_server_is_left_and_asked_again(
    server: Server, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 1.0)
    server.script = [hang, hang_half_way]
    obtain(data_dir, server.url)
    *first, last = [e.range_header for e in server.exchanges]
    assert first[:2] == [None, None]
    assert last is not None
    assert_complete(data_dir)


def test_a_file_of_another_size_is_refused_and_what_is_here_is_kept(
    server: Server, data_dir: Path
) -> None:
    part = write_part(data_dir, DATA[:12_345])
    server.script = [sends(b"<html>Please log in to this network</html>")]
    assert "official archive" in refusal(data_dir, server.url)
    assert part.read_bytes() == DATA[:12_345]


def test_a_server_that_does_not_stop_is_stopped(server: Server, data_dir: Path) -> None:
    sent: list[int] = []

    def gush(handler: Handler) -> None:
        handler.begin(200)
        while sum(sent) < 100_000_000:
            sent.append(handler.wfile.write(bytes(100_000)))

    server.script = [gush]
    assert "more than" in refusal(data_dir, server.url)
    assert files_in(data_dir) == []
    assert sum(sent) < 50_000_000  # a few megabytes may wait in the buffers of the system


def test_a_server_that_says_no_length_is_believed_by_checksum(
    server: Server, data_dir: Path
) -> None:
    server.script = [sends(DATA, is_announced=False)]
    obtain(data_dir, server.url)
    assert_complete(data_dir)


def test_a_refused_connection_ends_in_one_message(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused" in refusal(data_dir, f"http://127.0.0.1:{port}/x")
    assert len(BACKOFF_S) == 3
    assert sum(BACKOFF_S) < 10  # seconds that somebody waits for this message


def test_something_that_does_not_speak_http_ends_in_one_message(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            for _ in range(4):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"220 ready when you are\r\n")

        Thread(target=babble, daemon=True).start()
        assert "no answer" in refusal(data_dir, f"http://127.0.0.1:{listener.getsockname()[1]}/x")


@pytest.mark.parametrize(("slow_lookup_s", "tries"), [(1.0, 4), (-1.0, 1)])
def test_an_unknown_host_is_looked_up_again_only_if_that_is_quick(
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    slow_lookup_s: float,
    tries: int,
) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(download, "SLOW_LOOKUP_S", slow_lookup_s)
    assert "name resolution" in refusal(data_dir, "http://nowhere.invalid/x")
    assert capsys.readouterr().err.count("Next try") == tries - 1
