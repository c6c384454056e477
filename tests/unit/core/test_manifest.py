import dataclasses
import json

import pytest
from hypothesis import given

from sessions.core.errors import ManifestFormatError
from sessions.core.manifest import MAX_MISSING_RANGES, Manifest, from_bytes, from_json, metadata_sha256
from tests.strategies import json_values, manifests
from tests.unit.core import reference

MANIFEST = Manifest(
    session_id="session-1",
    chunk_count=10,
    missing=((0, 1), (3, 3), (9, 9)),
    plaintext_bytes=100,
    envelope_bytes=900,
    root=bytes(range(32)),
    opened_at="2026-01-31T22:15:00.000Z",
    sealed_at="2026-01-31T23:59:59.999Z",
    sealed_by="recorder",
    metadata_sha256=bytes(32),
)


@given(manifests())
def test_manifest_to_bytes_and_json_and_back(manifest):
    assert from_bytes(manifest.to_bytes()) == manifest
    assert from_json(manifest.to_json()) == manifest
    assert from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    assert from_bytes(manifest.to_bytes()).to_bytes() == manifest.to_bytes()


@given(manifests())
def test_the_canonical_bytes_are_rfc_8785(manifest):
    assert manifest.to_bytes() == reference.canonical(manifest.to_json())


@given(manifests(), manifests())
def test_different_manifests_have_different_leaves(one, other):
    assert (one == other) == (one.leaf_hash() == other.leaf_hash()) == (one.sha256() == other.sha256())


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Manifest)])
def test_every_member_is_needed(field):
    value = MANIFEST.to_json()
    del value[field]
    with pytest.raises(ManifestFormatError, match=f"lacks {field}"):
        from_json(value)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", 2),
        ("version", True),
        ("session_id", "/"),
        ("session_id", 1),
        ("chunk_count", -1),
        ("chunk_count", 2**53),
        ("chunk_count", 9),
        ("missing", None),
        ("missing", [1]),
        ("missing", [[1]]),
        ("missing", [[1, 2, 3]]),
        ("missing", [[0, True]]),
        ("missing", [[2, 1]]),
        ("missing", [[-1, 1]]),
        ("missing", [[0, 10]]),
        ("missing", [[0, 1], [2, 2]]),
        ("missing", [[3, 3], [0, 0]]),
        ("missing", [[0, 0]] * (MAX_MISSING_RANGES + 1)),
        ("plaintext_bytes", -1),
        ("envelope_bytes", 1.0),
        ("root", "00"),
        ("opened_at", "2026-01-31"),
        ("sealed_at", None),
        ("sealed_by", "somebody"),
        ("metadata_sha256", "A" * 64),
        ("note", "more"),
    ],
)
def test_what_is_no_manifest(member, value):
    with pytest.raises(ManifestFormatError):
        from_json(MANIFEST.to_json() | {member: value})


@pytest.mark.parametrize("spelling", [{"indent": 1}, {"separators": (", ", ":")}, {"separators": (",", ":")}])
def test_another_spelling_of_the_same_object_is_refused(spelling):
    data = json.dumps(MANIFEST.to_json(), **spelling).encode()
    assert from_json(json.loads(data)) == MANIFEST
    with pytest.raises(ManifestFormatError, match="canonical"):
        from_bytes(data)


def test_bytes_that_are_no_json_are_refused():
    with pytest.raises(ManifestFormatError, match="not JSON"):
        from_bytes(MANIFEST.to_bytes()[:-1])


@given(json_values)
def test_metadata_has_one_hash_whatever_its_order(value):
    assert metadata_sha256({"a": value, "b": 1}) == metadata_sha256({"b": 1, "a": value})


def _nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": 2**53},
        {"a": float("nan")},
        {"a": b"bytes"},
        {"a": "\ud800"},
        {"\ud800": 1, "b": 2},
        {1: "a"},
        _nested(100_000),
    ],
    ids=["large", "nan", "bytes", "surrogate", "surrogate-name", "number-name", "deep"],
)
def test_metadata_without_a_canonical_form(metadata):
    with pytest.raises(ManifestFormatError, match="the metadata has no canonical form"):
        metadata_sha256(metadata)
