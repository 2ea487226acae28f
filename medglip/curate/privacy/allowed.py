"""What of a DICOM header may reach a dataset at all, as tables. Reads no file.

No header is copied. Each attribute that is read for a dataset stands in ``HEADER`` with what becomes of it, each private
element in ``PRIVATE``; what does not stand there is never looked at, whatever is in it. A test holds the code to the tables.
"""

import re
from collections.abc import Mapping

# What becomes of an attribute.
PIXELS = "pixels: read to decode and scale them; of the values, only slope, intercept and window are stored"
GEOMETRY = "geometry: stored as affine, spacing and checks, numbers only"
HASHED = "key: stored as a keyed hash"
WORDS = "modality_detail: stored where it is one of the words in DETAIL"
LABEL = "label: decides the label of the tree; its own text is not stored"
FLAG = "flag: decides a flag; its own text is not stored"
SORTING = "sorting: tells files, frames and segments apart; not stored"
NUMBERS = "SUV: enters the factor of PET values; not stored"

_TABLE = {
    PIXELS: """
        BitsAllocated BitsStored Columns DoubleFloatPixelData FloatPixelData FrameVOILUTSequence HighBit LUTData LUTDescriptor
        LargestImagePixelValue ModalityLUTSequence NumberOfFrames PhotometricInterpretation PixelData PixelRepresentation
        PixelValueTransformationSequence PlanarConfiguration PresentationLUTShape RescaleIntercept RescaleSlope RescaleType Rows
        SamplesPerPixel SegmentationType MaximumFractionalValue SmallestImagePixelValue TransferSyntaxUID VOILUTFunction
        VOILUTSequence WindowCenter WindowWidth RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor
        BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData
        BluePaletteColorLookupTableData PixelPaddingValue PixelPaddingRangeLimit
    """,
    GEOMETRY: """
        ColumnPositionInTotalImagePixelMatrix ContourData EstimatedRadiographicMagnificationFactor GantryDetectorTilt
        ImageOrientationPatient ImagePositionPatient ImagerPixelSpacing NominalScannedPixelSpacing PhysicalDeltaX
        PhysicalDeltaY PhysicalUnitsXDirection PhysicalUnitsYDirection PixelMeasuresSequence PixelSpacing
        PixelSpacingCalibrationType PlaneOrientationSequence PlanePositionSequence PlanePositionSlideSequence
        RegionLocationMaxX1 RegionLocationMaxY1 RegionLocationMinX0 RegionLocationMinY0
        RowPositionInTotalImagePixelMatrix SequenceOfUltrasoundRegions SliceThickness SpacingBetweenSlices
        TotalPixelMatrixColumns TotalPixelMatrixRows
    """,
    HASHED: "PatientID StudyInstanceUID SeriesInstanceUID",
    WORDS: "BodyPartExamined PixelAspectRatio ScanningSequence ViewPosition",
    LABEL: """
        AnatomicRegionModifierSequence AnatomicRegionSequence CodeMeaning CodeValue CodingSchemeDesignator LongCodeValue ROIName
        SegmentLabel SegmentSequence SegmentedPropertyTypeCodeSequence SegmentedPropertyTypeModifierCodeSequence
        SegmentedPropertyCategoryCodeSequence SegmentDescription
    """,
    FLAG: """
        BurnedInAnnotation CTImageFrameTypeSequence ConversionType DimensionOrganizationType DirectoryRecordType
        FrameType ImageType LossyImageCompression MRImageFrameTypeSequence Modality PETFrameTypeSequence
        PatientIdentityRemoved RecognizableVisualFeatures SOPClassUID SeriesDescription
    """,
    SORTING: """
        AcquisitionNumber AcquisitionTime CardiacSynchronizationSequence ContentTime ContourGeometricType
        ContourImageSequence ContourSequence DerivationImageSequence DiffusionBValue DiffusionGradientDirectionSequence
        DiffusionGradientOrientation DirectoryRecordSequence EchoTime EffectiveEchoTime FrameAcquisitionDateTime
        FrameAcquisitionNumber FrameContentSequence FrameOfReferenceUID FrameReferenceDateTime InstanceNumber
        MRDiffusionSequence MREchoSequence MediaStorageSOPClassUID MediaStorageSOPInstanceUID
        NominalCardiacTriggerDelayTime PerFrameFunctionalGroupsSequence ROIContourSequence ROINumber
        RTReferencedSeriesSequence RTReferencedStudySequence ReferencedFileID ReferencedFrameNumber
        ReferencedFrameOfReferenceSequence ReferencedFrameOfReferenceUID ReferencedInstanceSequence ReferencedROINumber
        ReferencedSOPClassUID ReferencedSOPInstanceUID ReferencedSegmentNumber ReferencedSeriesSequence SOPInstanceUID
        SegmentIdentificationSequence SegmentNumber SharedFunctionalGroupsSequence SourceImageSequence StackID
        StructureSetROISequence TemporalPositionIdentifier TemporalPositionIndex TemporalPositionSequence TriggerTime
    """,
    NUMBERS: """
        DecayCorrection PatientWeight RadionuclideHalfLife RadionuclideTotalDose RadiopharmaceuticalInformationSequence
        RadiopharmaceuticalStartDateTime RadiopharmaceuticalStartTime SUVType SeriesTime Units
    """,
}  # fmt: skip
# Private elements: of all that makers write, numbers alone.
PRIVATE = {
    (0x0019, 0x100A): "geometry: slices of a Siemens mosaic",
    (0x0029, 0x1010): "geometry: Siemens' CSA header; slices of a mosaic, their normal",
    (0x0019, 0x100C): "sorting: b-value, Siemens",
    (0x0043, 0x1039): "sorting: b-value, GE",
    (0x2001, 0x1003): "sorting: b-value, Philips",
    (0x7053, 0x1000): "SUV: Philips' factor to SUV",
    (0x7053, 0x1009): "SUV: Philips' factor to Bq/ml",
}
HEADER = {attribute: becomes for becomes, names in _TABLE.items() for attribute in names.split()}

