import json
from dataclasses import fields

import jsonschema_rs
import pytest

from medglip.errors import RecordError
from medglip.records.masks import Rle
from medglip.records.record import (
    LATERALITIES,
    MODALITIES,
    PHRASE_KINDS,
    SPLITS,
    TEXT_KINDS,
    ImageRecord,
    Instance,
    Intensity,
    Keys,
    Origin,
    Phrase,
    Region,
    Text,
    VolumeRecord,
)  # fmt: skip
from medglip.shelf import shelf
from medglip.store.schema import (
    document_of,
    image_document,
    image_of,
    image_row,
    region_rows,
    text_rows,
    volume_document,
    volume_of,
    volume_row,
)  # fmt: skip

SCHEMA = json.loads((shelf("schemas") / "record.schema.json").read_text("utf-8"))


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_rows_and_documents_give_the_record_back(seed, make_picture, plain_picture):
    record = (plain_picture(1) if seed is None else make_picture(seed)).record
    document = image_document(image_row(record, 512, 99), region_rows(record), text_rows(record))
    plain = json.loads(json.dumps(document))
    assert plain == document_of(record)
    assert image_of(plain) == record


def test_a_volume_comes_back(volume):
    assert json.loads(json.dumps(volume_document(volume_row(volume)))) == document_of(volume)
    assert volume_of(json.loads(json.dumps(document_of(volume)))) == volume


@pytest.mark.parametrize(
    ("name", "kind"),
    [("image", ImageRecord), ("region", Region), ("volume", VolumeRecord), ("instance", Instance), ("phrase", Phrase),
     ("intensity", Intensity), ("keys", Keys), ("origin", Origin), ("text", Text), ("mask", Rle)],
)  # fmt: skip
def test_the_published_schema_has_the_fields_of_the_records(name, kind):
    part = SCHEMA["$defs"][name]
    later = {"answer"} if name == "text" else set()  # documents of schema 2.0 lack it
    assert set(part["properties"]) == set(part["required"]) | later == {field.name for field in fields(kind)}


def test_the_published_schema_has_the_words_of_the_records():
    parts = SCHEMA["$defs"]
    assert parts["modality"]["enum"] == list(MODALITIES)
    assert parts["laterality"]["enum"] == [*LATERALITIES, None]
    assert parts["image"]["properties"]["split"]["enum"] == list(SPLITS)
    assert parts["phrase"]["properties"]["kind"]["enum"] == list(PHRASE_KINDS)
    assert parts["text"]["properties"]["kind"]["enum"] == list(TEXT_KINDS)


def test_the_published_schema_admits_records_and_refuses_others(make_picture, plain_picture):
    checker = jsonschema_rs.validator_for(SCHEMA)
    document = document_of(make_picture(1).record)
    checker.validate(document)
    checker.validate(document_of(plain_picture(1).record))
    for change in ({"modality": "x-ray"}, {"bits": 12}, {"spacing_mm": [0.0, 1.0]}, {"licence": ""}, {"more": 1}):
        assert not checker.is_valid({**document, **change}), change


@pytest.mark.parametrize(
    ("change", "good"),
    [({}, True), ({"kind": "question"}, False), ({"kind": "question", "answer": " "}, False),
     ({"kind": "question", "answer": "No."}, True), ({"answer": ""}, True), ({"answer": "No."}, False),
     ({"answer": " "}, False)],
)  # fmt: skip
def test_records_and_published_schema_agree_which_texts_have_an_answer(change, good, plain_picture):
    text = {"text": "Is it there?", "kind": "caption", "language": "en", "spans": [], **change}
    document = {**document_of(plain_picture(1).record), "texts": [text]}
    assert jsonschema_rs.validator_for(SCHEMA).is_valid(document) == good
    if good:
        assert image_of(document).texts == (Text("Is it there?", text["kind"], answer=text.get("answer", "")),)
    else:
        with pytest.raises(RecordError, match="answer"):
            image_of(document)


def test_sides_in_mm_follow_the_spacing_and_are_unknown_without(make_picture, plain_picture):
    picture = make_picture(1)
    for region, row in zip(picture.record.regions, region_rows(picture.record), strict=True):
        x0, y0, x1, y1 = region.box_xyxy
        assert (row["width_mm"], row["height_mm"]) == pytest.approx(((x1 - x0) * 0.7, (y1 - y0) * 0.7))
    bare = plain_picture(1, regions=(Region("abdomen.liver", (0, 0, 1, 1)),)).record
    assert region_rows(bare)[0]["width_mm"] is None


def test_an_attribute_that_is_no_plain_value_is_refused(plain_picture):
    record = plain_picture(1, regions=(Region("abdomen.liver", (0, 0, 1, 1), attributes={"a": float("nan")}),)).record
    with pytest.raises(RecordError, match="attributes"):
        region_rows(record)
