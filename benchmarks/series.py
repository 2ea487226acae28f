"""Seconds from the files of a DICOM series to a volume with an affine, beside SimpleITK, dicom2nifti and dcm2niix.

A generated CT of 512 x 512 pixels a slice, uncompressed and as JPEG 2000 lossless; the files are in no order. Each reader
gives voxels in memory with their affine; dcm2niix, a program of its own, writes an uncompressed NIfTI file instead. In one
run, in turn, each in a fresh process that has imported its library. dicom2nifti and dcm2niix are left out, and said to
be, where they are not installed. All on one core, which is what a worker of a conversion has; `--all-cores` lets each take what
it can, which SimpleITK does for JPEG 2000.

Usage: scripts/bench series [--slices 200] [--repeats 5] [--all-cores]
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

ROOT = Path(__file__).resolve().parents[1]
READERS = ("medglip", "simpleitk", "dicom2nifti", "dcm2niix")


def write_series(folder: Path, slices: int, *, compressed: bool) -> None:
    """Write a CT of smooth tissue with noise, its files named without order."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    study, series, reference = (generate_uid(entropy_srcs=[name]) for name in ("study", "series", "frame"))
    for number in rng.permutation(slices):
        body = np.where(x**2 / 0.8 + y**2 / 0.5 < 1, 1064 + 60 * np.sin(5 * x + number / 20), 24)
        pixels = np.clip(body + rng.normal(0, 10, body.shape), 0, 4095).astype(np.uint16)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["instance", str(number)])
        image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, reference
        image.Modality, image.Manufacturer, image.PatientID, image.PatientName = "CT", "generated", "generated", "generated"
        image.ImageType, image.SeriesNumber, image.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, int(number) + 1
        image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = "20000101"
        image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "120000"
        image.StudyID, image.AcquisitionNumber, image.PatientPosition = "1", 1, "HFS"
        image.ImagePositionPatient, image.ImageOrientationPatient = [-200.0, -200.0, 1.5 * number], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [0.78, 0.78], 1.5
        image.Rows, image.Columns, image.SamplesPerPixel = 512, 512, 1
        image.PhotometricInterpretation, image.RescaleSlope, image.RescaleIntercept = "MONOCHROME2", 1, -1024
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.PixelData = pixels.tobytes()
        if compressed:
            image.compress(JPEG2000Lossless, generate_instance_uid=False)
        image.save_as(folder / f"{rng.integers(1 << 40):010x}.dcm", enforce_file_format=True)


def read(reader: str, folder: Path) -> tuple[float, float]:
    """Seconds, and the sum of the voxels in HU, which all readers must agree on."""
    if reader == "medglip":
        from medglip.imaging.series import read_folder

        begin = time.perf_counter()
        voxels = read_folder(folder).voxels
    elif reader == "simpleitk":
        import SimpleITK

        begin = time.perf_counter()
        files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(files))
    elif reader == "dicom2nifti":
        import dicom2nifti.common
        import dicom2nifti.convert_generic

        begin = time.perf_counter()
        found = dicom2nifti.common.read_dicom_directory(str(folder))
        voxels = np.asanyarray(dicom2nifti.convert_generic.dicom_to_nifti(found, None)["NII"].dataobj)
    else:
        import nibabel

        with tempfile.TemporaryDirectory() as out:
            begin = time.perf_counter()
            command = ["dcm2niix", "-b", "n", "-z", "n", "-o", out, str(folder)]
            subprocess.run(command, check=True, capture_output=True)
            seconds = time.perf_counter() - begin
            (file,) = Path(out).glob("*.nii")
            return seconds, float(np.asanyarray(nibabel.load(file).dataobj).sum(dtype=np.float64))
    return time.perf_counter() - begin, float(voxels.sum(dtype=np.float64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--all-cores", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(read(given.child[0], Path(given.child[1]))))
        return
    if not given.all_cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of the readers, too: they inherit it
    there = {"medglip": True, "simpleitk": True, "dicom2nifti": find_spec("dicom2nifti"), "dcm2niix": shutil.which("dcm2niix")}
    readers = [reader for reader in READERS if there[reader]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, compressed in (("uncompressed", False), ("jpeg_2000_lossless", True)):
            folder = Path(scratch) / name
            write_series(folder, given.slices, compressed=compressed)
            seconds: dict[str, list[float]] = {reader: [] for reader in readers}
            sums = set()
            for _ in range(given.repeats):
                for reader in readers:
                    command = [sys.executable, __file__, "--child", reader, str(folder)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                    taken, total = json.loads(done.stdout.splitlines()[-1])
                    seconds[reader].append(taken)
                    sums.add(total)
            if len(sums) != 1:
                raise SystemExit(f"The readers disagree on the grey values: sums {sums}.")
            ratios = {
                reader: [theirs / ours for theirs, ours in zip(seconds[reader], seconds["medglip"], strict=True)]
                for reader in readers[1:]
            }
            results[name] = {
                "seconds": {reader: statistics.median(found) for reader, found in seconds.items()}, "runs": seconds,
                "times_slower_than_medglip": {
                    reader: {"median": statistics.median(found), "least": min(found), "most": max(found)}
                    for reader, found in ratios.items()
                },
            }  # fmt: skip
            print(name, json.dumps({key: value for key, value in results[name].items() if key != "runs"}), flush=True)
    result = {"what": __doc__.splitlines()[0], "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
              "python": platform.python_version(), "pydicom": pydicom.__version__, "slices": given.slices,
              "one_core": not given.all_cores,
              "not_installed": [reader for reader in READERS if reader not in readers], **results}  # fmt: skip
    target = ROOT / "benchmarks/results/series.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
