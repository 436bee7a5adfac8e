"""The wire protocol against its vectors (made without our code), its page, and bytes that nobody should have sent."""

from __future__ import annotations

import json
import re
import runpy
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import msgpack
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import inspect

from broker import wire

VECTORS = Path(__file__).parent / "vectors"
PAGE = (Path(__file__).parents[1] / "docs" / "wire.md").read_text(encoding="utf-8")
MAKE = runpy.run_path(str(VECTORS / "make.py"))


def from_json(value: Any) -> Any:
    """{"hex": ...} is how the vectors write bytes."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if value.keys() == {"hex"} else {k: from_json(v) for k, v in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value


DOCUMENT = from_json(json.loads((VECTORS / "wire.json").read_text(encoding="utf-8")))
VALID: list[dict[str, Any]] = DOCUMENT["valid"]
INVALID: list[dict[str, Any]] = DOCUMENT["invalid"]
BY_TYPE = {message.TYPE: message for message in wire.MESSAGES}
#: Every struct that is written, by its name in snake case.
STRUCTS: dict[str, type[msgspec.Struct]] = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(): found
    for name, found in vars(wire).items()
    if isinstance(found, type) and issubclass(found, msgspec.Struct) and found not in (msgspec.Struct, wire.Message)
}


def segments_of(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(segment) for segment in vector["segments"]]


def fields_of(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info.fields


# --- vectors ---------------------------------------------------------------------------------------------------------


def test_vectors_are_those_that_make_writes() -> None:
    assert MAKE["document"]() == (VECTORS / "wire.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_decode_gives_what_the_vector_says(vector: dict[str, Any]) -> None:
    message = getattr(wire, vector["message"])
    kind, header, *_ = segments_of(vector)
    assert msgpack.unpackb(header) == vector["header"]
    expected = msgspec.convert(vector.get("complete", vector["header"]), message)
    if vector["type"] is None:
        assert msgspec.msgpack.decode(header, type=message) == expected
        return
    decoded = wire.decode(kind, header)
    assert type(decoded) is message
    assert decoded == expected
    assert wire.decode(kind, memoryview(header)) == wire.decode_message(segments_of(vector)) == expected


@pytest.mark.parametrize("vector", [v for v in VALID if v["type"]], ids=lambda vector: vector["name"])
def test_encode_writes_what_the_vector_says(vector: dict[str, Any]) -> None:
    complete = vector.get("complete", vector["header"])
    kind, header = wire.encode(msgspec.convert(complete, getattr(wire, vector["message"])))
    assert kind == bytes.fromhex(vector["type"])
    assert msgpack.unpackb(header) == complete


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector["name"])
def test_invalid_vector_is_refused_with_its_reason(vector: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.decode_message(segments_of(vector))
    assert caught.value.reason == vector["reason"]
    assert caught.value.detail


def test_type_bytes_are_unique_and_every_message_has_a_vector() -> None:
    assert len(BY_TYPE) == len(wire.MESSAGES)
    assert all(len(kind) == 1 for kind in BY_TYPE)
    assert {vector["message"] for vector in VALID} == {message.__name__ for message in wire.MESSAGES} | {"Published"}
    declared = {found for found in STRUCTS.values() if issubclass(found, wire.Message)}
    assert declared == set(wire.MESSAGES), "a message class is missing in MESSAGES"


def maps_of(message: str, header: Any) -> list[tuple[str, dict[str, Any]]]:
    """The header and the maps inside it, each with the name of its struct."""
    found = [(message, header)]
    for field in fields_of(STRUCTS[message]):
        inner = field.type.item_type if isinstance(field.type, inspect.ListType) else None
        if isinstance(inner, inspect.StructType):
            name = next(name for name, struct in STRUCTS.items() if struct is inner.cls)
            found += [pair for item in header.get(field.encode_name, []) for pair in maps_of(name, item)]
    return found


SNAKE = {struct.__name__: name for name, struct in STRUCTS.items()}
WRITTEN = [pair for vector in VALID for pair in maps_of(SNAKE[vector["message"]], vector["header"])]


@pytest.mark.parametrize("name", STRUCTS)
def test_vectors_show_every_field_and_every_default(name: str) -> None:
    maps = [header for struct, header in WRITTEN if struct == name]
    for field in fields_of(STRUCTS[name]):
        assert any(field.encode_name in header for header in maps), f"{name}.{field.name} is in no vector"
        if field.required:
            assert all(field.encode_name in header for header in maps)
        else:
            assert any(field.encode_name not in header for header in maps), f"{name}.{field.name} is always there"
            default = default_of(field)
            values = [header[field.encode_name] for header in maps if field.encode_name in header]
            only_one = field.encode_name == "protocol"
            assert only_one or any(value != default for value in values), f"{name}.{field.name} is only its default"


def default_of(field: inspect.Field) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


# --- the page --------------------------------------------------------------------------------------------------------

Row = tuple[str, str, str]
SECTIONS = {
    int(kind, 16).to_bytes(): (title, text)
    for kind, title, text in re.findall(r"^### 0x(..) (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
LIMITS = {
    wire.HEADER_LIMIT: "",
    wire.BATCH_LIMIT: "Header up to 4 MiB",
    wire.HEADER_LIMIT + wire.INLINE_LIMIT: "Header up to 4 KiB, plus 1 MiB",
    64 << 20: "Header up to 64 MiB",
}


def rows_of(text: str) -> list[Row]:
    """Field, type and default of every table of fields."""
    rows = re.findall(r"^\| `(\w+)` \| ([a-z_ ]+) \| ([^|]+) \|[^|]*\|$", text, re.MULTILINE)
    return [(field, kind, default.strip("`")) for field, kind, default in rows]


class Names:
    """How the page names types."""

    SETS: ClassVar = {
        ("inspect", "monitor"): "policy",
        ("jpeg", "png", "bgr8", "mono8", "bayer_rg8"): "encoding",
        ("ok", "failed", "expired", "dropped"): "status",
        ("open", "ended", "cut"): "state",
    }
    INTS: ClassVar = {
        (None, None): "int",
        (0, 2**63 - 1): "natural",
        (-1, 2**63 - 1): "highest",
        (0, 65535): "port",
    }
    FLOATS: ClassVar[dict[tuple[float | None, float | None], str]] = {(0, 1e9): "duration", (-1e9, 1e9): "remaining"}
    STRINGS: ClassVar = {
        (None, None): "str",
        (1, 64): "label",
        (1, 256): "part",
        (None, 256): "words",
        (None, 64): "class",
        (None, 128): "digest",
    }

    @classmethod
    def of(cls, info: inspect.Type) -> str:
        match info:
            case inspect.IntType():
                return str(cls.INTS[info.ge, info.le])
            case inspect.FloatType():
                return str(cls.FLOATS[info.ge, info.le])
            case inspect.StrType():
                return str(cls.STRINGS[info.min_length, info.max_length])
            case inspect.LiteralType():
                return next(name for values, name in cls.SETS.items() if set(values) == set(info.values))
            case inspect.ListType():
                return f"array of {cls.of(info.item_type)}"
            case inspect.DictType():
                return f"map of {cls.of(info.key_type)} to {cls.of(info.value_type)}"
            case inspect.UnionType():
                return " or ".join(cls.of(part) for part in info.types)
            case inspect.StructType():
                return SNAKE[info.cls.__name__]
            case inspect.NamedTupleType():
                return "key"
        return {inspect.BoolType: "bool", inspect.BytesType: "bin", inspect.NoneType: "nil"}[type(info)]


def expected_rows(struct: type[msgspec.Struct]) -> list[Row]:
    """What the section of `struct` must say, the structs inside it included."""
    rows, inner = [], []
    for field in fields_of(struct):
        rows.append((field.encode_name, Names.of(field.type), shown_default(field)))
        if isinstance(field.type, inspect.ListType) and isinstance(field.type.item_type, inspect.StructType):
            inner.append(field.type.item_type.cls)
    return rows + [row for each in inner for row in expected_rows(each)]


def shown_default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    default = default_of(field)
    shown: dict[Any, str] = {None: "nil", False: "false"}
    if default in ("", b"", [], {}):
        return "empty"
    return str(default) if default is not False and default is not None else shown[default]


@pytest.mark.parametrize("message", wire.MESSAGES, ids=lambda message: message.__name__)
def test_page_has_every_field_with_type_and_default(message: type[wire.Message]) -> None:
    title, text = SECTIONS[message.TYPE]
    assert title == SNAKE[message.__name__].upper()
    assert rows_of(text) == expected_rows(message)
    limits = re.findall(r"Header up to [^.;:]*?MiB", text)
    assert limits == ([LIMITS[message.LIMIT]] if LIMITS[message.LIMIT] else [])


def test_page_has_no_message_that_is_not_there() -> None:
    assert set(SECTIONS) == set(BY_TYPE)


def test_page_has_the_live_header() -> None:
    live = PAGE.split("## The live stream")[1].split("\n## ")[0]
    assert rows_of(live) == expected_rows(wire.Published)


def test_page_names_the_values_of_every_set() -> None:
    for values, name in Names.SETS.items():
        assert f"| {name} | str | {', '.join(f'`{value}`' for value in values)} |" in PAGE


@pytest.mark.parametrize("name", ["hello", "frame, least"])
def test_page_shows_the_bytes_of_the_vector(name: str) -> None:
    vector = next(vector for vector in VALID if vector["name"] == name)
    block = PAGE.split(f"(vector `{name}`")[1].split("```")[1]
    shown = "".join(line[:32].replace(" ", "") for line in block.splitlines())
    assert shown == "".join(vector["segments"])


# --- every message, any value ----------------------------------------------------------------------------------------


def values(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Any value that the type allows."""
    match info:
        case inspect.IntType():
            low, high = -(2**63) if info.ge is None else info.ge, 2**63 - 1 if info.le is None else info.le
            return st.integers(low, high)
        case inspect.FloatType():
            return st.floats(info.ge, info.le)
        case inspect.StrType():
            return st.text(min_size=info.min_length or 0, max_size=min(info.max_length or 80, 80))
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.ListType():
            return st.lists(values(info.item_type), max_size=4)
        case inspect.DictType():
            return st.dictionaries(values(info.key_type), values(info.value_type), max_size=4)
        case inspect.UnionType():
            return st.one_of([values(part) for part in info.types])
        case inspect.StructType():
            return messages(info.cls)
        case inspect.NamedTupleType():
            return st.tuples(*(values(field.type) for field in info.fields)).map(lambda parts: wire.Key(*parts))
    return {inspect.BoolType: st.booleans(), inspect.BytesType: st.binary(), inspect.NoneType: st.none()}[type(info)]


