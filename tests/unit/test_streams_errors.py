"""What Redis cannot do now is unavailable; what wsm asks of it wrongly is a bug and stays loud."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions
from redis.asyncio import Connection

from wsm.core.errors import StreamsUnavailable
from wsm.streams.client import connect, translated
from wsm.streams.keys import Kind


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ConnectionError("Connection refused"),
        exceptions.TimeoutError("Timeout reading from socket"),
        exceptions.AuthenticationError("invalid password"),
        exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        exceptions.ReadOnlyError("You can't write against a read only replica."),
        exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
        exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        exceptions.ResponseError("BUSY Redis is busy running a script."),
    ],
)
def test_a_redis_that_cannot_is_unavailable(error: exceptions.RedisError) -> None:
    with pytest.raises(StreamsUnavailable) as raised, translated():
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        exceptions.ResponseError("ERR user_script:12: attempt to index a nil value"),
        exceptions.DataError("Invalid input of type: 'NoneType'."),
    ],
)
def test_a_command_that_is_wrong_is_a_bug(error: exceptions.RedisError) -> None:
    with pytest.raises(type(error)) as raised, translated():
        raise error
    assert raised.value is error


async def test_a_client_never_repeats_a_command_by_itself() -> None:
    client = connect("redis://127.0.0.1:1", timeout_seconds=0.5)
    retry = client.connection_pool.connection_kwargs["retry"]
    assert retry.get_retries() == 0
    await client.aclose()


def own_connection() -> Connection:
    """Make a connection as wsm's clients do; it connects to nothing."""
    pool = connect("unix:///nowhere", timeout_seconds=1).connection_pool
    made: Connection = pool.make_connection()  # type: ignore[no-untyped-call]
    return made


@given(
    st.lists(st.one_of(st.text(), st.binary(max_size=9000), st.integers(), st.sampled_from(Kind)), max_size=8)
)
def test_commands_go_over_the_wire_as_redis_py_writes_them(arguments: list[str | bytes | int]) -> None:
    ours = own_connection()
    stock = Connection()
    assert b"".join(ours.pack_command("EVALSHA", *arguments)) == b"".join(
        stock.pack_command("EVALSHA", *arguments)
    )


def test_what_is_no_value_is_refused_before_it_is_sent() -> None:
    ours = own_connection()
    with pytest.raises(exceptions.DataError):
        ours.pack_command("SET", "key", None)  # type: ignore[arg-type]
