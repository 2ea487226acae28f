import pyarrow as pa
import pytest

from medglip.store.checks.privacy import PATTERNS, absolute_paths, traces

FOUND = [
    ("1.2.840.10008.5.1.4.1.1.2", "a DICOM UID"),
    ("of 20090214", "a date"),
    ("2009-02-14", "a date"),
    ("14.02.2009", "a date"),
    ("02/14/2009", "a date"),
    ("2009/2/14", "a date"),
    ("3.5.2009", "a date"),
    ("14-FEB-2009", "a date"),
    ("14 February 2009", "a date"),
    ("seen on Feb 4th, 2009", "a date"),
    ("12. März 2009", "a date"),
    ("DOE^JOHN", "a person's name"),
    ("Müller^Jürgen", "a person's name"),
    ("O'Neill^^Anna", "a person's name"),
    ("山田^太郎", "a person's name"),
    ("asked by Dr. Smith", "a name with a title"),
    ("asked by Frau Huber", "a name with a title"),
    ("PatientName: Doe", "a patient's name or number"),
    ('{"PatientID": "x1"}', "a patient's name or number"),
    ("(0010,0010) = Doe", "a patient's name or number"),
    ("patient's name: Doe", "a patient's name or number"),
    ("MRN# 12", "a patient's name or number"),
    ("MRN A1234", "a patient's name or number"),
    ("Date of birth: March", "a patient's name or number"),
    ("(0010,1040) = street", "a patient's name or number"),
    ("123-45-6789", "a social security or telephone number"),
    ("call +49 89 1234 5678", "a social security or telephone number"),
    ("jane.doe@hospital.example.org", "an e-mail address"),
    ("see /home/jane/scan.dcm", "an absolute path"),
    ("C:\\\\Users\\\\jane", "an absolute path"),
    ("record 12345678 of", "a number like those of hospitals' patients"),
    ("is 1234567.", "a number like those of hospitals' patients"),
]
CLEAN = [
    "left kidney", "12.5 mm", "abdomen.kidney@left", "T2 FLAIR", "area 123456 px", "1.2345678", "0.12345678 mm",
    "slice 12 of 240",
    "The patient is well.", "the DICOM file has no PatientID", "ratio 1/2", "a/b/c.png", "version 1.2.3", "3 x 4 x 5",
    "2009", "grade III/IV", "120.000", "identified", "and/or",
    "drs. and ms. are titles", "5 ms Echo", "may 12 lesions", "10^6 cells", "T1^T2", "2 to 12-2009", "1/2/3", "grade 3-5-2",
    "in March 2009", "PI-RADS 4-5", "+12 HU", "5-10-15 mm",
]  # fmt: skip


@pytest.mark.parametrize(("text", "what"), FOUND)
def test_what_may_name_a_patient_is_found(text, what):
    table = pa.table({"text": ["fine", text, None], "phrases": [["fine"], [], ["fine", text]]})
    found = [(trace.row, trace.column) for trace in traces(table) if trace.what == what]
    assert found == [(1, "text"), (2, "phrases")]


@pytest.mark.parametrize("text", CLEAN)
def test_words_of_medicine_are_left_alone(text):
    assert list(traces(pa.table({"text": [text]}))) == []


def test_where_a_string_stands_decides_how_bad_it_is():
    table = pa.table({
        "file": ["1.2.840.10008.5.1.4/20090214_12345678.dcm"], "attributes": ['{"count": 12345678}'],
        "text": ["Case courtesy of Dr Smith"],
    })  # fmt: skip
    assert {(trace.column, trace.what, trace.mild) for trace in traces(table)} == {
        ("file", "a DICOM UID", True),
        ("file", "a date", True),
        ("attributes", "a number like those of hospitals' patients", True),
        ("text", "a name with a title", True),
    }


def test_hashes_and_own_words_are_not_searched():
    assert list(traces(pa.table({"patient": ["2009-02-14"], "concept": ["2009-02-14"], "n": [20090214]}))) == []


def test_a_problem_never_repeats_what_it_found():
    batch = pa.RecordBatch.from_pydict({"id": ["r1"], "image_id": ["i1"], "phrases": [["DOE^JOHN"]]})
    [trace] = traces(pa.Table.from_batches([batch]))
    problem = trace.problem("regions row 0", batch)
    assert (problem.level, problem.image, problem.region, problem.check) == ("error", "i1", "r1", "privacy")
    assert "DOE" not in problem.where + problem.what


def test_paths_inside_json_are_found():
    assert list(absolute_paths({"a": ["x/y", {"/home/me/x": 1}], "b": ("C:/data/x",)})) == ["/home/me/x", "C:/data/x"]
    assert set(PATTERNS) == {what for _, what in FOUND}
