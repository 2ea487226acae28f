"""Sources of reports, grounded sentences and questions in their published layouts, generated tiny."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from images_world import A, B, C, World, check, check_dataset, records_of, scene, write

from medglip.records import ImageRecord, Text

EFFUSION, ATELECTASIS, PNEUMONIA = "thorax.pleura.effusion", "thorax.lung.atelectasis", "thorax.lung.pneumonia"
SLIGHTLY_OFF = (9, 8, 24, 24)  # what a second reader drew for A
FRAME = (64, 48, 64, 48)


def fractions(window: tuple[int, int, int, int]) -> list[float]:
    return [side / whole for side, whole in zip(window, FRAME, strict=True)]


def deep(seed: int) -> np.ndarray:
    return scene(seed, colours=False).astype(np.uint16) * 200


def ms_cxr() -> World:
    def path(patient: str, study: str, name: str) -> str:
        return f"files/{patient[:3]}/{patient}/{study}/{name}.jpg"

    seen, twice = path("p10046166", "s50051329", "abea5eb9-b7c32823"), path("p10046166", "s57379357", "6e511483-c7e1601c")
    other, rest = path("p11000001", "s50000001", "00000000-aaaaaaaa"), path("p19999999", "s59999999", "ffffffff-ffffffff")
    head = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"

    def row(image: str, label: str, words: str, window: tuple[int, int, int, int], split: str, times: int = 1) -> str:
        x0, y0, x1, y1 = (times * side for side in window)
        return f'{Path(image).stem},{label},"{words}",{image},{x0},{y0},{x1 - x0},{y1 - y0},{64 * times},{48 * times},{split}'

    rows = [
        row(seen, "Pleural Effusion", "small left pleural effusion, unchanged", A, "test"),
        row(twice, "Pneumonia", "multifocal pneumonia", A, "test"), row(twice, "Pneumonia", "multifocal pneumonia", B, "test"),
        row(twice, "Atelectasis", "left basilar atelectasis", B, "test"),
        row(other, "Edema", "mild edema", C, "train", times=4),  # the image is there a quarter as large
        row(path("p12345678", "s51111111", "missing0-missing0"), "Edema", "mild edema", C, "val"),
    ]  # fmt: skip
    files: dict[str, object] = {name: scene(number, colours=False) for number, name in enumerate((seen, twice, other, rest))}
    files["MS_CXR_Local_Alignment_v1.1.0.csv"] = "\n".join([head, *rows])
    shown = {
        seen: [(EFFUSION, A)],
        twice: [(ATELECTASIS, B), (PNEUMONIA, A), (PNEUMONIA, B)],
        other: [("thorax.lung.edema", C)],
    }
    return World(
        "xray_ms_cxr", files, shown, splits={seen: "test", twice: "test", other: "train"}, groups=({seen, twice}, {other})
    )


def padchest_gr() -> World:
    names = ["106997070894779966614346591942916625787_fsxv2a", "216840111366964012283393834152009033102258826_00-014-084"]

    def finding(words: tuple[str, str], labels: list[str], boxes: list, extra: list, *, abnormal: bool = True) -> dict:
        return {"sentence_en": words[0], "sentence_es": words[1], "abnormal": abnormal, "boxes": boxes, "extra_boxes": extra,
                "labels": labels, "locations": ["pleural"], "progression": None}  # fmt: skip

    first = [
        finding(("Left pleural effusion.", "Derrame pleural izquierdo."), ["pleural effusion"], [fractions(A)],
                [fractions(SLIGHTLY_OFF), fractions(C)]),
        finding(("No pneumothorax.", "Sin neumotorax."), ["Normal"], [], [], abnormal=False),
        finding(("Laminar atelectasis and consolidation.", "Atelectasia laminar y consolidacion."),
                ["laminar atelectasis", "consolidation"], [fractions(B)], []),
        finding(("Laminar atelectasis at both bases.", "Atelectasias laminares en ambas bases."), ["laminar atelectasis"],
                [fractions(B), fractions(C)], []),
    ]  # fmt: skip
    second = [finding(("Normal chest", "Torax normal"), ["Normal"], [], [], abnormal=False),
              finding(("A griffin.", "Un grifo."), ["griffin"], [fractions(A)], [])]  # fmt: skip
    reports = [{"StudyID": f"s{n}", "ImageID": f"{name}.png", "PreviousStudyID": None, "findings": found}
               for n, (name, found) in enumerate(zip(names, (first, second), strict=True))]  # fmt: skip
    head = "StudyID,ImageID,label,boxes_count,prior_study,sentence_en,study_is_benchmark,split,PatientID"
    table = [f's0,{names[0]}.png,pleural effusion,1,False,"Left, small.",True,train,7'] * 2
    folder = "Padchest_GR_files/PadChest_GR"
    files: dict[str, object] = {f"{folder}/{name}.png": deep(number) for number, name in enumerate(names)}
    files |= {"grounded_reports_20240819.json": json.dumps(reports, ensure_ascii=False),
              "master_table.csv": "\n".join([head, *table, f"s1,{names[1]}.png,Normal,0,False,,True,validation,8"]),
              "PadChest_GR_progression_prior_studies/0.png": deep(9)}  # fmt: skip
    marked, plain = (f"{folder}/{name}.png" for name in names)
    shown = {marked: [(ATELECTASIS, B), (ATELECTASIS, C), (EFFUSION, A)], plain: []}
    return World("xray_padchest_gr", files, shown, splits={marked: "train", plain: "val"}, groups=({marked}, {plain}),
                 reasons=("ambiguous_label", "unknown_label"))  # fmt: skip


def openi() -> World:
    root = "images/images_normalized/{}_IM-{}.dcm.png"
    images = [root.format("1", "0001-4001"), root.format("1", "0001-3001"), root.format("3", "1384-1001")]
    reports = (
        "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
        '1,normal,normal,Xray Chest PA and Lateral,Positive TB test,None.,"The heart is normal.\nLungs are clear, XXXX.",'
        "Normal chest x-XXXX.\n"
        "3,Cardiomegaly/mild,Cardiomegaly;Scoliosis,Chest,pain,,,Mild cardiomegaly.\n"
        "4,normal,normal,Chest,pain,,,No image of this one.\n"
    )
    table = "uid,filename,projection\n" + "".join(
        f"{Path(name).name.split('_')[0]},{Path(name).name},{view}\n"
        for name, view in zip(images, ("Frontal", "Lateral", "Frontal"), strict=True)
    )
    files: dict[str, object] = {name: scene(number, colours=False) for number, name in enumerate(images)}
    files |= {"indiana_reports.csv": reports, "indiana_projections.csv": table}
    return World("xray_iu_openi", files, {name: [] for name in images}, groups=(set(images[:2]), {images[2]}),
                 reasons=("missing_file",))  # fmt: skip


def slake() -> World:
    def entry(number: int, question: str, answer: object, language: str, modality: str) -> dict:
        return {"img_id": number, "img_name": f"xmlab{number}/source.jpg", "question": question, "answer": answer,
                "q_lang": language, "location": "Lung", "modality": modality, "answer_type": "OPEN", "base_type": "vqa",
                "content_type": "Organ", "triple": ["vhead", "_", "_"], "qid": number}  # fmt: skip

    train = [entry(1, "Which organ  is seen?", "Lung", "en", "X-Ray"), entry(1, "图中是什么器官?", "肺", "zh", "X-Ray"),
             entry(2, "Does the picture contain liver?", "Yes", "en", "CT"), entry(2, "How many kidneys?", 2, "en", "CT"),
             entry(2, "And this?", "", "en", "CT")]  # fmt: skip
    files: dict[str, object] = {f"Slake1.0/imgs/xmlab{number}/source.jpg": scene(number) for number in (1, 2, 3, 12)}
    files |= {f"Slake1.0/imgs/xmlab{number}/{name}": "[]" for number in (1, 2) for name in ("detection.json", "question.json")}
    files |= {
        "Slake1.0/train.json": json.dumps(train, ensure_ascii=False),
        "Slake1.0/validate.json": json.dumps([entry(12, "Where is the tumor?", "Brain", "en", "MRI")]),
        "Slake1.0/test.json": json.dumps([entry(99, "What is missing?", "The image", "en", "CT")]),
    }
    images = {number: f"Slake1.0/imgs/xmlab{number}/source.jpg" for number in (1, 2, 12)}
    return World("vqa_slake", files, {name: [] for name in images.values()},
                 splits={images[1]: "train", images[2]: "train", images[12]: "val"},
                 reasons=("missing_answer", "missing_file"))  # fmt: skip


def rad() -> World:
    def entry(image: str, organ: str, question: str, answer: object, kind: str = "freeform") -> dict:
        return {"qid": question, "phrase_type": kind, "qid_linked_id": "x", "image_case_url": "https://medpix.nlm.nih.gov/x",
                "image_name": image, "image_organ": organ, "evaluation": "evaluated", "question": question,
                "question_rephrase": "NULL", "question_relation": "NULL", "question_frame": "NULL", "question_type": "PRES",
                "answer": answer, "answer_type": "CLOSED "}  # fmt: skip

    entries = [
        entry("synpic54610.jpg", "HEAD", "Are regions infarcted?", "Yes"),
        entry("synpic1.jpg", "CHEST", "How many nodules?", 5),
        entry("synpic1.jpg", "CHEST", "Is there a nodule?", "yes ", "test_freeform"),
        entry("synpic2.jpg", "ABD", "Which organ?", "Liver"),
    ]
    images = [f"VQA_RAD Image Folder/synpic{name}.jpg" for name in ("54610", "1", "2")]
    files: dict[str, object] = {name: scene(number) for number, name in enumerate(images)}
    files["VQA_RAD Dataset Public.json"] = json.dumps(entries)
    return World("vqa_rad", files, {name: [] for name in images})


def mimic_cxr() -> World:
    study = "files/p10/p10000032/s50414267"
    other = "files/p10/p10000764/s57375967"
    images = [f"{study}/02aa804e-bde0afdd.jpg", f"{study}/174413ec-4ec4c1f7.jpg", f"{other}/096052b7-d256dc40.jpg"]
    rows = [f"{Path(name).stem},{name.split('/')[3][1:]},{name.split('/')[2][1:]},{split}"
            for name, split in zip(images, ("train", "train", "validate"), strict=True)]  # fmt: skip
    files: dict[str, object] = {name: scene(number, colours=False) for number, name in enumerate(images)}
    files |= {
        f"{study}.txt": "                                 FINAL REPORT\n EXAMINATION:  CHEST\n\n FINDINGS:  \n Clear, ___.\n",
        "mimic-cxr-2.0.0-split.csv.gz": gzip.compress("\n".join(["dicom_id,study_id,subject_id,split", *rows]).encode()),
    }
    splits = dict(zip(images, ("train", "train", "val"), strict=True))
    return World("xray_mimic_cxr", files, {name: [] for name in images}, splits=splits,
                 groups=(set(images[:2]), {images[2]}))  # fmt: skip


WORLDS = (mimic_cxr(), ms_cxr(), padchest_gr(), openi(), slake(), rad())


def texts_of(world: World, folder: Path) -> dict[str, tuple[ImageRecord, tuple[Text, ...]]]:
    records, _ = records_of(world.source, write(world.files, folder))
    return {name: (record, record.texts) for name, record in records.items()}


def spoken(record: ImageRecord, text: Text) -> list[tuple[str, list]]:
    """The words of each span, and the boxes that they mean."""
    boxes = {region.id: region.box_xyxy for region in record.regions}
    return [(text.text[span.start : span.end], sorted(boxes[one] for one in span.regions)) for span in text.spans]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_a_published_layout_gives_its_boxes_and_splits(world: World, tmp_path: Path) -> None:
    check(world, tmp_path)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_its_dataset_validates_clean(world: World, tmp_path: Path) -> None:
    check_dataset(world, tmp_path)


def test_a_sentence_of_ms_cxr_names_all_its_boxes_and_is_their_phrase(tmp_path: Path) -> None:
    found = texts_of(ms_cxr(), tmp_path)
    record, texts = next(pair for name, pair in found.items() if "s57379357" in name)
    assert [spoken(record, text) for text in texts] == [
        [("multifocal pneumonia", [A, B])], [("left basilar atelectasis", [B])],
    ]  # fmt: skip
    phrases = {
        region.concept: [phrase.text for phrase in region.phrases if phrase.kind == "report"] for region in record.regions
    }
    assert phrases == {PNEUMONIA: ["multifocal pneumonia"], ATELECTASIS: ["left basilar atelectasis"]}
    assert record.absent == record.exhaustive == ()


def test_a_report_of_padchest_gr_is_one_text_a_language_with_a_span_a_positive_sentence(tmp_path: Path) -> None:
    found = texts_of(padchest_gr(), tmp_path)
    (record, texts), (plain, plain_texts) = found.values()
    assert [text.language for text in texts] == ["en", "es"]
    assert texts[0].text == (
        "Left pleural effusion. No pneumothorax. Laminar atelectasis and consolidation. Laminar atelectasis at both bases."
    )
    assert spoken(record, texts[0]) == [("Left pleural effusion.", [A]), ("Laminar atelectasis at both bases.", [B, C])]
    assert spoken(record, texts[1]) == [
        ("Derrame pleural izquierdo.", [A]), ("Atelectasias laminares en ambas bases.", [B, C]),
    ]  # fmt: skip
    assert [text.text for text in plain_texts] == ["Normal chest. A griffin.", "Torax normal. Un grifo."]
    assert plain.absent == record.absent == ()
    effusion = next(region for region in record.regions if region.concept == EFFUSION)
    assert effusion.attributes == {"readers": 2, "agreement": pytest.approx(15 / 16, abs=1e-3)}
    assert (record.bits, record.group == plain.group) == (16, False)


def test_the_images_of_a_study_of_openi_share_its_report(tmp_path: Path) -> None:
    found = texts_of(openi(), tmp_path)
    texts = [[(text.kind, text.text) for text in texts] for _, texts in found.values()]
    assert texts[0] == texts[1] == [
        ("report", "Findings: The heart is normal.\nLungs are clear, XXXX.\nImpression: Normal chest x-XXXX."),
        ("finding", "normal"),
    ]  # fmt: skip
    assert texts[2] == [("report", "Impression: Mild cardiomegaly."), ("finding", "Cardiomegaly;Scoliosis")]
    assert [record.modality_detail["view"].casefold() for record, _ in found.values()] == ["lateral", "frontal", "frontal"]


def test_the_images_of_a_study_of_mimic_cxr_share_its_report(tmp_path: Path) -> None:
    found = texts_of(mimic_cxr(), tmp_path)
    texts = [[text.text for text in texts] for _, texts in found.values()]
    assert texts == [["FINAL REPORT\n EXAMINATION:  CHEST\n\n FINDINGS:\n Clear, ___."]] * 2 + [[]]
    assert {record.split_source for record, _ in found.values()} == {"official"}


def test_the_questions_of_slake_stay_with_their_image_and_language(tmp_path: Path) -> None:
    found = texts_of(slake(), tmp_path)
    pairs = {Path(name).parent.name: [(text.language, text.text, text.answer) for text in texts]
             for name, (_, texts) in found.items()}  # fmt: skip
    assert pairs == {
        "xmlab1": [("en", "Which organ is seen?", "Lung"), ("zh", "图中是什么器官?", "肺")],
        "xmlab2": [("en", "Does the picture contain liver?", "Yes"), ("en", "How many kidneys?", "2")],
        "xmlab12": [("en", "Where is the tumor?", "Brain")],
    }
    assert {text.kind for _, texts in found.values() for text in texts} == {"question"}
    assert {Path(name).parent.name: record.modality for name, (record, _) in found.items()} == {
        "xmlab1": "xray", "xmlab2": "ct", "xmlab12": "mr",
    }  # fmt: skip


def test_the_split_by_question_of_vqa_rad_does_not_tear_images_apart(tmp_path: Path) -> None:
    found = texts_of(rad(), tmp_path)
    record, texts = found["VQA_RAD Image Folder/synpic1.jpg"]
    assert [(text.text, text.answer) for text in texts] == [("How many nodules?", "5"), ("Is there a nodule?", "yes")]
    assert record.split_source == "hash"
    assert {record.modality for record, _ in found.values()} == {"xray", "ct", "other"}
