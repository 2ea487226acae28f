"""DIMSE against a small service of our own that can misbehave; tests/curate/inputs/test_services.py has a real one."""

import socket
import time
from collections import Counter

import pydicom
import pytest

from medglip.curate.inputs import opened_input
from medglip.errors import InputError

pytest.importorskip("pynetdicom", reason="DIMSE needs the extra `dicomweb`")

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
MODELS = {
    "find": StudyRootQueryRetrieveInformationModelFind,
    "get": StudyRootQueryRetrieveInformationModelGet,
    "move": StudyRootQueryRetrieveInformationModelMove,
}


class Pacs:
    """Serves slices; ``keeps_back(uid)`` names those it does not send."""

    def __init__(self, slices, offers=("find", "get", "move")):
        self.slices, self.keeps_back, self.listen, self.sent, self.hang_up = slices, lambda uid: False, 0, Counter(), 0
        ae = AE("PACS")
        ae.require_called_aet = True
        for offer in offers:
            ae.add_supported_context(MODELS[offer])
        ae.add_supported_context(CTImageStorage, [ExplicitVRLittleEndian], scu_role=True, scp_role=True)
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        handlers = [(evt.EVT_C_FIND, self.find), (evt.EVT_C_GET, self.get), (evt.EVT_C_MOVE, self.move)]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.url = f"dimse://PACS@127.0.0.1:{self.server.socket.getsockname()[1]}?timeout=3"

    def fitting(self, identifier):
        keys = [key for key in LEVELS.values() if identifier.get(key)]
        return [item for item in self.slices if all(item[key].value == identifier[key].value for key in keys)]

    def find(self, event):
        level = LEVELS[event.identifier.QueryRetrieveLevel]
        rows = {str(item[level].value): item for item in self.fitting(event.identifier)}
        for item in rows.values():
            answer = pydicom.Dataset()
            for element in event.identifier:
                if element.keyword != "QueryRetrieveLevel":
                    setattr(answer, element.keyword, item.get(element.keyword, ""))
            yield 0xFF00, answer

    def retrieve(self, event):
        if self.hang_up:
            self.hang_up -= 1
            event.assoc.abort()
            return
        found = self.fitting(event.identifier)
        yield len(found)
        for item in found:
            if self.keeps_back(item.SOPInstanceUID):
                yield 0xC000, None
                return
            self.sent[item.SOPInstanceUID] += 1
            yield 0xFF00, item

    def get(self, event):
        yield from self.retrieve(event)

    def move(self, event):
        if event.move_destination.strip() != "MEDGLIP":
            yield None, None
            return
        yield "127.0.0.1", self.listen
        yield from self.retrieve(event)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


@pytest.fixture(scope="module")
def served(make_slice):
    service = Pacs([make_slice("A", series, number) for series in "12" for number in range(3)])
    yield service
    service.server.shutdown()


@pytest.fixture
def pacs(served, monkeypatch):
    monkeypatch.setattr("medglip.curate.inputs.dimse._PAUSE", 0.01)
    served.listen, served.keeps_back, served.hang_up = free_port(), lambda uid: False, 0
    served.sent.clear()
    return served


def got(folder):
    return {str(data.SOPInstanceUID): data for data in map(pydicom.dcmread, folder.rglob("*.dcm"))}


@pytest.mark.parametrize("by", ["get", "move"])
def test_all_that_fits_comes_as_it_was(pacs, by):
    extra = f"&by=move&listen={pacs.listen}" if by == "move" else ""
    with opened_input(pacs.url + extra) as folder:
        assert got(folder) == {str(item.SOPInstanceUID): item for item in pacs.slices}


def test_one_series_of_a_study(pacs):
    wanted = pacs.slices[0].SeriesInstanceUID
    with opened_input(f"{pacs.url}&SeriesInstanceUID={wanted}&Modality=CT&Modality=MR") as folder:
        assert {data.SeriesInstanceUID for data in got(folder).values()} == {wanted}
        assert len(got(folder)) == 3


def test_what_is_there_is_not_fetched_again(pacs, tmp_path):
    with opened_input(pacs.url, tmp_path) as folder:
        one = min(folder.rglob("*.dcm"))
        uid = str(pydicom.dcmread(one).SOPInstanceUID)
        one.unlink()
    with opened_input(pacs.url, tmp_path) as folder:
        assert len(got(folder)) == 6
    assert {name for name, times in pacs.sent.items() if times == 2} == {uid}


@pytest.mark.parametrize("by", ["get", "move"])
def test_an_instance_that_does_not_come_is_told_and_the_others_are_there(pacs, by):
    bad = pacs.slices[1].SOPInstanceUID
    pacs.keeps_back = lambda uid: uid == bad
    lost = []
    extra = f"&by=move&listen={pacs.listen}" if by == "move" else ""
    with opened_input(pacs.url + extra, on_lost=lost.append) as folder:
        assert set(got(folder)) == {str(item.SOPInstanceUID) for item in pacs.slices} - {bad}
    assert [entry.reason for entry in lost] == ["not_retrieved"]
    assert "status 0x" in lost[0].detail
    assert bad not in repr(lost)


def test_a_broken_association_is_made_again(pacs):
    pacs.hang_up = 1
    with opened_input(pacs.url) as folder:
        assert len(got(folder)) == 6


def test_a_wrong_called_title_is_refused(pacs):
    with (
        pytest.raises(InputError, match=r"refuses the association of 'MEDGLIP' \(Called AE title not recognised\)"),
        opened_input(pacs.url.replace("PACS@", "OTHER@")),
    ):
        pass


def test_a_service_without_get_says_to_use_move(make_slice):
    service = Pacs([make_slice("A", "1", 0)], offers=["find"])
    try:
        with pytest.raises(InputError, match=r"does not offer .* GET.*use by=move"), opened_input(service.url):
            pass
    finally:
        service.server.shutdown()


def test_an_unknown_place_to_send_to_is_told(pacs):
    with (
        pytest.raises(InputError, match=r"sends nothing: .*does not know the calling AE title"),
        opened_input(f"{pacs.url}&by=move&listen={pacs.listen}&calling=STRANGER"),
    ):
        pass


def test_our_port_is_taken(pacs):
    with (
        socket.create_server(("127.0.0.1", pacs.listen)),
        pytest.raises(InputError, match="cannot be used for C-MOVE"),
        opened_input(f"{pacs.url}&by=move&listen={pacs.listen}"),
    ):
        pass


def test_nothing_that_fits(pacs):
    with pytest.raises(InputError, match="holds nothing that fits"), opened_input(f"{pacs.url}&StudyInstanceUID=1.2.3"):
        pass


def test_a_service_that_is_silent_does_not_hang(monkeypatch):
    monkeypatch.setattr("medglip.curate.inputs.dimse._PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        with (
            pytest.raises(InputError, match="does not answer a query"),
            opened_input(f"dimse://PACS@127.0.0.1:{silent.getsockname()[1]}?timeout=0.3"),
        ):
            pass
        assert time.monotonic() - begin < 15


def test_nobody_there():
    with (
        pytest.raises(InputError, match="cannot be reached; check host"),
        opened_input(f"dimse://PACS@127.0.0.1:{free_port()}"),
    ):
        pass


def test_an_unknown_host():
    with pytest.raises(InputError, match="cannot be reached: "), opened_input("dimse://PACS@nowhere.invalid:104"):
        pass