def messages(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    return st.builds(struct, **{field.name: values(field.type) for field in fields_of(struct)})


ANY_MESSAGE = st.one_of([messages(message) for message in wire.MESSAGES])


@pytest.mark.parametrize("message", wire.MESSAGES, ids=lambda message: message.__name__)
def test_round_trip(message: type[wire.Message]) -> None:
    @given(messages(message))
    def check(sent: wire.Message) -> None:
        assert wire.decode(*wire.encode(sent)) == sent
        assert msgpack.unpackb(wire.encode(sent)[1]).keys() == {field.encode_name for field in fields_of(message)}

    check()


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(),
        st.binary(),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary()),
        st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999)),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.one_of(st.text(), st.integers(0, 9)), inner)),
    max_leaves=8,
)


@given(ANY_MESSAGE, st.dictionaries(st.text().map("x-".__add__), ANYTHING, min_size=1, max_size=3))
def test_unknown_fields_are_ignored(sent: wire.Message, unknown: dict[str, Any]) -> None:
    kind, header = wire.encode(sent)
    longer = msgpack.packb(unknown | msgpack.unpackb(header))
    assume(len(longer) <= sent.LIMIT)
    assert wire.decode(kind, longer) == sent


# --- bytes that nobody should have sent ------------------------------------------------------------------------------

