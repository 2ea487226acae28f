"""DICOMweb against a small server of our own that can misbehave; tests/curate/inputs/test_services.py has a real one."""

import io
import json
import re
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest

from medglip.curate.inputs import LostWarning, opened_input
from medglip.errors import InputError

pytest.importorskip("dicomweb_client", reason="DICOMweb needs the extra `dicomweb`")


class Server(ThreadingHTTPServer):
    """Serves slices; ``wrong(path, times)`` may answer with a status, ``"cut"``, ``"swap"`` or ``"text"`` instead."""

    def __init__(self, slices):
        super().__init__(("127.0.0.1", 0), Handler)
        self.slices, self.page, self.wrong = slices, 1000, lambda path, times: None
        self.asked, self.headers, self.queries = Counter(), [], []
        self.url = f"dicomweb://127.0.0.1:{self.server_port}/dw"
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def rows(self, path):
        ids = re.findall(r"/(?:studies|series|instances)/([\d.]+)", path)
        keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        level = path.count("/") // 2
        rows = {}
        for item in self.slices:
            if all(str(item[key].value) == uid for key, uid in zip(keys, ids, strict=False)):
                told = pydicom.Dataset()
                for key in (keys[level], "PatientID", "Modality"):
                    told[key] = item[key]
                rows[str(item[keys[level]].value)] = told.to_json_dict()
        return list(rows.values())


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, parts = self.server, urlsplit(self.path)
        server.asked[parts.path] += 1
        server.queries.append(parts.query)
        server.headers.append(dict(self.headers))
        wrong = server.wrong(parts.path, server.asked[parts.path])
        if isinstance(wrong, int):
            return self.answer(b"", "text/plain", wrong)
        if wrong == "text":
            return self.answer(b"<html>hello</html>", "text/html")
        path = parts.path.removeprefix("/dw")
        if re.search(r"/instances/[\d.]+$", path):
            return self.instance(path.rpartition("/")[2], wrong)
        query = parse_qs(parts.query)
        start = int(query.get("offset", ["0"])[0])
        rows = server.rows(path)[start : start + server.page]
        return self.answer(json.dumps(rows).encode(), "application/dicom+json")

    def instance(self, uid, wrong):
        item = next(one for one in self.server.slices if (one.SOPInstanceUID == uid) != (wrong == "swap"))
        stream = io.BytesIO()
        item.save_as(stream, enforce_file_format=True)
        body = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + stream.getvalue() + b"\r\n--B--"
        if wrong == "garbage":
            body = b"--B\r\nContent-Type: application/dicom\r\n\r\nno dicom\r\n--B--"
        self.answer(body, 'multipart/related; type="application/dicom"; boundary=B', cut=wrong == "cut")

    def answer(self, body, kind, status=200, cut=False):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = cut


@pytest.fixture
def server(make_slice, monkeypatch):
    for name in ("MEDGLIP_DICOMWEB_TOKEN", "MEDGLIP_DICOMWEB_USER", "MEDGLIP_DICOMWEB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "nowhere")
    slices = [make_slice("A", "1", number) for number in range(5)]
    slices += [make_slice("B", "1", number, patient="phantom-2", modality="MR") for number in range(3)]
    with Server(slices) as server:
        yield server
        server.shutdown()


def uids(folder):
    return sorted(str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.rglob("*") if path.is_file())


def test_what_is_asked_for_comes_as_it_was_without_ids_in_names(server, tmp_path):
    steps = []
    with opened_input(f"{server.url}?PatientID=phantom-2", tmp_path, lambda *step: steps.append(step)) as folder:
        files = sorted(folder.rglob("*.dcm"))
        assert len(files) == 3  # the server ignores what it is asked; its answers are looked through
        for path in files:
            got = pydicom.dcmread(path)
            sent = next(item for item in server.slices if item.SOPInstanceUID == got.SOPInstanceUID)
            assert got == sent
            assert re.fullmatch(r"[0-9a-f]{16}/[0-9a-f]{16}/[0-9a-f]{16}\.dcm", path.relative_to(folder).as_posix())
    assert steps[-1] == (1, 1, "3 instances fetched")
    with opened_input(server.url.replace("dicomweb://", "dicomweb:/")) as folder:  # as pathlib writes it
        assert uids(folder) == sorted(item.SOPInstanceUID for item in server.slices)


@pytest.mark.parametrize(("query", "count"), [("Modality=CT", 5), ("Modality=CT&Modality=MR", 8), ("Modality=C*", 5)])
def test_series_are_chosen_by_modality(server, query, count):
    with opened_input(f"{server.url}?{query}") as folder:
        assert len(uids(folder)) == count


@pytest.mark.parametrize("page", [1, 2, 5])
def test_services_that_give_small_pages_are_asked_again(server, page):
    server.page = page
    with opened_input(server.url) as folder:
        assert len(uids(folder)) == 8


def test_a_stopped_run_goes_on_and_fetches_nothing_twice(server, tmp_path):
    def stop(done, total, note):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened_input(server.url, tmp_path, stop):
        pass
    for _ in range(2):
        with opened_input(server.url, tmp_path) as folder:
            assert len(uids(folder)) == 8
    fetched = {path: times for path, times in server.asked.items() if re.search(r"/instances/[\d.]+$", path)}
    assert set(fetched.values()) == {1}
    assert len(fetched) == 8


@pytest.mark.parametrize("wrong", [503, 429, "cut"])
def test_what_passes_is_tried_again(server, wrong):
    server.wrong = lambda path, times: wrong if re.search(r"/instances/[\d.]+$", path) and times == 1 else None
    with opened_input(server.url) as folder:
        assert len(uids(folder)) == 8


@pytest.mark.parametrize(
    ("wrong", "detail"), [(404, "status 404"), (500, "status 500"), ("swap", "another instance"), ("garbage", "no DICOM file"),
                          ("cut", "connection broke")]
)  # fmt: skip
def test_an_instance_that_does_not_come_is_told_and_the_others_are_there(server, wrong, detail, tmp_path):
    bad = str(server.slices[2].SOPInstanceUID)
    server.wrong = lambda path, times: wrong if path.endswith(bad) else None
    lost = []
    with opened_input(server.url, tmp_path, on_lost=lost.append) as folder:
        assert uids(folder) == sorted(item.SOPInstanceUID for item in server.slices if item.SOPInstanceUID != bad)
    assert [entry.reason for entry in lost] == ["not_retrieved"]
    assert detail in lost[0].detail
    assert bad not in repr(lost)
    server.wrong = lambda path, times: None
    with opened_input(server.url, tmp_path, on_lost=lost.append) as again:
        assert (again / lost[0].file).is_file()
    assert len(lost) == 1
    server.wrong = lambda path, times: wrong if path.endswith(bad) else None
    with pytest.warns(LostWarning, match="run the command again|ask those who run it"), opened_input(server.url):
        pass


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(401, "MEDGLIP_DICOMWEB_TOKEN"), (403, "refuses us"), (404, "check the path"), (500, "status 500"),
     ("text", "does not answer as a DICOMweb service")],
)  # fmt: skip
def test_a_service_that_refuses_is_told_in_one_sentence(server, wrong, message):
    server.wrong = lambda path, times: wrong
    with pytest.raises(InputError, match=message), opened_input(server.url):
        pass