_HEAD = "head brain skull face headneck neck jaw mandible maxilla orbit eye ear nose sinus pituitary tmjoint iac sella"
# Words that a header may give, in lower case.
# Source: DICOM PS3.16 Annex L (body parts), PS3.3 C.8.7.1 and C.8.11.7 (views), C.8.3.1 (scanning sequences).
_VIEWS = """
    ap pa ll rl rld lld rlo llo lateral left right lao rao lpo rpo cc mlo ml lm lmo xccl xccm fb sio iso cv ax decub erect
    supine oblique
"""
_BODY_PARTS = f"""
    {_HEAD} abdomen abdomenpelvis abdpelvis adrenal ankle aorta arm axilla back bladder bone breast calcaneus chest
    chestabdomen chestabdpelvis clavicle coccyx colon cspine ctspine elbow esophagus extremity femur finger foot forearm
    gallbladder hand heart hip humerus ileum kidney knee larynx leg liver lower_limb lspine lsspine lumbar lung lymph muscle
    neckchest neckchestabdomen neckchestabdpelv pancreas parotid pelvis prostate rectum rib ribs scapula shoulder spine spleen
    sspine sternum stomach testis thigh thorax thymus thyroid tibia tlspine toe trachea tspine upper_limb urethra uterus vagina
    wholebody wholespine wrist
"""
_SEQUENCES, _PLANES = "se ir gr ep rm", "axial coronal sagittal"
# Key of modality_detail -> its words.
DETAIL: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in (
        ("view", _VIEWS),
        ("body_part", _BODY_PARTS),
        ("scanning_sequence", _SEQUENCES),
        ("plane", _PLANES),
    )
}
# Key of modality_detail -> shape of the numbers that a header may give it.
_NUMBERS = {"pixel_aspect_ratio": re.compile(r"\d{1,5}:\d{1,5}")}
# What may tell the volumes of a series apart in numbers; of times and texts only the attribute is stored.
_APART = ("AcquisitionNumber", "DiffusionBValue", "EchoTime", "TemporalPositionIdentifier", "TriggerTime")
_SMALL = re.compile(r"-?\d{1,6}(\.\d{1,6})?")
_OLD = 90  # years; HIPAA, 45 CFR 164.514(b)(2)(i)(C): ages from here on are one
_HEAD_WORDS = (*_HEAD.split(), "wholebody")
_NOT_A_LETTER = re.compile(r"[^a-z]+")


def allowed_detail(detail: Mapping[str, str]) -> dict[str, str]:
    """Of what a header says of the acquisition, what may be stored: known keys with words of the standard.

    >>> allowed_detail({"view": "pa", "body_part": "jane doe", "station": "ward 3", "scanning_sequence": "se/ir"})
    {'view': 'pa', 'scanning_sequence': 'se/ir'}
    """
    return {name: text for name, text in detail.items() if _is_allowed(name, text)}


def _is_allowed(name: str, text: str) -> bool:
    if name in _NUMBERS:
        return _NUMBERS[name].fullmatch(text) is not None
    return name in DETAIL and all(word in DETAIL[name] for word in text.split("/"))


def allowed_apart(said: str) -> str:
    """What tells a volume from others of its series, ``attribute=value``, without a value that may be a time or a text.

    >>> allowed_apart("EchoTime=4.6"), allowed_apart("FrameAcquisitionDateTime=20190302101112")
    ('EchoTime=4.6', 'FrameAcquisitionDateTime')
    """
    attribute, _, value = said.partition("=")
    if attribute in _APART and _SMALL.fullmatch(value):
        return said
    return attribute if attribute in HEADER else "other"


def capped_age(name: str, text: str) -> str:
    """An entry of modality_detail that is an age, without telling the oldest patients: 90 and above are ``90+``.

    >>> capped_age("age", "093Y"), capped_age("patient_age", "61"), capped_age("stage", "93")
    ('90+', '61', '93')
    """
    age = re.fullmatch(r"0*(\d{1,3})(\.\d*)?\s*(y|years?)?", text.strip(), re.IGNORECASE)
    return "90+" if age and re.search(r"(^|_)age($|_)", name) and int(age[1]) >= _OLD else text


def says_head(body_part: str) -> bool:
    """Whether the header's word for the body part means that a face may be in the image.

    >>> says_head("HEAD^Routine"), says_head("whole body"), says_head("heart"), says_head("forearm")
    (True, True, False, False)
    """
    words = _NOT_A_LETTER.split(body_part.casefold())
    return any(word in _HEAD_WORDS for word in (*words, "".join(words))) or "wholebody" in "".join(words)