REASONS = {"unknown_type", "header_too_large", "not_msgpack", "header_invalid"}


def must_decode_or_refuse(kind: bytes, header: bytes) -> None:
    try:
        wire.decode(kind, header)
    except wire.WireError as error:
        assert error.reason in REASONS
        assert len(error.detail) <= 256


KINDS = st.one_of(st.sampled_from(sorted(BY_TYPE)), st.binary(max_size=3))


@given(KINDS, st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_wire_error(kind: bytes, header: bytes) -> None:
    must_decode_or_refuse(kind, header)


@given(st.data())
def test_mutated_messages_raise_nothing_but_wire_error(data: st.DataObject) -> None:
    kind, header = wire.encode(data.draw(ANY_MESSAGE))
    mutated = bytearray(header)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        mutated[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    must_decode_or_refuse(data.draw(st.one_of(st.just(kind), KINDS)), bytes(mutated))


@given(st.data())
def test_one_wrong_value_raises_nothing_but_wire_error(data: st.DataObject) -> None:
    kind, header = wire.encode(data.draw(ANY_MESSAGE))
    fields = msgpack.unpackb(header)
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(ANYTHING)
    must_decode_or_refuse(kind, msgpack.packb(fields))


@pytest.mark.parametrize("message", wire.MESSAGES, ids=lambda message: message.__name__)
@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x81\xa1a", b"\x81\x91", b"\xdd\x00\x00\x00\x01"], ids=lambda b: b.hex()
)
@pytest.mark.parametrize("before", [b"", b"\x8f\xa1z"], ids=["header", "field"])
def test_deep_nesting_is_refused(message: type[wire.Message], opening: bytes, before: bytes) -> None:
    size = min(message.LIMIT, 1 << 17) - len(before)
    with pytest.raises(wire.WireError) as caught:
        wire.decode(message.TYPE, before + opening * (size // len(opening)))
    assert caught.value.reason in {"not_msgpack", "header_invalid"}


LARGE_CLAIMS = [b"\xdb", b"\xc6", b"\xdd", b"\xdf", b"\xc9"]  # str32, bin32, array32, map32, ext32


@pytest.mark.parametrize("message", wire.MESSAGES, ids=lambda message: message.__name__)
@pytest.mark.parametrize("opening", LARGE_CLAIMS, ids=lambda b: b.hex())
def test_a_large_declared_length_takes_no_memory(message: type[wire.Message], opening: bytes) -> None:
    claims = opening + b"\xff\xff\xff\xff"
    headers = [claims, b"\x81\xa1z" + claims]
    headers += [b"\x81" + msgpack.packb(field.encode_name) + claims for field in fields_of(message)]
    tracemalloc.start()
    try:
        for header in headers:
            with pytest.raises(wire.WireError):
                wire.decode(message.TYPE, header)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("message", wire.MESSAGES, ids=lambda message: message.__name__)
def test_header_limit(message: type[wire.Message]) -> None:
    vector = next(vector for vector in VALID if vector["message"] == message.__name__)
    room = message.LIMIT - len(msgpack.packb(vector["header"] | {"padding": b""}, use_bin_type=True))
    most = msgpack.packb(vector["header"] | {"padding": bytes(room - 4)})
    padding = room - 4 + message.LIMIT - len(most)
    assert wire.decode(message.TYPE, msgpack.packb(vector["header"] | {"padding": bytes(padding)}))
    with pytest.raises(wire.WireError, match=r"^header_too_large: "):
        wire.decode(message.TYPE, msgpack.packb(vector["header"] | {"padding": bytes(padding + 1)}))


def test_the_longest_reject_fits_its_header() -> None:
    key = wire.Key("\U0001f600" * 64, "\U0001f600" * 64, 2**63 - 1)
    error = wire.WireError("header_invalid", "\U0001f600" * 5000)
    kind, header = wire.encode(wire.Reject(reason=error.reason, detail=error.detail, key=key))
    assert wire.decode(kind, header).key == key


def test_a_payload_inside_the_header_may_be_of_its_limit() -> None:
    vector = next(vector for vector in VALID if vector["name"] == "frame with its payload inside")
    header = vector["header"] | {"payload": bytes(wire.INLINE_LIMIT), "len": wire.INLINE_LIMIT}
    assert len(wire.decode(b"\x02", msgpack.packb(header)).payload) == wire.INLINE_LIMIT


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("tcp://127.0.0.1:7002", "tcp://127.0.0.1:7100"),
        ("tcp://broker.plant.example:7002", "tcp://broker.plant.example:7100"),
        ("tcp://[::1]:7002", "tcp://[::1]:7100"),
        ("tcp://*:7002", "tcp://*:7100"),
        ("ipc:///run/line/backend", "ipc:///run/line/backend-7100"),
        ("ipc://@line:1", "ipc://@line:1-7100"),
        ("inproc://backend", "inproc://backend-7100"),
    ],
)
def test_data_endpoint(backend: str, expected: str) -> None:
    assert wire.data_endpoint(backend, 7100) == expected
