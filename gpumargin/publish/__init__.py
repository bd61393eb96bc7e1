"""Results on disk: whole or not at all, and a run that was broken off can be gone on with."""

from gpumargin.publish.files import (
    CHECKSUMS,
    StagedFolder,
    digest_of_files,
    file_digest,
    json_text,
    read_json,
    resolve_run,
    write_file,
    write_table,
)
from gpumargin.publish.records import Record
from gpumargin.publish.runfolder import RunFolder, silent
from gpumargin.publish.staging import Note

__all__ = [
    "CHECKSUMS",
    "Note",
    "Record",
    "RunFolder",
    "StagedFolder",
    "digest_of_files",
    "file_digest",
    "json_text",
    "read_json",
    "resolve_run",
    "silent",
    "write_file",
    "write_table",
]
