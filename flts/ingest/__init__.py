"""Convert an uploaded CSV to arrays. A file that cannot be read or trained on is refused with the name of the field."""

from flts.ingest.csv_reader import read_csv
from flts.ingest.report import ValidationReport, validation_report
from flts.ingest.sample import write_sample
from flts.ingest.table import RawTable
from flts.ingest.uploads import RawUpload, newest_upload, upload_hash

__all__ = [
    "RawTable",
    "RawUpload",
    "ValidationReport",
    "newest_upload",
    "read_csv",
    "upload_hash",
    "validation_report",
    "write_sample",
]