def test_nothing_that_fits_and_nothing_that_comes(server):
    with pytest.raises(InputError, match="holds nothing that fits"), opened_input(f"{server.url}?PatientID=nobody"):
        pass
    server.wrong = lambda path, times: 500 if re.search(r"/instances/[\d.]+$", path) else None
    with pytest.raises(InputError, match="sent none of 8 instances"), opened_input(server.url):
        pass


def test_nobody_there(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="cannot be reached; check host, port and network"), opened_input(server.url):
        pass


@pytest.mark.parametrize("way", ["token", "user", "netrc"])
def test_credentials_are_sent_and_written_nowhere(server, tmp_path, monkeypatch, way):
    if way == "token":
        monkeypatch.setenv("MEDGLIP_DICOMWEB_TOKEN", "s3cret")
    elif way == "user":
        monkeypatch.setenv("MEDGLIP_DICOMWEB_USER", "me")
        monkeypatch.setenv("MEDGLIP_DICOMWEB_PASSWORD", "s3cret")
    else:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with opened_input(server.url, tmp_path / "scratch"):
        pass
    expected = "Bearer s3cret" if way == "token" else "Basic bWU6czNjcmV0"
    assert {headers.get("Authorization") for headers in server.headers} == {expected}
    assert all(b"s3cret" not in path.read_bytes() for path in (tmp_path / "scratch").rglob("*") if path.is_file())


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dicomweb_client", None)
    monkeypatch.delitem(__import__("sys").modules, "medglip.curate.inputs.dicomweb", raising=False)
    monkeypatch.delattr("medglip.curate.inputs.dicomweb", raising=False)
    with (
        pytest.raises(InputError, match=r"needs the package 'dicomweb_client'.*medglip\[dicomweb\]"),
        opened_input("dicomweb://127.0.0.1:1/dicom-web"),
    ):
        pass


def test_wildcards_and_spaces_are_sent_as_servers_understand_them(server):
    with opened_input(f"{server.url}?PatientID=ph%61ntom-?&Modality=C*&StudyDescription=two%20words%2B"):
        pass
    studies, series = server.queries[0].split("&"), server.queries[2].split("&")
    assert {"PatientID=phantom-?", "StudyDescription=two%20words%2B"} <= set(studies)
    assert "Modality=C*" in series


def test_a_service_that_stays_busy_ends_the_run_which_can_go_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *args: None)
    bad = str(server.slices[2].SOPInstanceUID)
    server.wrong = lambda path, times: 503 if path.endswith(bad) else None
    with pytest.raises(InputError, match="too busy, or not up"), opened_input(server.url, tmp_path):
        pass
    server.wrong = lambda path, times: None
    with opened_input(server.url, tmp_path) as folder:
        assert len(uids(folder)) == 8
    assert max(times for path, times in server.asked.items() if "/instances/" in path and not path.endswith(bad)) == 1
