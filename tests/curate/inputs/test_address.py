"""Addresses of picture archives: what they say, and what is refused."""

import pytest
from pydicom.dataset import Dataset

from medglip.curate.inputs.address import STUDY_KEYS, asked_of
from medglip.errors import InputError


def test_what_an_address_says():
    asked = asked_of(
        "dimse://MAIN%20PACS@pacs.example:11112?calling=ME&by=move&listen=4000&Modality=CT&Modality=SEG&PatientID=a%20b"
    )
    assert (asked.host, asked.port, asked.called) == ("pacs.example", 11112, "MAIN PACS")
    assert asked.filters == {"Modality": ("CT", "SEG"), "PatientID": ("a b",)}
    assert asked.options == {"calling": "ME", "by": "move", "listen": "4000"}
    assert asked.study_queries() == [{"PatientID": "a b"}]
    assert asked.series_query() == {}


@pytest.mark.parametrize(
    ("address", "port"), [("dicomweb://h/p", 80), ("dicomwebs://h/p", 443), ("dimse://A@h", 104), ("dicomweb://h:1/", 1)]
)
def test_ports(address, port):
    assert asked_of(address).port == port


def test_each_allowed_value_is_a_query_of_its_own():
    asked = asked_of("dicomweb://h/p?StudyInstanceUID=1.2&StudyInstanceUID=1.3&PatientID=x")
    assert [query["StudyInstanceUID"] for query in asked.study_queries()] == ["1.2", "1.3"]


def test_order_and_options_do_not_change_what_is_asked():
    first = asked_of("dicomweb://h/p?PatientID=x&Modality=CT&Modality=MR&timeout=5")
    second = asked_of("dicomweb://H:80/p?Modality=MR&Modality=CT&PatientID=x")
    assert first.canonical == second.canonical
    assert first.canonical != asked_of("dicomweb://h/p?PatientID=y&Modality=CT&Modality=MR").canonical


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("PatientID=P1", True), ("PatientID=P2", False), ("PatientID=P*", True), ("PatientID=P?", True),
        ("PatientID=P2&PatientID=P1", True), ("PatientID=[P]1", False),
        ("StudyDate=20200101-20201231", True), ("StudyDate=20200701-", False), ("StudyDate=-20200630", True),
        ("StudyDate=20200615", True), ("ModalitiesInStudy=SEG", True), ("ModalitiesInStudy=MR", False),
        ("AccessionNumber=7", True), ("PatientName=any", True),
    ],
)  # fmt: skip
def test_answers_are_looked_through(query, fits):
    answer = Dataset()
    answer.PatientID, answer.StudyDate, answer.ModalitiesInStudy, answer.PatientName = "P1", "20200615", ["CT", "SEG"], "A^B"
    assert asked_of(f"dicomweb://h/p?{query}").fits(answer, STUDY_KEYS) is fits


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("dicomweb:///path", "names no host"),
        ("dicomweb://h:99999/p", "its port"),
        ("dicomweb://h:abc/p", "its port"),
        ("dicomweb://h/p?PatientId=1", "unknown word 'PatientId'"),
        ("dicomweb://h/p?calling=ME", "unknown word 'calling'"),
        ("dicomweb://h/p?PatientID=", "has no value"),
        ("dimse://h:104", "called AE title is ''"),
        ("dimse://SEVENTEEN_LETTERS@h:104", "called AE title"),
        ("dimse://A@h?by=store", "by is 'store'"),
        ("dimse://A@h?by=move", "needs listen=PORT"),
        ("dimse://A@h?timeout=soon", "timeout is 'soon'"),
    ],
)
def test_a_wrong_address_is_refused_with_its_grammar(address, message):
    with pytest.raises(InputError, match=message) as caught:
        asked_of(address)
    assert "write it as " in str(caught.value)


@pytest.mark.parametrize("address", ["dicomweb://me:secret@h/p", "dicomweb://me@h/p", "dimse://A:secret@h"])
def test_a_password_in_an_address_is_refused_and_not_repeated(address):
    with pytest.raises(InputError, match="take them out of the address") as caught:
        asked_of(address)
    assert "secret" not in str(caught.value)
