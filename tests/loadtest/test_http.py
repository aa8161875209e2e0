"""The client's HTTP: what comes is handed on at its moment, connections are used again, and what is no HTTP is said."""

import asyncio
from collections.abc import Mapping

import pytest

from tests.loadtest.servers import Exchange, serving, status
from twinfer.core.clock import MonotonicClock
from twinfer.core.errors import ConfigError
from twinfer.loadtest.http import BadReplyError, Origin, Pool, read_origin, render


class Kept:
    """Keeps all that comes."""

    def __init__(self) -> None:
        self.status, self.headers, self.parts = 0, dict[str, str](), list[bytes]()

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Keep it."""
        self.status, self.headers = status, dict(headers)

    def body(self, data: bytes, at_s: float) -> None:
        """Keep it."""
        self.parts.append(data)


async def exchange(pool: Pool, origin: Origin) -> Kept:
    """One request."""
    kept = Kept()
    connection, _ = await pool.take()
    await pool.exchange(connection, render(origin, "POST", "/", {"x-a": "b"}, b"hello"), kept)
    return kept


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:8000", Origin("http", "127.0.0.1", 8000, "")),
        ("http://host/v1/", Origin("http", "host", 80, "")),
        ("https://host/api/v1", Origin("https", "host", 443, "/api")),
        ("http://[::1]:9", Origin("http", "::1", 9, "")),
    ],
)
def test_origins(url: str, found: Origin):
    """A URL with or without /v1 leads to the same paths."""
    assert found == read_origin(url)


def test_authority():
    """As the Host header wants it: a port only where it is not the usual one."""
    found = [read_origin(url).authority for url in ("http://h", "https://h:443", "https://h:80", "http://[::1]:9")]
    assert found == ["h", "h", "h:80", "[::1]:9"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:port", "http://u:p@host"])
def test_urls_that_are_none(url: str):
    """One sentence."""
    with pytest.raises(ConfigError, match="is no"):
        read_origin(url)


async def test_a_connection_is_used_again():
    """Two requests in turn go over one connection, two at once over two."""
    async with serving(status(200, b"well")) as served:
        origin = read_origin(served.url)
        pool = Pool(origin, MonotonicClock())
        first, second = await exchange(pool, origin), await exchange(pool, origin)
        assert [(200, [b"well"])] * 2 == [(one.status, one.parts) for one in (first, second)]
        assert served.exchanges[0].writer is served.exchanges[1].writer
        assert served.exchanges[0].body == b"hello"
        assert b"x-a: b" in served.exchanges[0].head
        await asyncio.gather(exchange(pool, origin), exchange(pool, origin))
        assert 2 == len({id(one.writer) for one in served.exchanges})
        pool.close()


async def test_a_connection_that_the_server_left():
    """One that had lain idle is replaced without a word; the request is sent once more on a fresh one."""

    async def answer(its: Exchange) -> None:
        if its.number == 1:
            its.writer.close()
            return
        its.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell")

    async with serving(answer) as served:
        origin = read_origin(served.url)
        pool = Pool(origin, MonotonicClock())
        assert [[b"well"]] * 2 == [(await exchange(pool, origin)).parts for _ in range(2)]
        first, left, fresh = (one.writer for one in served.exchanges)
        assert first is left
        assert left is not fresh
        pool.close()


async def test_what_one_read_brings_is_one_part():
    """Chunks that were written together are handed on together."""

    async def answer(its: Exchange) -> None:
        its.writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")

    async with serving(answer) as served:
        origin = read_origin(served.url)
        assert [b"abc"] == (await exchange(Pool(origin, MonotonicClock()), origin)).parts


async def test_a_body_without_a_length_ends_with_its_connection():
    """The connection is not used again."""

    async def answer(its: Exchange) -> None:
        its.writer.write(b"HTTP/1.1 200 OK\r\n\r\nto the end")
        its.writer.close()

    async with serving(answer) as served:
        origin = read_origin(served.url)
        pool = Pool(origin, MonotonicClock())
        found = [b"".join((await exchange(pool, origin)).parts) for _ in range(2)]
        assert [b"to the end"] * 2 == found


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b"HTTP/1.1 200"])
async def test_an_end_before_the_end(cut: bytes):
    """A connection that breaks off is an error, however far it came."""

    async def answer(its: Exchange) -> None:
        its.writer.write(cut)
        its.writer.close()

    async with serving(answer) as served:
        origin = read_origin(served.url)
        with pytest.raises(ConnectionError):
            await exchange(Pool(origin, MonotonicClock()), origin)


async def test_no_http():
    """Said as what it is."""

    async def answer(its: Exchange) -> None:
        its.writer.write(b"220 mail.example.net ESMTP\r\n")

    async with serving(answer) as served:
        origin = read_origin(served.url)
        with pytest.raises(BadReplyError):
            await exchange(Pool(origin, MonotonicClock()), origin)
